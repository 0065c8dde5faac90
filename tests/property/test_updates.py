"""What updates keep to in whatever order loops and nodes have their turns: replicas, canaries, one task a slot."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.core.ingress import is_serving
from shoal.model.base import replace
from shoal.model.objects import Task
from shoal.model.specs import (
    EndpointSpec,
    Placement,
    PortConfig,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    UpdateConfig,
)
from shoal.model.states import TaskState, UpdateState
from tests.doubles.swarm import LOOPS, SECOND, PureSwarm, service_spec

orders = st.sampled_from(["stop-first", "start-first"])
# which loop decides, or how often the nodes work before one does; after the list all have their turn
turns = st.one_of(st.sampled_from(LOOPS), st.integers(1, 6).map("work".__mul__))


HOST_PORT = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080, publish_mode="host"),))
# with these there is room for one task a node, as with the port
TEMPLATES: dict[str, dict[str, object]] = {
    "resources": {"resources": ResourceRequirements(reservations=Resources(nano_cpus=3_000_000_000))},
    "max replicas": {"placement": Placement(max_replicas=1)},
}


def check_places(swarm: PureSwarm, id_: str, most_desired: int) -> None:
    """No place has more tasks that are desired to run than the order of the update allows."""
    desired = [task.slot or task.node_id for task in swarm.tasks(id_) if task.desired_state == TaskState.RUNNING]
    assert all(desired.count(place) <= most_desired for place in desired)


def take(swarm: PureSwarm, turn: str) -> None:
    if turn in LOOPS:
        swarm.decide((turn,))
    for _ in range(turn.count("work")):
        swarm.work()


def image_of(swarm: PureSwarm, task: Task) -> str:
    container = swarm.view.revision_of(task).spec.task_template.container_spec
    assert container is not None
    return container.image


def updated(
    replicas: int | None, config: UpdateConfig, labels: dict[str, str] | None = None, room: str = "plenty"
) -> tuple[PureSwarm, str]:
    """A swarm of three nodes whose service (global without a number) runs and has just got another image."""
    swarm = PureSwarm(3)
    spec = service_spec("web", replicas, restart_policy=RestartPolicy(delay=0), **TEMPLATES.get(room, {}))
    spec = replace(spec, endpoint_spec=HOST_PORT if room == "host port" else None)
    id_ = swarm.create(replace(spec, update_config=config, labels=labels or {}))
    swarm.settle()
    swarm.set_image(id_, "new")
    return swarm, id_


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.one_of(st.none(), st.integers(1, 5)),
    parallelism=st.integers(1, 3),
    order=orders,
    room=st.sampled_from(["plenty", "plenty", "resources", "max replicas", "host port"]),
    steps=st.lists(turns, min_size=15, max_size=60),
)
def test_so_many_run_at_any_time(
    replicas: int | None, parallelism: int, order: str, room: str, steps: list[str]
) -> None:
    """Of healthy tasks: all at any time with start-first, as many less as the parallelism says with stop-first.

    Where a new task has no room beside the old one, start-first is stop-first.
    """
    count = replicas if room == "plenty" or replicas is None else min(replicas, 3)
    swarm, id_ = updated(count, UpdateConfig(parallelism=parallelism, monitor=SECOND, order=order), room=room)
    count = count or 3
    is_beside = order == "start-first" and room == "plenty"
    least = count if is_beside else count - parallelism

    def check() -> None:
        check_places(swarm, id_, 2 if order == "start-first" else 1)
        running = [task.slot or task.node_id for task in swarm.tasks(id_, TaskState.RUNNING)]
        assert len(set(running)) >= least
        assert order == "start-first" or len(set(running)) == len(running)

    for turn in steps:
        take(swarm, turn)
        check()
    for _ in swarm.rounds():
        check()
    assert {task.spec_version for task in swarm.running(id_)} == {2}
    assert len(swarm.running(id_)) == count
    assert swarm.update_state(id_) == UpdateState.COMPLETED


# updates some of whose tasks fail: an integer among the steps ends one that runs
failing_configs = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 3),
    order=orders,
    failure_action=st.sampled_from(["pause", "rollback", "continue"]),
)
courses = st.lists(st.one_of(turns, st.integers(0, 9)), min_size=15, max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(1, 5),
    is_awaited=st.booleans(),
    config=failing_configs,
    steps=courses,
)
def test_traffic_goes_over_whole(replicas: int, is_awaited: bool, config: UpdateConfig, steps: list[str | int]) -> None:
    """Blue-green: tasks of one specification take traffic at a time, and no new one before as many run."""
    labels = {"shoal.update.strategy": "blue-green"} | ({"shoal.update.canary": "100%"} if is_awaited else {})
    swarm, id_ = updated(replicas, config, labels)
    over = False

    def check() -> None:
        nonlocal over
        served = {image_of(swarm, task) for task in swarm.tasks(id_) if is_serving(task)}
        assert len(served) <= 1
        if not over and served == {"new"}:
            over = True
            assert not is_awaited
            assert sum(is_serving(task) for task in swarm.tasks(id_)) == replicas
        assert not over or served != {"busybox"}

    for step in steps:
        running = swarm.tasks(id_, TaskState.RUNNING)
        if isinstance(step, str):
            take(swarm, step)
        elif running and not over:
            swarm.finish(running[step % len(running)])
        check()
    for _ in swarm.rounds():
        check()
    assert sum(is_serving(task) for task in swarm.tasks(id_)) == replicas


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(1, 5),
    canaries=st.integers(1, 5),
    config=failing_configs,
    steps=courses,
)
def test_no_slot_but_the_canaries_has_the_new_spec(
    replicas: int, canaries: int, config: UpdateConfig, steps: list[str | int]
) -> None:
    swarm, id_ = updated(replicas, config, {"shoal.update.canary": str(canaries)})

    def check() -> None:
        assert len({task.slot for task in swarm.tasks(id_) if task.spec_version == 2}) <= canaries

    for step in steps:
        running = swarm.tasks(id_, TaskState.RUNNING)
        if isinstance(step, str):
            take(swarm, step)
        elif running:
            swarm.finish(running[step % len(running)])
        check()
    swarm.pass_seconds(60)
    check()
    assert len(swarm.running(id_)) == replicas
