"""Jobs: tasks that run to their end (docker-swarm.md 4.4), over pure plans."""

from __future__ import annotations

import pytest

from shoal.api.views.service import service_status
from shoal.model.base import replace
from shoal.model.objects import Task
from shoal.model.specs import RestartPolicy, ServiceSpec
from shoal.model.states import Availability, NodeState, TaskState
from tests.doubles.swarm import LOOPS, SECOND, PureSwarm, job_spec, service_spec


def started(spec: ServiceSpec, nodes: int = 1) -> tuple[PureSwarm, str]:
    swarm = PureSwarm(nodes)
    id_ = swarm.create(spec)
    swarm.settle()
    return swarm, id_


def counts(swarm: PureSwarm, id_: str) -> tuple[int, int, int]:
    status = service_status(swarm.service(id_), tuple(swarm.tasks(id_)), frozenset())
    return status["RunningTasks"], status["DesiredTasks"], status["CompletedTasks"]


def finish_all(swarm: PureSwarm, id_: str, code: int = 0) -> None:
    for task in swarm.running(id_):
        swarm.finish(task, code)
    swarm.settle()


def complete(swarm: PureSwarm, id_: str) -> list[Task]:
    return swarm.tasks(id_, TaskState.COMPLETE)


def test_a_replicated_job_runs_so_many_at_a_time_until_so_many_are_complete() -> None:
    swarm, id_ = started(job_spec(2, 5))
    assert counts(swarm, id_) == (2, 2, 0)
    assert {task.desired_state for task in swarm.running(id_)} == {TaskState.COMPLETE}
    swarm.finish(swarm.running(id_)[0], 0)
    swarm.settle()
    assert counts(swarm, id_) == (2, 2, 1)
    finish_all(swarm, id_)
    assert counts(swarm, id_) == (2, 2, 3)
    finish_all(swarm, id_)
    assert counts(swarm, id_) == (0, 2, 5)
    assert sorted(task.slot for task in complete(swarm, id_)) == [0, 1, 2, 3, 4]
    assert {task.job_iteration for task in swarm.tasks(id_)} == {0}
    assert all(swarm.plan(name) == ([], []) for name in LOOPS)


@pytest.mark.parametrize("condition", ["", "any", "on-failure"])
def test_what_fails_is_tried_again_in_its_slot_after_the_delay(condition: str) -> None:
    swarm, id_ = started(job_spec(2, 2, restart_policy=RestartPolicy(condition=condition, delay=3 * SECOND)))
    failed = swarm.running(id_)[0]
    swarm.finish(failed)
    swarm.pass_seconds(2)
    assert counts(swarm, id_) == (1, 2, 0)
    swarm.pass_seconds(2)
    again = [task for task in swarm.running(id_) if task.slot == failed.slot]
    assert [task.desired_state for task in again] == [TaskState.COMPLETE]
    finish_all(swarm, id_)
    assert counts(swarm, id_) == (0, 2, 2)


def test_a_slot_that_is_not_to_be_tried_again_is_given_up_and_the_others_go_on() -> None:
    swarm, id_ = started(job_spec(1, 3, restart_policy=RestartPolicy(condition="none")))
    swarm.finish(swarm.running(id_)[0], 1)
    swarm.settle()
    for _ in range(2):
        finish_all(swarm, id_)
    assert counts(swarm, id_) == (0, 1, 2)
    assert len(swarm.tasks(id_)) == 3


def test_attempts_are_bounded() -> None:
    swarm, id_ = started(job_spec(1, 1, restart_policy=RestartPolicy(delay=0, max_attempts=2)))
    for _ in range(4):
        finish_all(swarm, id_, code=1)
    assert len(swarm.tasks(id_, TaskState.FAILED)) == 3
    assert counts(swarm, id_) == (0, 1, 0)


def test_an_update_is_a_new_run_and_removes_the_one_before() -> None:
    swarm, id_ = started(job_spec(2, 3))
    finish_all(swarm, id_)
    assert counts(swarm, id_) == (1, 2, 2)
    swarm.set_image(id_, "other")
    swarm.settle()
    assert counts(swarm, id_) == (2, 2, 0)
    assert {task.job_iteration for task in swarm.tasks(id_)} == {1}, "the tasks of the first run are forgotten"
    assert swarm.service(id_).update_status is None, "a job has no rolling update"
    for _ in range(2):
        finish_all(swarm, id_)
    assert counts(swarm, id_) == (0, 2, 3)


