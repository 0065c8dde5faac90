"""Rolling updates and rollbacks (docker-swarm.md 4.3), over pure plans and nodes that are a few lines."""

from __future__ import annotations

import pytest

from shoal.model.actions import Replace
from shoal.model.base import replace
from shoal.model.objects import UpdateStatus
from shoal.model.specs import EndpointSpec, Placement, PortConfig, RestartPolicy, ServiceSpec, UpdateConfig
from shoal.model.states import Availability, TaskState, UpdateState
from tests.doubles.swarm import BAD_IMAGE, SECOND, PureSwarm, service_spec

MONITOR = 5 * SECOND


def started(replicas: int | None = 3, nodes: int = 1, rollback: UpdateConfig | None = None, **config: object):  # type: ignore[no-untyped-def]
    """A swarm with a service that runs, and its id."""
    swarm = PureSwarm(nodes)
    update = UpdateConfig(**config) if config else None  # type: ignore[arg-type]
    policy = RestartPolicy(delay=2 * SECOND)
    spec = service_spec("web", replicas, restart_policy=policy)
    id_ = swarm.create(replace(spec, update_config=update, rollback_config=rollback))
    swarm.settle()
    assert len(swarm.running(id_)) == (replicas or nodes)
    return swarm, id_


def images(swarm: PureSwarm, id_: str) -> list[str]:
    specs = [swarm.view.revision_of(task).spec.task_template.container_spec for task in swarm.running(id_)]
    return sorted(spec.image for spec in specs if spec is not None)


def fewest_running(swarm: PureSwarm, id_: str) -> tuple[int, int]:
    """Settle, and return the fewest and the most tasks that ran meanwhile."""
    counts = [len(swarm.tasks(id_, TaskState.RUNNING))]
    counts += [len(swarm.tasks(id_, TaskState.RUNNING)) for _ in swarm.rounds()]
    return min(counts), max(counts)


@pytest.mark.parametrize(("parallelism", "fewest"), [(1, 3), (2, 2), (3, 1), (0, 0)])
def test_stop_first_keeps_its_parallelism(parallelism: int, fewest: int) -> None:
    swarm, id_ = started(4, parallelism=parallelism, monitor=SECOND)
    swarm.set_image(id_, "new")
    assert fewest_running(swarm, id_) == (fewest, 4)
    assert images(swarm, id_) == ["new"] * 4
    assert swarm.update_state(id_) == UpdateState.COMPLETED


def test_start_first_never_has_fewer_than_wanted() -> None:
    swarm, id_ = started(4, parallelism=2, monitor=SECOND, order="start-first")
    swarm.set_image(id_, "new")
    assert fewest_running(swarm, id_) == (4, 6)
    assert images(swarm, id_) == ["new"] * 4


def test_global_services_are_updated_node_by_node() -> None:
    swarm, id_ = started(None, nodes=3, parallelism=1, monitor=SECOND)
    swarm.set_image(id_, "new")
    assert fewest_running(swarm, id_) == (2, 3)
    assert images(swarm, id_) == ["new"] * 3


def test_the_delay_lies_between_slots() -> None:
    swarm, id_ = started(3, parallelism=1, delay=10 * SECOND, monitor=SECOND)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(9)
    assert images(swarm, id_) == ["busybox", "busybox", "new"]
    swarm.pass_seconds(2)
    assert images(swarm, id_) == ["busybox", "new", "new"]
    swarm.settle()
    assert images(swarm, id_) == ["new"] * 3


def test_the_end_is_declared_after_the_monitored_time() -> None:
    swarm, id_ = started(1, parallelism=1)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(4)
    assert swarm.update_state(id_) == UpdateState.UPDATING
    swarm.pass_seconds(1.1)
    status = swarm.service(id_).update_status
    assert status is not None
    assert (status.state, status.message) == (UpdateState.COMPLETED, "update completed")
    assert status.completed_at_ns - status.started_at_ns >= MONITOR


