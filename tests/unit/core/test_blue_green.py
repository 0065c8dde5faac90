"""Updates that give all traffic to their new tasks at once: one entry, and the old tasks left alone until then."""

from __future__ import annotations

import pytest

from shoal.core.ingress import is_serving, publish
from shoal.core.orchestrate.update import promoted
from shoal.core.overlay import overlay_service
from shoal.core.validate.service import prepare_service
from shoal.errors import InvalidArgument
from shoal.model.actions import PatchService, SwitchTraffic
from shoal.model.base import replace
from shoal.model.objects import Task
from shoal.model.specs import EndpointSpec, PortConfig, RestartPolicy, UpdateConfig
from shoal.model.states import NodeState, Promotion, TaskState, UpdateState
from tests.doubles.swarm import BAD_IMAGE, SECOND, PureSwarm, job_spec, service_spec
from tests.unit.core.test_update import images

BLUE_GREEN = {"shoal.update.strategy": "blue-green"}
AWAITED = BLUE_GREEN | {"shoal.update.canary": "100%"}


def started(labels: dict[str, str], replicas: int | None = 3, **config: object):  # type: ignore[no-untyped-def]
    """A swarm with a service that runs and was updated, and its id."""
    swarm = PureSwarm(3)
    spec = service_spec("web", replicas, restart_policy=RestartPolicy(delay=SECOND))
    update = UpdateConfig(**({"parallelism": 1} | config))  # type: ignore[arg-type]
    id_ = swarm.create(replace(spec, update_config=update, labels=labels))
    swarm.settle()
    return swarm, id_


def serving(swarm: PureSwarm, id_: str) -> list[str]:
    """The images behind the service's address."""
    specs = [swarm.view.revision_of(t).spec.task_template.container_spec for t in swarm.tasks(id_) if is_serving(t)]
    return sorted(spec.image for spec in specs if spec is not None)


def green(swarm: PureSwarm, id_: str) -> list[Task]:
    return [task for task in swarm.wanted(id_) if task.withheld]


@pytest.mark.parametrize("replicas", [3, None])
def test_all_traffic_goes_over_in_one_entry(replicas: int | None) -> None:
    swarm, id_ = started(BLUE_GREEN, replicas)
    swarm.set_image(id_, "new")
    seen = [serving(swarm, id_)]
    apply = swarm.apply

    def watched(*actions: object) -> None:
        apply(*actions)  # type: ignore[arg-type]
        seen.append(serving(swarm, id_))

    swarm.apply = watched  # type: ignore[method-assign]
    swarm.settle()
    kinds = [each for number, each in enumerate(seen) if number == 0 or each != seen[number - 1]]
    assert kinds == [["busybox"] * 3, ["new"] * 3]
    assert images(swarm, id_) == ["new"] * 3
    assert swarm.update_state(id_) == UpdateState.COMPLETED
    assert green(swarm, id_) == []


def test_what_is_withheld_is_in_no_name_no_balancer_and_no_port_but_reached() -> None:
    swarm = PureSwarm(2)
    ports = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
    id_ = swarm.create(replace(service_spec("web", 2), endpoint_spec=ports, labels=AWAITED))
    swarm.settle()
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    tasks, service = swarm.tasks(id_), swarm.service(id_)
    blue = {task.id for task in swarm.running(id_) if not task.withheld}
    published = publish(service, tasks, swarm.node, "ingress-id")
    assert [{each.task_id for each in port.backends} for port in published.ports] == [blue]
    assert len(published.endpoints) == 4
    overlay = overlay_service("ingress-id", id_, service, tasks, swarm.node)
    assert overlay is not None
    assert {each.task_id for each in overlay.endpoints if each.serving} == blue
    assert len(overlay.endpoints) == 4


def test_the_switch_is_one_action_so_that_no_batch_divides_it() -> None:
    swarm, id_ = started(BLUE_GREEN)
    swarm.set_image(id_, "new")
    switches: list[SwitchTraffic] = []
    while True:
        switches += [action for action in swarm.plan("orchestrator")[0] if isinstance(action, SwitchTraffic)]
        if switches or not swarm.round():
            break
    assert [(len(each.released_task_ids), len(each.stopped_task_ids)) for each in switches] == [(3, 3)]
    # the spec is another by then: the switch is not for it
    swarm.set_image(id_, "newer")
    swarm.apply(*switches)
    assert serving(swarm, id_) == ["busybox"] * 3


def test_traffic_waits_for_the_slowest_and_for_the_promotion() -> None:
    swarm, id_ = started(AWAITED)
    swarm.set_state("n3", NodeState.DOWN)
    swarm.settle()
    swarm.set_image(id_, "new")
    swarm.pass_seconds(60)
    status = swarm.service(id_).update_status
    assert status is not None
    assert (status.state, status.promotion) == (UpdateState.PAUSED, Promotion.AWAITED)
    assert status.message.startswith("awaiting promotion: 3 of 3 slots have new tasks that take no traffic yet")
    assert images(swarm, id_) == ["busybox"] * 3 + ["new"] * 3
    assert serving(swarm, id_) == ["busybox"] * 3
    swarm.apply(PatchService(id=id_, spec_version=2, update_status=promoted(swarm.now_ns)))
    swarm.settle()
    assert serving(swarm, id_) == images(swarm, id_) == ["new"] * 3
    assert swarm.update_state(id_) == UpdateState.COMPLETED


