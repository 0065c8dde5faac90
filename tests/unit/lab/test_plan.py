"""Names, addresses and growth of a lab, and the rules of its cuts."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.lab.plan import (
    Cut,
    LabState,
    add_cuts,
    check_name,
    check_scratch,
    choose_network,
    cut_rules,
    cuts_without,
    describe_cuts,
    grow,
    hardware_address,
    next_node,
)
from shoal.model.base import replace

EMPTY = LabState(name="lab", scratch="/scratch", network="192.168.77")


def lab_of(managers: int, workers: int) -> LabState:
    return replace(EMPTY, nodes=grow(EMPTY, managers, workers))


def test_a_new_lab_has_three_managers_and_two_workers():
    assert [node.name for node in grow(EMPTY, None, None)] == ["m1", "m2", "m3", "w1", "w2"]
    assert [node.number for node in grow(EMPTY, None, None)] == [1, 2, 3, 4, 5]


def test_what_is_not_asked_for_stays_as_it_is():
    state = lab_of(1, 0)
    assert grow(state, None, None) == state.nodes
    grown = grow(state, None, 2)
    assert [(node.name, node.number) for node in grown] == [("m1", 1), ("w1", 2), ("w2", 3)]


def test_a_lab_does_not_shrink_by_itself():
    with pytest.raises(Conflict, match=r'"lab" has 3 managers: to have 1, use `shoal lab remove m2` and .* m3`'):
        grow(lab_of(3, 0), 1, None)


@pytest.mark.parametrize(("managers", "workers"), [(0, 2), (1, -1)])
def test_numbers_that_cannot_be(managers, workers):
    with pytest.raises(InvalidArgument, match="one manager at least"):
        grow(EMPTY, managers, workers)


def test_names_and_addresses_that_are_free_are_used_again():
    state = lab_of(1, 2)
    left = tuple(node for node in state.nodes if node.name != "w1")
    node = next_node(left, "worker")
    assert (node.name, node.number) == ("w1", 2)
    with pytest.raises(Conflict, match="253"):
        next_node(lab_of(1, 252).nodes, "worker")


def test_a_node_that_is_not_there():
    with pytest.raises(NotFound, match='no node "m9"; there is m1, w1'):
        lab_of(1, 1).find("m9")


@pytest.mark.parametrize("name", ["", "Lab", "a-b", "1lab", "a" * 17, "a b", "../x"])
def test_names_that_cannot_be(name):
    with pytest.raises(InvalidArgument, match="--name"):
        check_name(name)


def test_paths_of_sockets_are_short_enough():
    assert check_scratch(Path("/" + "x" * 83)) == Path("/" + "x" * 83)
    with pytest.raises(InvalidArgument, match="1 bytes shorter"):
        check_scratch(Path("/" + "x" * 84))


def test_a_free_range_is_chosen():
    assert choose_network([]) == "192.168.77"
    assert choose_network(["192.168.77.9/24", "10.0.0.1/8", "192.168.78.0/23"]) == "192.168.80"
    with pytest.raises(Conflict, match="down"):
        choose_network(["192.168.0.0/16"])


def test_a_node_keeps_its_hardware_address():
    assert hardware_address("192.168.77.10") == "02:00:c0:a8:4d:0a"


def test_cuts_are_made_once_and_healed():
    both = add_cuts((), "m1")
    assert both == (Cut(sender="*", receiver="m1"), Cut(sender="m1", receiver="*"))
    assert add_cuts(both, "m1") == both
    more = add_cuts(both, "m2", "out", ["w1"])
    assert more[2:] == (Cut(sender="m2", receiver="w1"),)
    assert cuts_without(more, "w1") == both
    assert cuts_without(more) == ()
    with pytest.raises(InvalidArgument, match="from itself"):
        add_cuts((), "m1", None, ["m1"])


def test_cuts_in_words():
    cuts = add_cuts(add_cuts(add_cuts((), "m1"), "m2", "in", ["w1"]), "m2", "out", ["w2"])
    assert describe_cuts(cuts, "m1") == "cut from everybody"
    assert describe_cuts(cuts, "m2") == "hears nothing of w1, not heard by w2"
    assert describe_cuts(cuts, "w1") == "not heard by m2"
    assert describe_cuts(cuts, "w3") == ""


def test_rules_say_every_cut_and_replace_those_before():
    rules = cut_rules(add_cuts(add_cuts((), "m1"), "m2", "in", ["w1"]))
    assert rules.startswith("table bridge shoal_lab_cuts\ndelete table bridge shoal_lab_cuts\n")
    assert [line.strip() for line in rules.splitlines() if line.endswith("drop")] == [
        'oifname "m1" drop',
        'iifname "m1" drop',
        'iifname "w1" oifname "m2" drop',
    ]
    assert cut_rules(()) == "table bridge shoal_lab_cuts\ndelete table bridge shoal_lab_cuts\n"