@pytest.mark.parametrize("order", ["stop-first", "start-first"])
def test_a_failing_pull_pauses_and_takes_no_replica_down(order: str) -> None:
    swarm, id_ = started(3, order=order, parallelism=1)
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(1)
    assert swarm.update_state(id_) == UpdateState.PAUSED
    assert images(swarm, id_) == ["busybox"] * 3
    rejected = swarm.tasks(id_, TaskState.REJECTED)[0]
    status = swarm.service(id_).update_status
    assert status is not None
    assert status.message == f"update paused due to failure or early termination of task {rejected.id}"
    swarm.pass_seconds(30)
    assert images(swarm, id_) == ["busybox"] * 3
    assert len(swarm.tasks(id_)) == 4, "an update that stands still tries no more"


def test_an_exit_within_the_monitored_time_is_a_failure_also_without_an_explicit_one() -> None:
    """A monitor of 0 in an explicit UpdateConfig means the default, as clients that set one field send it."""
    swarm, id_ = started(2, parallelism=1)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(3)
    new = next(task for task in swarm.running(id_) if task.spec_version == 2)
    swarm.finish(new)
    swarm.pass_seconds(0)
    assert swarm.update_state(id_) == UpdateState.PAUSED


def test_an_exit_after_the_monitored_time_is_none() -> None:
    swarm, id_ = started(2, parallelism=1, delay=20 * SECOND)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(6)
    swarm.finish(next(task for task in swarm.running(id_) if task.spec_version == 2))
    swarm.settle()
    assert swarm.update_state(id_) == UpdateState.COMPLETED


def test_failures_up_to_the_ratio_are_borne() -> None:
    swarm, id_ = started(4, parallelism=1, max_failure_ratio=0.25)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(1)
    swarm.finish(next(task for task in swarm.running(id_) if task.spec_version == 2))
    swarm.pass_seconds(1)
    assert swarm.update_state(id_) == UpdateState.UPDATING
    swarm.finish(next(task for task in swarm.running(id_) if task.spec_version == 2))
    swarm.pass_seconds(0)
    assert swarm.update_state(id_) == UpdateState.PAUSED


def test_continue_goes_on_through_failures() -> None:
    swarm, id_ = started(2, parallelism=1, failure_action="continue")
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(20)
    assert swarm.update_state(id_) == UpdateState.UPDATING
    assert images(swarm, id_) == ["busybox"] * 2
    assert {task.slot for task in swarm.tasks(id_, TaskState.REJECTED)} == {1}, "the second slot waits for the first"
    swarm.bad_images.clear()
    swarm.settle()
    assert images(swarm, id_) == [BAD_IMAGE] * 2


def test_start_first_failures_wait_for_the_restart_delay_and_leave_the_old_task() -> None:
    swarm, id_ = started(1, order="start-first", failure_action="continue")
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(10)
    assert images(swarm, id_) == ["busybox"]
    tries = [task for task in swarm.tasks(id_) if task.spec_version == 2]
    assert 4 <= len(tries) <= 7, "one every two seconds"
    swarm.bad_images.clear()
    swarm.settle()
    assert images(swarm, id_) == [BAD_IMAGE]


def test_start_first_without_more_attempts_ends_and_keeps_the_old_task() -> None:
    swarm, id_ = started(1, order="start-first", failure_action="continue")
    never = RestartPolicy(condition="none")

    def broken(spec: ServiceSpec) -> ServiceSpec:
        container = replace(spec.task_template.container_spec, image=BAD_IMAGE)  # type: ignore[type-var]
        return replace(spec, task_template=replace(spec.task_template, container_spec=container, restart_policy=never))

    swarm.update(id_, broken)
    swarm.settle()
    assert images(swarm, id_) == ["busybox"]
    assert len(swarm.tasks(id_)) == 2


def test_rollback_as_failure_action() -> None:
    swarm, id_ = started(3, failure_action="rollback", parallelism=2, rollback=UpdateConfig(parallelism=1))
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(0)
    service = swarm.service(id_)
    assert service.update_status is not None
    failed = swarm.tasks(id_, TaskState.REJECTED)
    assert service.update_status.message in {
        f"update rolled back due to failure or early termination of task {task.id}" for task in failed
    }
    assert service.update_status.state == UpdateState.ROLLBACK_STARTED
    assert (service.spec_version, service.previous_spec_version) == (3, 0)
    swarm.settle()
    assert images(swarm, id_) == ["busybox"] * 3
    status = swarm.service(id_).update_status
    assert status is not None
    assert (status.state, status.message) == (UpdateState.ROLLBACK_COMPLETED, "rollback completed")