def test_so_many_runs_before_are_kept_as_the_label_says() -> None:
    swarm, id_ = started(replace(job_spec(2, 2), labels={"shoal.cron.history": "2"}))
    for number in range(4):
        assert counts(swarm, id_) == (2, 2, 0), f"run {number} does not count what was before"
        finish_all(swarm, id_)
        swarm.set_image(id_, f"image{number}")
        swarm.settle()
    by_run = [task.job_iteration for task in complete(swarm, id_)]
    assert sorted(by_run) == [2, 2, 3, 3]
    # a run that is cut short by the next is over, and kept as well
    swarm.set_image(id_, "other")
    swarm.settle()
    assert [task.job_iteration for task in swarm.tasks(id_, TaskState.SHUTDOWN)] == [4, 4]
    swarm.update(id_, lambda spec: replace(spec, labels={}))
    swarm.settle()
    assert {task.job_iteration for task in swarm.tasks(id_)} == {6}


def test_a_service_that_runs_at_times_keeps_so_many_tasks_a_slot() -> None:
    policy = RestartPolicy(condition="none")
    swarm = PureSwarm(1)
    id_ = swarm.create(replace(service_spec("tick", 2, restart_policy=policy), labels={"shoal.cron.history": "1"}))
    for number in range(4):
        swarm.settle()
        finish_all(swarm, id_)
        swarm.set_image(id_, f"image{number}")
    swarm.settle()
    assert sorted(task.slot for task in swarm.tasks(id_)) == [1, 1, 2, 2]


def test_a_task_whose_node_goes_runs_elsewhere() -> None:
    swarm, id_ = started(job_spec(2, 2), nodes=2)
    swarm.set_state("n1", NodeState.DOWN)
    swarm.settle()
    assert {task.node_id for task in swarm.running(id_) if task.desired_state == TaskState.COMPLETE} == {"n2"}
    finish_all(swarm, id_)
    assert counts(swarm, id_) == (1, 2, 2), "the one on the lost node is thought to run"
    swarm.set_state("n1", NodeState.READY)
    swarm.settle()
    assert counts(swarm, id_) == (0, 2, 2)


def test_a_lost_task_that_was_complete_ends_its_successor() -> None:
    swarm, id_ = started(job_spec(1, 1), nodes=2)
    first = swarm.running(id_)[0]
    swarm.set_state(first.node_id, NodeState.DOWN)
    swarm.settle()
    assert len(swarm.running(id_)) == 1
    swarm.finish(swarm.tables.tasks.rows[first.id], 0)
    swarm.set_state(first.node_id, NodeState.READY)
    swarm.settle()
    assert counts(swarm, id_) == (0, 1, 1)


def test_a_global_job_completes_once_on_every_node_also_on_new_ones() -> None:
    swarm, id_ = started(job_spec(None), nodes=2)
    assert counts(swarm, id_) == (2, 2, 0)
    finish_all(swarm, id_)
    assert counts(swarm, id_) == (0, 0, 2)
    swarm.add_node("n3", 3)
    swarm.settle()
    assert {task.node_id for task in swarm.running(id_)} == {"n3"}
    finish_all(swarm, id_)
    assert {task.node_id for task in complete(swarm, id_)} == {"n1", "n2", "n3"}
    swarm.set_availability("n1", Availability.DRAIN)
    swarm.settle()
    swarm.set_availability("n1", Availability.ACTIVE)
    swarm.settle()
    assert counts(swarm, id_) == (0, 0, 3), "once is enough"


def test_a_global_job_on_a_drained_node_is_ended_and_begins_anew_when_the_node_is_active() -> None:
    swarm, id_ = started(job_spec(None), nodes=2)
    swarm.set_availability("n1", Availability.DRAIN)
    swarm.settle()
    assert {task.node_id for task in swarm.running(id_)} == {"n2"}
    swarm.set_availability("n1", Availability.ACTIVE)
    swarm.settle()
    assert {task.node_id for task in swarm.running(id_)} == {"n1", "n2"}


def test_a_global_job_fails_and_is_tried_again_but_not_on_a_paused_node() -> None:
    swarm, id_ = started(job_spec(None, restart_policy=RestartPolicy(delay=0)), nodes=1)
    finish_all(swarm, id_, code=1)
    assert len(swarm.running(id_)) == 1
    swarm.set_availability("n1", Availability.PAUSE)
    finish_all(swarm, id_, code=1)
    assert swarm.running(id_) == []
    swarm.set_availability("n1", Availability.ACTIVE)
    swarm.settle()
    finish_all(swarm, id_)
    assert counts(swarm, id_) == (0, 0, 1)


def test_a_removed_job_takes_its_completed_tasks_along() -> None:
    swarm, id_ = started(job_spec(2, 2))
    swarm.finish(swarm.running(id_)[0], 0)
    swarm.settle()
    swarm.tables.services.delete(id_)
    swarm.settle()
    assert swarm.tasks(id_) == []
