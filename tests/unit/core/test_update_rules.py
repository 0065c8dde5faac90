"""What updates do beyond Docker's: prepare first, make room, give up in time, end truthfully, canaries, back-off."""

from __future__ import annotations

import pytest

from shoal.core.orchestrate.update import promoted
from shoal.model.actions import PatchService
from shoal.model.base import replace
from shoal.model.objects import Task, UpdateStatus
from shoal.model.specs import (
    EndpointSpec,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    ServiceSpec,
    UpdateConfig,
)
from shoal.model.states import Availability, Promotion, TaskState, UpdateState
from tests.doubles.swarm import BAD_IMAGE, SECOND, PureSwarm, service_spec
from tests.unit.core.test_update import images

MINUTE = 60 * SECOND
HOST_PORT = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080, publish_mode="host"),))
# a node of the double has four processors
MOST_OF_A_NODE = ResourceRequirements(reservations=Resources(nano_cpus=3_000_000_000))


def started(spec: ServiceSpec, nodes: int = 1, labels: dict[str, str] | None = None, **config: object):  # type: ignore[no-untyped-def]
    """A swarm with a service that runs, and its id."""
    swarm = PureSwarm(nodes)
    update = UpdateConfig(**({"parallelism": 1} | config))  # type: ignore[arg-type]
    id_ = swarm.create(replace(spec, update_config=update, labels=labels or {}))
    swarm.settle()
    return swarm, id_


def status_of(swarm: PureSwarm, id_: str) -> UpdateStatus:
    status = swarm.service(id_).update_status
    assert status is not None
    return status


def of_slot(swarm: PureSwarm, id_: str, slot: int) -> Task:
    return next(task for task in swarm.running(id_) if task.slot == slot)


def test_the_old_task_is_told_to_stop_when_its_successor_is_prepared() -> None:
    swarm, id_ = started(service_spec("web", 2))
    swarm.set_image(id_, "new")
    told_at = []
    for _ in swarm.rounds():
        stopping = [task for task in swarm.tasks(id_) if task.desired_state == TaskState.SHUTDOWN]
        if len(stopping) > len(told_at):
            told_at.append([t.status.state for t in swarm.wanted(id_) if t.spec_version == 2][-1])
    assert told_at == [TaskState.READY] * 2
    assert images(swarm, id_) == ["new"] * 2


@pytest.mark.parametrize(
    ("order", "template", "endpoint", "lacks"),
    [
        ("start-first", {"resources": MOST_OF_A_NODE}, None, "insufficient resources"),
        ("start-first", {"placement": Placement(max_replicas=1)}, None, "max replicas per node limit exceed"),
        ("start-first", {}, HOST_PORT, "host-mode port already in use"),
        ("stop-first", {}, HOST_PORT, "host-mode port already in use"),
    ],
)
def test_without_room_beside_it_the_old_task_stops_first(
    order: str, template: dict[str, object], endpoint: EndpointSpec | None, lacks: str
) -> None:
    spec = replace(service_spec("web", 2, **template), endpoint_spec=endpoint)
    swarm, id_ = started(spec, nodes=2, order=order)
    assert len(swarm.running(id_)) == 2
    swarm.set_image(id_, BAD_IMAGE)
    swarm.settle()
    assert swarm.update_state(id_) == UpdateState.PAUSED
    assert images(swarm, id_) == ["busybox"] * 2, "an image that is not there costs no replica"
    assert len(swarm.tasks(id_, TaskState.SHUTDOWN)) == 0
    swarm.set_image(id_, "new")
    messages, fewest = set(), 2
    for _ in swarm.rounds():
        messages.add(status_of(swarm, id_).message)
        fewest = min(fewest, len(swarm.tasks(id_, TaskState.RUNNING)))
    assert fewest == 1
    assert images(swarm, id_) == ["new"] * 2
    assert swarm.update_state(id_) == UpdateState.COMPLETED
    assert any("stops its old task first" in message and lacks in message for message in messages)


@pytest.mark.parametrize("replicas", [2, None])
@pytest.mark.parametrize(
    ("template", "parallelism"),
    [
        ({"resources": MOST_OF_A_NODE}, 1),
        ({"resources": MOST_OF_A_NODE}, 0),
        ({"placement": Placement(max_replicas=1)}, 1),
    ],
)
def test_without_room_a_successor_is_prepared_where_the_old_task_is(
    replicas: int | None, template: dict[str, object], parallelism: int
) -> None:
    swarm, id_ = started(service_spec("web", replicas, **template), nodes=2, parallelism=parallelism)
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(1)
    assert images(swarm, id_) == ["busybox"] * 2, "an image that is not there costs no replica"
    assert swarm.update_state(id_) == UpdateState.PAUSED
    swarm.set_image(id_, "new")
    for _ in swarm.rounds():
        for node_id in ("n1", "n2"):
            running = [task for task in swarm.tasks(id_, TaskState.RUNNING) if task.node_id == node_id]
            assert len(running) <= 1
    assert images(swarm, id_) == ["new"] * 2
    assert swarm.update_state(id_) == UpdateState.COMPLETED