@pytest.mark.parametrize("action", ["pause", "rollback"])
def test_a_rollback_that_fails_is_paused_and_never_rolled_back(action: str) -> None:
    swarm, id_ = started(2, failure_action="rollback", rollback=UpdateConfig(failure_action=action))
    swarm.set_image(id_, "new")
    swarm.pass_seconds(1)
    swarm.bad_images.add("busybox")
    swarm.finish(next(task for task in swarm.running(id_) if task.spec_version == 2))
    swarm.pass_seconds(10)
    status = swarm.service(id_).update_status
    assert status is not None
    assert status.state == UpdateState.ROLLBACK_PAUSED
    assert status.message.startswith("rollback paused due to failure or early termination of task ")
    assert swarm.service(id_).spec_version == 3


def test_without_a_spec_before_a_failing_update_is_paused() -> None:
    swarm, id_ = started(2, failure_action="rollback")
    swarm.set_image(id_, BAD_IMAGE)
    service = swarm.service(id_)
    swarm.apply(Replace(object=replace(service, previous_spec_version=0)))
    swarm.pass_seconds(1)
    assert swarm.update_state(id_) == UpdateState.PAUSED


def test_a_rollback_to_a_port_that_another_service_took_is_paused_instead() -> None:
    swarm = PureSwarm(1)
    ports = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
    config = UpdateConfig(failure_action="rollback")
    id_ = swarm.create(replace(service_spec("web", 1), endpoint_spec=ports, update_config=config))
    swarm.settle()
    swarm.update(id_, lambda spec: replace(spec, endpoint_spec=None))
    swarm.settle()
    swarm.create(replace(service_spec("other", 1), endpoint_spec=ports))
    swarm.settle()
    first = swarm.service(id_)
    swarm.set_image(id_, BAD_IMAGE)
    swarm.apply(Replace(object=replace(swarm.service(id_), previous_spec_version=first.spec_version - 1)))
    swarm.pass_seconds(1)
    assert swarm.update_state(id_) == UpdateState.PAUSED


@pytest.mark.parametrize(("allowed", "state"), [("host-pid", UpdateState.ROLLBACK_COMPLETED), ("", UpdateState.PAUSED)])
def test_what_the_swarm_does_not_allow_any_more_is_not_gone_back_to(allowed: str, state: str) -> None:
    swarm, id_ = started(2, failure_action="rollback")
    swarm.update(id_, lambda spec: replace(spec, labels={"shoal.pid-mode": "host"}))
    swarm.settle()
    cluster = swarm.tables.clusters.rows["c"]
    swarm.apply(Replace(object=replace(cluster, spec=replace(cluster.spec, labels={"shoal.allow": allowed}))))
    previous = swarm.service(id_).spec_version
    swarm.update(id_, lambda spec: replace(spec, labels={}))
    swarm.set_image(id_, BAD_IMAGE)
    swarm.apply(Replace(object=replace(swarm.service(id_), previous_spec_version=previous)))
    swarm.settle()
    assert swarm.update_state(id_) == state


def test_a_manual_rollback_completes() -> None:
    swarm, id_ = started(2)
    swarm.set_image(id_, "new")
    swarm.settle()
    status = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at_ns=swarm.now_ns)
    swarm.now_ns += 1
    first = swarm.view.revision(id_, 1)
    assert first is not None
    swarm.update(id_, lambda _spec: first.spec, status)
    swarm.settle()
    assert images(swarm, id_) == ["busybox"] * 2
    assert swarm.update_state(id_) == UpdateState.ROLLBACK_COMPLETED


