"""Slots, restarts and history (docker-swarm.md 4.2, 4.4), over pure plans."""

from __future__ import annotations

import pytest

from shoal.model.actions import Remove, Replace
from shoal.model.base import replace
from shoal.model.objects import Cluster
from shoal.model.specs import ClusterSpec, OrchestrationConfig, Placement, RestartPolicy, UpdateConfig
from shoal.model.states import Availability, NodeState, TaskState
from tests.doubles.swarm import SECOND, PureSwarm, service_spec


def started(nodes: int = 1, replicas: int | None = 1, **policy: object):  # type: ignore[no-untyped-def]
    swarm = PureSwarm(nodes)
    restart = RestartPolicy(**policy) if policy else None  # type: ignore[arg-type]
    id_ = swarm.create(service_spec("web", replicas, restart_policy=restart))
    swarm.settle()
    return swarm, id_


@pytest.mark.parametrize(
    ("condition", "code", "replaced"),
    [
        ("any", 0, True),
        ("any", 1, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("none", 0, False),
        ("none", 1, False),
    ],
)
@pytest.mark.parametrize("replicas", [1, None])
def test_restart_conditions(condition: str, code: int, replaced: bool, replicas: int | None) -> None:
    swarm, id_ = started(replicas=replicas, condition=condition, delay=0)
    swarm.finish(swarm.running(id_)[0], code)
    swarm.settle()
    assert len(swarm.running(id_)) == (1 if replaced else 0)
    assert len(swarm.tasks(id_)) == (2 if replaced else 1)


def test_the_replacement_is_made_at_once_and_starts_after_the_delay() -> None:
    swarm, id_ = started(delay=3 * SECOND)
    swarm.finish(swarm.running(id_)[0])
    swarm.pass_seconds(2.9)
    new = swarm.wanted(id_)[0]
    assert (new.status.state, new.desired_state) == (TaskState.READY, TaskState.READY)
    swarm.pass_seconds(0.2)
    assert swarm.running(id_) == [swarm.tables.tasks.rows[new.id]]


def test_the_delay_is_five_seconds_if_none_is_given() -> None:
    swarm, id_ = started()
    swarm.finish(swarm.running(id_)[0])
    swarm.pass_seconds(4.9)
    assert swarm.running(id_) == []
    swarm.pass_seconds(0.2)
    assert len(swarm.running(id_)) == 1


def test_a_later_word_of_the_failed_task_does_not_shorten_the_delay() -> None:
    from shoal.model.actions import PatchTask

    swarm, id_ = started(delay=30 * SECOND)
    failed = swarm.running(id_)[0]
    swarm.finish(failed)
    swarm.pass_seconds(1)
    seen = swarm.tables.tasks.rows[failed.id].status
    swarm.apply(PatchTask(id=failed.id, status=replace(seen, err="more is known")))
    swarm.pass_seconds(1)
    assert swarm.running(id_) == []


def test_attempts_are_counted_without_a_window() -> None:
    swarm, id_ = started(delay=0, max_attempts=2)
    for _ in range(3):
        swarm.pass_seconds(1000)
        swarm.finish(swarm.running(id_)[0])
        swarm.settle()
    assert swarm.wanted(id_) == []
    assert len(swarm.tasks(id_, TaskState.FAILED)) == 3


def test_attempts_outside_the_window_are_forgotten() -> None:
    swarm, id_ = started(delay=0, max_attempts=2, window=60 * SECOND)
    for _ in range(6):
        swarm.pass_seconds(61)
        swarm.finish(swarm.running(id_)[0])
        swarm.settle()
        assert len(swarm.running(id_)) == 1
    for _ in range(2):
        swarm.finish(swarm.running(id_)[0])
        swarm.settle()
    assert swarm.wanted(id_) == [], "two replacements within a minute are all"


def test_a_new_spec_counts_anew() -> None:
    swarm, id_ = started(delay=0, max_attempts=1)
    for _ in range(2):
        swarm.finish(swarm.running(id_)[0])
        swarm.settle()
    assert swarm.wanted(id_) == []
    swarm.set_image(id_, "new")
    swarm.settle()
    assert len(swarm.running(id_)) == 1
    swarm.finish(swarm.running(id_)[0])
    swarm.settle()
    assert len(swarm.running(id_)) == 1


def test_a_drained_node_hands_over_without_delay_when_its_task_has_stopped() -> None:
    swarm, id_ = started(nodes=2, delay=100 * SECOND)
    old = swarm.running(id_)[0]
    swarm.set_availability(old.node_id, Availability.DRAIN)
    swarm.decide()
    states = {task.id: task.desired_state for task in swarm.tasks(id_)}
    assert sorted(states.values()) == [TaskState.READY, TaskState.SHUTDOWN]
    before = swarm.now_ns
    swarm.settle(until_ns=before)
    running = swarm.running(id_)
    assert len(running) == 1
    assert running[0].node_id != old.node_id


def test_a_drain_does_not_replace_what_is_never_restarted() -> None:
    swarm, id_ = started(nodes=2, condition="none")
    swarm.set_availability(swarm.running(id_)[0].node_id, Availability.DRAIN)
    swarm.settle()
    assert swarm.wanted(id_) == []


def test_an_old_task_that_does_not_stop_is_waited_for_a_minute() -> None:
    swarm, id_ = started(nodes=2, delay=0)
    old = swarm.running(id_)[0]
    swarm.silent.add(old.node_id)
    swarm.set_availability(old.node_id, Availability.DRAIN)
    swarm.pass_seconds(59)
    assert swarm.running(id_) == []
    swarm.pass_seconds(2)
    assert len(swarm.running(id_)) == 1


def test_a_node_that_is_down_is_not_waited_for() -> None:
    swarm, id_ = started(nodes=2)
    old = swarm.running(id_)[0]
    swarm.set_state(old.node_id, NodeState.DOWN)
    swarm.pass_seconds(0)
    assert [task.node_id for task in swarm.running(id_)] == [next(n for n in ("n1", "n2") if n != old.node_id)]
    kept = swarm.tables.tasks.rows[old.id]
    assert (kept.status.state, kept.desired_state) == (TaskState.RUNNING, TaskState.SHUTDOWN)
    swarm.set_state(old.node_id, NodeState.READY)
    swarm.settle()
    assert swarm.tables.tasks.rows[old.id].status.state == TaskState.SHUTDOWN
    assert len(swarm.running(id_)) == 1


@pytest.mark.parametrize("replicas", [2, None])
def test_tasks_of_a_removed_node_are_orphaned_and_forgotten(replicas: int | None) -> None:
    swarm, id_ = started(nodes=2, replicas=replicas)
    swarm.set_state("n1", NodeState.DOWN)
    swarm.settle()
    swarm.remove_node("n1")
    swarm.settle()
    lost = [task for task in swarm.tasks(id_) if task.node_id == "n1"]
    assert {task.status.state for task in lost} <= {TaskState.ORPHANED}
    assert all(task.status.message == "Task belonged to a node that has been deleted" for task in lost)
    assert {task.node_id for task in swarm.running(id_)} == {"n2"}
    swarm.apply(Remove(kind="service", id=id_))
    swarm.settle()
    assert swarm.tasks(id_) == []


def test_scaling_up_takes_the_lowest_free_slots() -> None:
    swarm, id_ = started(replicas=5)
    swarm.scale(id_, 2)
    swarm.settle()
    assert sorted(task.slot for task in swarm.running(id_)) == [1, 2]
    swarm.scale(id_, 4)
    swarm.settle()
    assert sorted(task.slot for task in swarm.running(id_)) == [1, 2, 3, 4]


def test_scaling_down_takes_what_does_not_run_first_then_the_fullest_nodes() -> None:
    swarm, id_ = started(nodes=1, replicas=3)
    swarm.add_node("n2", 2)
    swarm.scale(id_, 5)
    swarm.settle()
    assert [task.node_id for task in swarm.running(id_)].count("n2") == 2
    swarm.scale(id_, 4)
    swarm.settle()
    assert [task.node_id for task in swarm.running(id_)].count("n1") == 2
    failed = next(task for task in swarm.running(id_) if task.slot == 1)
    swarm.finish(failed)
    swarm.pass_seconds(1)
    swarm.scale(id_, 3)
    swarm.settle()
    assert 1 not in {task.slot for task in swarm.running(id_)}


def test_scaling_to_nothing_and_removing_leave_no_task() -> None:
    for end in ("scale", "remove"):
        swarm, id_ = started(replicas=3)
        if end == "scale":
            swarm.scale(id_, 0)
        else:
            swarm.apply(Remove(kind="service", id=id_))
        swarm.settle()
        assert swarm.tasks(id_) == []


def test_global_services_follow_constraints_labels_pause_and_drain() -> None:
    swarm = PureSwarm(3)
    swarm.set_labels("n1", disk="ssd")
    placement = Placement(constraints=("node.labels.disk==ssd",))
    id_ = swarm.create(service_spec("web", None, placement=placement))

    def places() -> set[str]:
        swarm.settle()
        return {task.node_id for task in swarm.running(id_)}

    assert places() == {"n1"}
    swarm.set_labels("n2", disk="SSD")
    assert places() == {"n1", "n2"}
    swarm.set_labels("n1", disk="hdd")
    assert places() == {"n2"}
    swarm.set_availability("n2", Availability.PAUSE)
    swarm.set_availability("n3", Availability.PAUSE)
    swarm.set_labels("n3", disk="ssd")
    assert places() == {"n2"}, "none new on a paused node, and none taken from it"
    swarm.finish(swarm.running(id_)[0])
    assert places() == set(), "what fails on a paused node is not replaced"
    swarm.set_availability("n2", Availability.ACTIVE)
    assert places() == {"n2"}
    swarm.set_availability("n2", Availability.DRAIN)
    assert places() == set()


def test_a_start_first_update_on_a_node_that_is_paused_midway_leaves_one_task() -> None:
    swarm = PureSwarm(2)
    spec = service_spec("web", None)
    config = UpdateConfig(parallelism=0, order="start-first", failure_action="pause", monitor=SECOND)
    id_ = swarm.create(replace(spec, update_config=config))
    swarm.settle()
    swarm.set_image(id_, "new")
    swarm.round()
    swarm.set_availability("n1", Availability.PAUSE)
    swarm.settle()
    waiting = [task for task in swarm.wanted(id_) if task.status.state != TaskState.RUNNING]
    assert len(swarm.running(id_)) == 2, "one a node, whether the old one or the new one"
    assert {task.node_id for task in waiting} <= {"n1"}
    swarm.set_availability("n1", Availability.ACTIVE)
    swarm.settle()
    assert len(swarm.running(id_)) == len(swarm.wanted(id_)) == 2
    assert {task.spec_version for task in swarm.running(id_)} == {2}


def test_a_drained_node_gets_its_global_task_back_also_if_it_never_got_it() -> None:
    swarm = PureSwarm(1)
    id_ = swarm.create(service_spec("web", None))
    swarm.decide(("orchestrator",))
    swarm.set_availability("n1", Availability.DRAIN)
    swarm.settle()
    assert swarm.wanted(id_) == []
    swarm.set_availability("n1", Availability.ACTIVE)
    swarm.settle()
    assert len(swarm.running(id_)) == 1


def test_a_task_that_failed_while_its_node_was_drained_comes_back_with_the_node() -> None:
    swarm, id_ = started(replicas=None, delay=100 * SECOND)
    swarm.finish(swarm.running(id_)[0])
    swarm.set_availability("n1", Availability.DRAIN)
    swarm.settle()
    swarm.set_availability("n1", Availability.ACTIVE)
    swarm.settle()
    assert len(swarm.running(id_)) == 1


@pytest.mark.parametrize(("limit", "kept"), [(0, 1), (1, 1), (3, 3), (-1, 9)])
def test_history_is_kept_to_its_limit(limit: int, kept: int) -> None:
    swarm, id_ = started(delay=0)
    cluster = Cluster(id="c", spec=ClusterSpec(orchestration=OrchestrationConfig(task_history_retention_limit=limit)))
    swarm.apply(Replace(object=cluster))
    for _ in range(8):
        swarm.finish(swarm.running(id_)[0])
        swarm.settle()
    assert len(swarm.tasks(id_)) == kept


def test_history_is_kept_as_long_as_attempts_are_counted_in_it() -> None:
    swarm, id_ = started(delay=0, max_attempts=8)
    for _ in range(9):
        swarm.finish(swarm.running(id_)[0])
        swarm.settle()
    assert swarm.wanted(id_) == []
    assert len(swarm.tasks(id_)) == 9


def test_an_image_that_is_not_there_is_tried_once_a_delay() -> None:
    swarm = PureSwarm(1)
    id_ = swarm.create(service_spec("web", 1, image="nosuch"))
    swarm.apply(Replace(object=Cluster(id="c", spec=ClusterSpec())))
    swarm.pass_seconds(14)
    assert len(swarm.tasks(id_)) == 4, "at 0, at once beside it, and every five seconds"