def test_successors_are_not_prepared_where_both_together_have_no_room() -> None:
    """Each of two would fit in the place of one, but not both."""
    small = ResourceRequirements(reservations=Resources(nano_cpus=1_500_000_000))
    large = ResourceRequirements(reservations=Resources(nano_cpus=2_400_000_000))
    swarm, id_ = started(service_spec("web", 2, resources=small), parallelism=0)
    swarm.update(id_, lambda spec: replace(spec, task_template=replace(spec.task_template, resources=large)))
    swarm.settle()
    assert sorted(task.spec_version for task in swarm.running(id_)) == [1, 2]
    assert swarm.update_state(id_) == UpdateState.PAUSED
    assert "insufficient resources" in status_of(swarm, id_).message


def test_in_a_network_without_a_free_address_the_old_task_stops_first() -> None:
    swarm = PureSwarm(1, subnet="10.0.0.0/29")
    ports = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
    # of six addresses the gateway has one and the service one
    id_ = swarm.create(replace(service_spec("web", 4), endpoint_spec=ports))
    swarm.settle()
    assert len(swarm.running(id_)) == 4
    swarm.set_image(id_, BAD_IMAGE)
    swarm.settle()
    assert swarm.update_state(id_) == UpdateState.PAUSED
    assert images(swarm, id_) == ["busybox"] * 4, "an image that is not there costs no replica"
    swarm.set_image(id_, "new")
    swarm.settle()
    assert images(swarm, id_) == ["new"] * 4
    assert swarm.update_state(id_) == UpdateState.COMPLETED


def test_no_task_is_stopped_for_a_successor_that_fits_nowhere_anyway() -> None:
    swarm, id_ = started(service_spec("web", 1))

    def larger(spec: ServiceSpec) -> ServiceSpec:
        resources = ResourceRequirements(reservations=Resources(nano_cpus=5_000_000_000))
        return replace(spec, task_template=replace(spec.task_template, resources=resources))

    swarm.update(id_, larger)
    swarm.pass_seconds(60)
    assert images(swarm, id_) == ["busybox"]
    assert swarm.update_state(id_) == UpdateState.UPDATING
    swarm.settle()
    assert images(swarm, id_) == ["busybox"]
    assert status_of(swarm, id_).state == UpdateState.PAUSED
    reason = "did not come to run within 10m: no suitable node (insufficient resources on 1 node"
    assert reason in status_of(swarm, id_).message


def test_what_does_not_come_to_run_in_time_is_a_failure_and_rolls_back() -> None:
    labels = {"shoal.update.progress-deadline": "1m"}
    swarm, id_ = started(service_spec("web", 1), labels=labels, failure_action="rollback")
    placement = Placement(constraints=("node.labels.disk==ssd",))
    swarm.update(id_, lambda spec: replace(spec, task_template=replace(spec.task_template, placement=placement)))
    swarm.pass_seconds(59)
    assert swarm.update_state(id_) == UpdateState.UPDATING
    swarm.settle()
    assert swarm.update_state(id_) == UpdateState.ROLLBACK_COMPLETED
    assert len(swarm.wanted(id_)) == 1


def test_tries_without_end_count_from_the_first_one() -> None:
    """Fifteen tries within the deadline: more than the history keeps."""
    policy = RestartPolicy(delay=4 * SECOND)
    labels = {"shoal.update.progress-deadline": "1m"}
    swarm, id_ = started(service_spec("web", 2, restart_policy=policy), labels=labels, failure_action="continue")
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(59)
    assert {task.slot for task in swarm.tasks(id_) if task.spec_version == 2} == {1}
    swarm.pass_seconds(2)
    assert {task.slot for task in swarm.tasks(id_) if task.spec_version == 2} == {1, 2}, "the next has its turn"
    swarm.pass_seconds(120)
    assert images(swarm, id_) == ["busybox"] * 2
    assert status_of(swarm, id_).state == UpdateState.PAUSED
    assert "because 2 of 2 slots run no new task" in status_of(swarm, id_).message


def test_completion_is_not_declared_over_slots_that_run_nothing_new() -> None:
    swarm, id_ = started(
        service_spec("web", 2, restart_policy=RestartPolicy(condition="none")), failure_action="continue"
    )
    swarm.set_image(id_, BAD_IMAGE)
    swarm.settle()
    assert images(swarm, id_) == ["busybox"] * 2
    assert swarm.update_state(id_) == UpdateState.PAUSED
    assert "because 2 of 2 slots run no new task" in status_of(swarm, id_).message


# -- canaries


def canary(value: str, replicas: int | None = 4, promote_after: str = "", **config: object):  # type: ignore[no-untyped-def]
    """A swarm whose service has just been updated with a canary, at rest."""
    labels = {"shoal.update.canary": value}
    if promote_after:
        labels["shoal.update.canary.promote-after"] = promote_after
    spec = service_spec("web", replicas, restart_policy=RestartPolicy(delay=0))
    swarm, id_ = started(spec, nodes=1 if replicas else 3, labels=labels, **({"parallelism": 2} | config))
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    return swarm, id_