def test_a_rollback_with_nothing_to_do_is_completed_at_once() -> None:
    swarm, id_ = started(2)
    status = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at_ns=swarm.now_ns)
    swarm.update(id_, lambda spec: spec, status)
    swarm.pass_seconds(0)
    assert swarm.update_state(id_) == UpdateState.ROLLBACK_COMPLETED


def test_a_newer_update_takes_the_place_of_one_under_way_or_paused() -> None:
    swarm, id_ = started(3)
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(1)
    assert swarm.update_state(id_) == UpdateState.PAUSED
    swarm.set_image(id_, "newer")
    swarm.settle()
    assert images(swarm, id_) == ["newer"] * 3


def test_going_back_while_two_run_keeps_the_task_that_is_right() -> None:
    swarm, id_ = started(1, order="start-first", failure_action="continue")
    right = swarm.running(id_)[0]
    swarm.set_image(id_, BAD_IMAGE)
    swarm.pass_seconds(1)
    swarm.set_image(id_, "busybox")
    swarm.settle()
    assert [task.id for task in swarm.running(id_)] == [right.id]


@pytest.mark.parametrize("fits", [True, False])
def test_only_tasks_that_a_new_placement_does_not_fit_are_replaced(fits: bool) -> None:
    swarm, id_ = started(1, nodes=2)
    before = swarm.running(id_)[0]
    here = before.node_id
    there = next(id_ for id_ in ("n1", "n2") if id_ != here)
    swarm.set_labels(here if fits else there, disk="ssd")
    placement = Placement(constraints=("node.labels.disk==ssd",))
    swarm.update(id_, lambda spec: replace(spec, task_template=replace(spec.task_template, placement=placement)))
    swarm.settle()
    after = swarm.running(id_)[0]
    assert (after.id == before.id) is fits
    assert after.node_id == (here if fits else there)
    assert swarm.update_state(id_) == ("" if fits else UpdateState.COMPLETED)


def test_scaling_is_no_update() -> None:
    swarm, id_ = started(2)
    swarm.scale(id_, 4)
    swarm.settle()
    assert {task.spec_version for task in swarm.running(id_)} == {1, 2}
    assert swarm.service(id_).update_status is None


def test_a_node_paused_during_a_global_update_is_updated_when_it_is_active_again() -> None:
    swarm, id_ = started(None, nodes=2)
    swarm.set_availability("n2", Availability.PAUSE)
    swarm.set_image(id_, "new")
    swarm.settle()
    assert images(swarm, id_) == ["busybox", "new"]
    assert swarm.update_state(id_) == UpdateState.COMPLETED
    swarm.set_availability("n2", Availability.ACTIVE)
    swarm.settle()
    assert images(swarm, id_) == ["new", "new"]


def test_credentials_of_the_pull_make_no_task_outdated() -> None:
    from shoal.model.container_spec import PullOptions

    swarm, id_ = started(1)
    before = swarm.running(id_)[0].id

    def with_auth(spec: ServiceSpec) -> ServiceSpec:
        container = replace(spec.task_template.container_spec, pull_options=PullOptions(registry_auth="x"))  # type: ignore[type-var]
        return replace(spec, task_template=replace(spec.task_template, container_spec=container))

    swarm.update(id_, with_auth)
    swarm.settle()
    assert [task.id for task in swarm.running(id_)] == [before]


def test_an_old_task_that_fails_beside_its_successor_is_not_replaced_again() -> None:
    swarm, id_ = started(1, order="start-first", failure_action="continue")
    old = swarm.running(id_)[0]
    swarm.set_image(id_, "new")
    swarm.decide(("orchestrator",))
    swarm.finish(old)
    swarm.settle()
    assert len(swarm.tasks(id_)) == 2
    assert images(swarm, id_) == ["new"]


def test_a_successor_that_is_tried_again_does_not_wait_for_the_old_task_to_stop() -> None:
    swarm, id_ = started(1, order="start-first", failure_action="continue")
    swarm.set_image(id_, BAD_IMAGE)
    while not swarm.tasks(id_, TaskState.REJECTED):
        swarm.round()
    swarm.bad_images.clear()
    swarm.pass_seconds(2.1)
    assert images(swarm, id_) == [BAD_IMAGE]
