"""Quorums and configuration changes against etcd/raft's own vectors."""

from __future__ import annotations

import pytest

from shoal.raft.core.confchange import Changer, ConfChangeError
from shoal.raft.core.messages import ConfChangeSingle, ConfChangeType
from shoal.raft.core.quorum import EVERYTHING, joint_committed_index, joint_vote_result
from shoal.raft.core.tracker import Tracker
from tests.vectors.datadriven import Case, read_cases, vectors_folder

QUORUM_FILES = ("joint_commit", "joint_vote", "majority_commit", "majority_vote")
CONFCHANGE_FILES = (
    "joint_autoleave",
    "joint_idempotency",
    "joint_learners_next",
    "joint_safety",
    "simple_idempotency",
    "simple_promote_demote",
    "simple_safety",
    "update",
    "zero",
)
STEPS = {
    "v": ConfChangeType.ADD_NODE,
    "l": ConfChangeType.ADD_LEARNER,
    "r": ConfChangeType.REMOVE_NODE,
    "u": ConfChangeType.UPDATE_NODE,
}


def members(case: Case, key: str) -> list[int]:
    return [int(number) for number in case.numbers(key) if number != "zero"]


def quorum_result(case: Case) -> str:
    incoming, outgoing = members(case, "cfg"), members(case, "cfgj")
    order = list(dict.fromkeys([*incoming, *outgoing]))
    if case.command == "committed":
        given = dict(zip(order, case.numbers("idx"), strict=False))
        acked = {member: int(index) for member, index in given.items() if index != "_"}
        committed = joint_committed_index(frozenset(incoming), frozenset(outgoing), acked.get)
        return "∞" if committed == EVERYTHING else str(committed)
    given = dict(zip(order, case.numbers("votes"), strict=False))
    votes = {member: vote == "y" for member, vote in given.items() if vote != "_"}
    return str(joint_vote_result(frozenset(incoming), frozenset(outgoing), votes))


@pytest.mark.parametrize("name", QUORUM_FILES)
def test_quorum(name: str) -> None:
    cases = list(read_cases(vectors_folder("raft/quorum") / f"{name}.txt"))
    assert len(cases) > 10
    for case in cases:
        expected = case.expected.split("\n")[-1].removeprefix("<empty majority quorum>")
        assert quorum_result(case) == expected, f"{case.file}:{case.line}"


def run_change(tracker: Tracker, last_index: int, case: Case) -> str:
    changes = [ConfChangeSingle(STEPS[word[0]], int(word[1:])) for word in case.input.split()]
    changer = Changer(tracker, last_index)
    try:
        match case.command:
            case "simple":
                result = changer.simple(changes)
            case "enter-joint":
                result = changer.enter_joint(case.arguments.get("autoleave") == "true", changes)
            case "leave-joint":
                result = changer.leave_joint()
            case other:
                raise AssertionError(f"unknown command {other}")
    except ConfChangeError as error:
        return str(error)
    tracker.config, tracker.progress = result
    return "\n".join([str(tracker.config), *(f"{member}: {progress}" for member, progress in tracker.members())])


@pytest.mark.parametrize("name", CONFCHANGE_FILES)
def test_confchange(name: str) -> None:
    tracker = Tracker(10)
    cases = list(read_cases(vectors_folder("raft/confchange") / f"{name}.txt"))
    assert cases
    for last_index, case in enumerate(cases):
        assert run_change(tracker, last_index, case) == case.expected, f"{case.file}:{case.line}"