@pytest.mark.parametrize(("value", "updated"), [("1", 1), ("25%", 1), ("30%", 2), ("3", 3), ("100%", 4), ("9", 4)])
def test_a_canary_updates_so_many_slots_and_waits(value: str, updated: int) -> None:
    swarm, id_ = canary(value)
    assert images(swarm, id_) == ["busybox"] * (4 - updated) + ["new"] * updated
    status = status_of(swarm, id_)
    assert (status.state, status.promotion) == (UpdateState.PAUSED, Promotion.AWAITED)
    assert status.message.startswith(f"awaiting promotion: {updated} of 4 slots are updated")
    assert "shoal service promote web" in status.message
    swarm.pass_seconds(3600)
    assert images(swarm, id_) == ["busybox"] * (4 - updated) + ["new"] * updated


def promote(swarm: PureSwarm, id_: str) -> None:
    version = swarm.service(id_).spec_version
    swarm.apply(PatchService(id=id_, spec_version=version, update_status=promoted(swarm.now_ns)))


def test_a_promoted_canary_is_followed_by_the_rest() -> None:
    swarm, id_ = canary("1")
    promote(swarm, id_)
    swarm.settle()
    assert images(swarm, id_) == ["new"] * 4
    assert status_of(swarm, id_).message == "update completed"


def test_a_global_service_has_canaries_too() -> None:
    swarm, id_ = canary("1", replicas=None)
    assert images(swarm, id_) == ["busybox", "busybox", "new"]
    promote(swarm, id_)
    swarm.settle()
    assert images(swarm, id_) == ["new"] * 3


def test_a_canary_is_promoted_by_itself_after_its_time() -> None:
    swarm, id_ = canary("1", promote_after="5m")
    swarm.pass_seconds(290)
    assert images(swarm, id_) == ["busybox"] * 3 + ["new"]
    swarm.pass_seconds(60)
    assert images(swarm, id_) == ["new"] * 4
    assert swarm.update_state(id_) == UpdateState.COMPLETED


def test_a_canary_that_fails_is_not_promoted_by_itself() -> None:
    swarm, id_ = canary("1", promote_after="5m")
    swarm.pass_seconds(60)
    swarm.finish(of_slot(swarm, id_, 1))
    swarm.pass_seconds(600)
    assert images(swarm, id_) == ["busybox"] * 3 + ["new"], "it is replaced, as a canary"
    status = status_of(swarm, id_)
    assert (status.state, status.promotion) == (UpdateState.PAUSED, Promotion.HELD)
    assert "not promoted by itself due to failure or early termination of task" in status.message
    promote(swarm, id_)
    swarm.settle()
    assert images(swarm, id_) == ["new"] * 4


def test_a_canary_that_fails_goes_back_where_that_is_the_failure_action() -> None:
    swarm, id_ = canary("1", failure_action="rollback")
    swarm.finish(of_slot(swarm, id_, 1))
    swarm.settle()
    assert images(swarm, id_) == ["busybox"] * 4
    assert swarm.update_state(id_) == UpdateState.ROLLBACK_COMPLETED


def test_what_fails_beside_the_canaries_comes_back_as_it_was() -> None:
    swarm, id_ = canary("1")
    swarm.finish(of_slot(swarm, id_, 4))
    swarm.pass_seconds(60)
    assert images(swarm, id_) == ["busybox"] * 3 + ["new"]
    assert status_of(swarm, id_).promotion == Promotion.AWAITED


def test_what_fails_beside_the_canaries_waits_for_its_restart_delay() -> None:
    spec = service_spec("web", 4, restart_policy=RestartPolicy(delay=2 * SECOND))
    swarm, id_ = started(spec, labels={"shoal.update.canary": "1"})
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    swarm.finish(of_slot(swarm, id_, 4))
    swarm.pass_seconds(1)
    assert len(swarm.running(id_)) == 3, "the delay of the policy is two seconds"
    swarm.pass_seconds(2)
    assert len(swarm.running(id_)) == 4


def test_a_drain_during_the_wait_keeps_the_canaries_apart() -> None:
    labels = {"shoal.update.canary": "1"}
    swarm, id_ = started(service_spec("web", 4), nodes=2, labels=labels)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    swarm.set_availability("n1", Availability.DRAIN)
    swarm.pass_seconds(60)
    assert {task.node_id for task in swarm.running(id_)} == {"n2"}
    assert images(swarm, id_) == ["busybox"] * 3 + ["new"]


# -- restarts


def test_delays_double_with_each_failure_up_to_the_bound_and_begin_anew_after_a_good_run() -> None:
    spec = service_spec("web", 1, restart_policy=RestartPolicy(delay=2 * SECOND))
    swarm, id_ = started(spec, labels={"shoal.restart.backoff": "10s"})

    def pause_after_failure() -> float:
        failed_at = swarm.now_ns
        swarm.finish(swarm.running(id_)[0])
        while not swarm.running(id_):
            assert swarm.round()
        return (swarm.now_ns - failed_at) / SECOND

    assert [pause_after_failure() for _ in range(5)] == [2, 4, 8, 10, 10]
    swarm.now_ns += 11 * SECOND
    assert [pause_after_failure() for _ in range(2)] == [2, 4]