def test_what_fails_while_the_promotion_is_awaited_comes_back_as_it_was() -> None:
    swarm, id_ = started(AWAITED)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    swarm.finish(next(task for task in swarm.running(id_) if not task.withheld))
    swarm.finish(next(task for task in swarm.running(id_) if task.withheld))
    swarm.pass_seconds(10)
    assert serving(swarm, id_) == ["busybox"] * 3
    assert images(swarm, id_) == ["busybox"] * 3 + ["new"] * 3


@pytest.mark.parametrize(("action", "state"), [("pause", UpdateState.PAUSED), ("rollback", "rollback_completed")])
@pytest.mark.parametrize("cause", ["image", "exit"])
def test_a_new_task_that_fails_leaves_the_old_ones_untouched(action: str, state: str, cause: str) -> None:
    swarm, id_ = started(BLUE_GREEN, failure_action=action)
    before = {task.id for task in swarm.running(id_)}
    swarm.set_image(id_, BAD_IMAGE if cause == "image" else "new")
    if cause == "exit":
        swarm.pass_seconds(1)
        swarm.finish(next(task for task in swarm.running(id_) if task.withheld))
    swarm.settle()
    assert swarm.update_state(id_) == state
    assert {task.id for task in swarm.wanted(id_)} == before
    assert serving(swarm, id_) == ["busybox"] * 3
    assert all(swarm.plan(name) == ([], []) for name in ("orchestrator", "scheduler"))


def test_an_update_that_takes_the_place_of_another_drops_its_tasks() -> None:
    swarm, id_ = started(AWAITED)
    before = {task.id for task in swarm.running(id_)}
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    swarm.set_image(id_, "newer")
    swarm.pass_seconds(10)
    assert images(swarm, id_) == ["busybox"] * 3 + ["newer"] * 3
    swarm.set_image(id_, "busybox")
    swarm.settle()
    assert {task.id for task in swarm.wanted(id_)} == before
    assert serving(swarm, id_) == ["busybox"] * 3


def test_scaled_while_it_waits_it_waits_on_with_more() -> None:
    swarm, id_ = started(AWAITED)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    swarm.scale(id_, 4)
    swarm.pass_seconds(30)
    assert serving(swarm, id_) == ["busybox"] * 3
    assert len(green(swarm, id_)) == 4
    status = swarm.service(id_).update_status
    assert status is not None
    assert status.promotion == Promotion.AWAITED
    swarm.apply(PatchService(id=id_, spec_version=3, update_status=promoted(swarm.now_ns)))
    swarm.settle()
    assert serving(swarm, id_) == ["new"] * 4


def test_without_the_label_those_that_wait_take_traffic_slot_by_slot() -> None:
    swarm, id_ = started(AWAITED)
    swarm.set_image(id_, "new")
    swarm.pass_seconds(10)
    swarm.update(id_, lambda spec: replace(spec, labels={}))
    swarm.settle()
    assert serving(swarm, id_) == images(swarm, id_) == ["new"] * 3
    assert green(swarm, id_) == []


def test_a_node_that_was_down_brings_no_old_task_back_into_traffic() -> None:
    swarm, id_ = started(BLUE_GREEN, None)
    swarm.set_state("n3", NodeState.DOWN)
    swarm.set_image(id_, "new")
    swarm.settle()
    assert serving(swarm, id_) == ["new"] * 2
    swarm.set_state("n3", NodeState.READY)
    assert "busybox" not in serving(swarm, id_)
    swarm.settle()
    assert serving(swarm, id_) == ["new"] * 3


def test_no_withheld_task_is_left_of_tasks_that_ended() -> None:
    swarm, id_ = started(BLUE_GREEN, 1)
    swarm.set_image(id_, "new")
    swarm.settle()
    swarm.finish(swarm.running(id_)[0])
    swarm.settle()
    assert serving(swarm, id_) == ["new"]
    assert swarm.tasks(id_, TaskState.RUNNING)[0].withheld is False


def test_what_cannot_go_over_at_once_is_refused() -> None:
    port = EndpointSpec(ports=(PortConfig(target_port=80, publish_mode="host"),))
    spec = replace(service_spec("web", 1), labels=BLUE_GREEN)
    with pytest.raises(InvalidArgument, match=r"shoal\.update\.strategy: a port published with mode=host"):
        prepare_service(replace(spec, endpoint_spec=port))
    with pytest.raises(InvalidArgument, match=r"shoal\.update\.strategy: a job has no update"):
        prepare_service(replace(job_spec(1), labels=BLUE_GREEN))
    with pytest.raises(InvalidArgument, match="write 100%"):
        prepare_service(replace(spec, labels=BLUE_GREEN | {"shoal.update.canary": "1"}))
