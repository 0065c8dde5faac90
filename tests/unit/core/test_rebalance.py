"""Moving tasks of uneven services: which, and what becomes of a move that something comes between."""

from __future__ import annotations

from collections import Counter

import pytest

from shoal.manager.rebalancing import propose
from shoal.model.actions import PatchTask
from shoal.model.base import replace
from shoal.model.objects import Task
from shoal.model.specs import (
    Placement,
    PlacementPreference,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    SpreadOver,
)
from shoal.model.states import Availability, NodeState, TaskState
from tests.doubles.swarm import SECOND, PureSwarm, service_spec

AUTO = {"shoal.rebalance": "auto"}


def uneven(spec: ServiceSpec, labels: dict[str, str] | None = None) -> tuple[PureSwarm, str]:
    """A swarm of three nodes of which the third has just returned, empty."""
    swarm = PureSwarm(3)
    swarm.set_availability("n3", Availability.DRAIN)
    id_ = swarm.create(replace(spec, labels=AUTO if labels is None else labels))
    swarm.settle()
    swarm.set_availability("n3", Availability.ACTIVE)
    return swarm, id_


def spread(swarm: PureSwarm, id_: str) -> list[int]:
    counts = Counter(task.node_id for task in swarm.running(id_))
    return [counts[node] for node in sorted(swarm.tables.nodes.rows)]


def guests(swarm: PureSwarm, id_: str) -> list[Task]:
    return [task for task in swarm.wanted(id_) if task.replaces]


def test_tasks_move_to_a_node_that_has_returned_one_after_another() -> None:
    swarm, id_ = uneven(service_spec("web", 6))
    assert spread(swarm, id_) == [3, 3, 0]
    began_ns, fewest, at_once = swarm.now_ns, 6, 0
    for _ in swarm.rounds():
        fewest = min(fewest, len(swarm.tasks(id_, TaskState.RUNNING)))
        at_once = max(at_once, len(swarm.wanted(id_)) - 6)
    assert spread(swarm, id_) == [2, 2, 2]
    assert (fewest, at_once) == (6, 1)
    assert swarm.now_ns - began_ns >= 10 * SECOND, "so many a minute"
    assert {task.slot for task in swarm.running(id_)} == set(range(1, 7))


def test_without_the_label_nothing_moves_but_when_it_is_asked_for() -> None:
    swarm, id_ = uneven(service_spec("web", 4), labels={})
    swarm.pass_seconds(60)
    assert spread(swarm, id_) == [2, 2, 0]
    moves = propose(swarm.view, swarm.service(id_), swarm.now_ns).moves
    assert [(move.from_node_id, move.to_node_id, move.why) for move in moves] == [
        ("n1", "n3", "2 tasks run there, 0 on the other")
    ]
    swarm.patch_service(id_, rebalancing=True)
    swarm.settle()
    assert sorted(spread(swarm, id_)) == [1, 1, 2]
    assert not swarm.service(id_).rebalancing


@pytest.mark.parametrize(
    "template",
    [
        {"placement": Placement(constraints=("node.id!=n3",))},
        {"resources": ResourceRequirements(reservations=Resources(nano_cpus=1_000_000_000))},
    ],
)
def test_nothing_moves_where_it_could_not_be_placed(template: dict[str, object]) -> None:
    swarm, id_ = uneven(service_spec("web", 4, **template))
    swarm.create(service_spec("other", 4, placement=Placement(constraints=("node.id==n3",)), **_reserved(template)))
    swarm.settle()
    assert spread(swarm, id_) == [2, 2, 0]


def _reserved(template: dict[str, object]) -> dict[str, object]:
    return {"resources": template["resources"]} if "resources" in template else {}


def test_the_branches_of_a_preference_are_evened_out_first() -> None:
    swarm = PureSwarm(3)
    for node, zone in (("n1", "a"), ("n2", "a"), ("n3", "b")):
        swarm.set_labels(node, zone=zone)
    swarm.set_availability("n3", Availability.DRAIN)
    preference = PlacementPreference(spread=SpreadOver(spread_descriptor="node.labels.zone"))
    id_ = swarm.create(replace(service_spec("web", 4, placement=Placement(preferences=(preference,))), labels=AUTO))
    swarm.settle()
    assert spread(swarm, id_) == [2, 2, 0]
    swarm.set_availability("n3", Availability.ACTIVE)
    swarm.settle()
    assert spread(swarm, id_) == [1, 1, 2]


def test_a_move_that_cannot_be_made_leaves_the_task_where_it_is() -> None:
    swarm, id_ = uneven(service_spec("web", 4))
    before = {task.id for task in swarm.running(id_)}
    swarm.bad_images.add("busybox")
    swarm.pass_seconds(1)
    assert [task.status.state for task in swarm.tasks(id_) if task.replaces] == [TaskState.REJECTED]
    assert {task.id for task in swarm.wanted(id_)} == before
    swarm.pass_seconds(60)
    assert len([task for task in swarm.tasks(id_) if task.replaces]) == 1, "not to a node where it failed just now"


def test_a_place_that_is_taken_meanwhile_is_not_waited_for() -> None:
    most = ResourceRequirements(reservations=Resources(nano_cpus=1_000_000_000))
    swarm, id_ = uneven(service_spec("web", 4, resources=most))
    swarm.decide(("rebalancer",))
    assert len(guests(swarm, id_)) == 1
    here = Placement(constraints=("node.id==n3",))
    other = swarm.create(service_spec("other", 4, resources=most, placement=here))
    for _ in range(3):
        swarm.decide(("orchestrator", "allocator"))
    tasks = [task for task in swarm.wanted(other) if task.status.state == TaskState.PENDING]
    swarm.apply(
        *(PatchTask(id=task.id, node_id="n3", status=replace(task.status, state=TaskState.ASSIGNED)) for task in tasks)
    )
    swarm.pass_seconds(5)
    assert guests(swarm, id_) == []
    assert spread(swarm, id_) == [2, 2, 0]


def test_an_update_ends_a_move() -> None:
    swarm, id_ = uneven(service_spec("web", 4))
    swarm.decide()
    assert len(guests(swarm, id_)) == 1
    swarm.set_image(id_, "new")
    swarm.decide()
    assert guests(swarm, id_) == []
    swarm.settle()
    assert len(swarm.running(id_)) == 4
    assert {task.spec_version for task in swarm.running(id_)} == {2}


def test_a_task_that_fails_while_it_is_moved_has_its_successor_already() -> None:
    swarm, id_ = uneven(service_spec("web", 4))
    swarm.decide()
    guest = guests(swarm, id_)[0]
    swarm.finish(next(task for task in swarm.running(id_) if task.id == guest.replaces))
    swarm.settle()
    assert len(swarm.running(id_)) == 4
    assert guest.id in {task.id for task in swarm.running(id_)}


def test_the_new_node_dies_while_a_task_comes_to_it() -> None:
    swarm, id_ = uneven(service_spec("web", 4))
    swarm.decide()
    swarm.set_state("n3", NodeState.DOWN)
    swarm.settle()
    assert spread(swarm, id_) == [2, 2, 0]
    assert guests(swarm, id_) == []
