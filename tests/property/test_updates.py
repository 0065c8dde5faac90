"""What updates keep to in whatever order loops and nodes have their turns: replicas, canaries, one task a slot."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.core.ingress import is_serving
from shoal.model.base import replace
from shoal.model.objects import Task
from shoal.model.specs import RestartPolicy, UpdateConfig
from shoal.model.states import TaskState, UpdateState
from tests.doubles.swarm import LOOPS, SECOND, PureSwarm, service_spec

orders = st.sampled_from(["stop-first", "start-first"])
# which loop decides, or how often the nodes work before one does; after the list all have their turn
turns = st.one_of(st.sampled_from(LOOPS), st.integers(1, 6).map("work".__mul__))


def take(swarm: PureSwarm, turn: str) -> None:
    if turn in LOOPS:
        swarm.decide((turn,))
    for _ in range(turn.count("work")):
        swarm.work()


def image_of(swarm: PureSwarm, task: Task) -> str:
    container = swarm.view.revision_of(task).spec.task_template.container_spec
    assert container is not None
    return container.image


def updated(replicas: int, config: UpdateConfig, labels: dict[str, str] | None = None) -> tuple[PureSwarm, str]:
    """A swarm whose service runs and has just got another image."""
    swarm = PureSwarm(3)
    spec = service_spec("web", replicas, restart_policy=RestartPolicy(delay=0))
    id_ = swarm.create(replace(spec, update_config=config, labels=labels or {}))
    swarm.settle()
    swarm.set_image(id_, "new")
    return swarm, id_


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(1, 5),
    parallelism=st.integers(1, 3),
    order=orders,
    steps=st.lists(turns, min_size=15, max_size=60),
)
def test_so_many_run_at_any_time(replicas: int, parallelism: int, order: str, steps: list[str]) -> None:
    swarm, id_ = updated(replicas, UpdateConfig(parallelism=parallelism, monitor=SECOND, order=order))
    least = replicas if order == "start-first" else replicas - parallelism
    most_a_slot = 2 if order == "start-first" else 1

    def check() -> None:
        slots = [task.slot for task in swarm.tasks(id_, TaskState.RUNNING)]
        assert len(slots) >= least
        assert all(slots.count(slot) <= most_a_slot for slot in slots)

    for turn in steps:
        take(swarm, turn)
        check()
    while swarm.round():
        check()
    assert {task.spec_version for task in swarm.running(id_)} == {2}
    assert len(swarm.running(id_)) == replicas
    assert swarm.update_state(id_) == UpdateState.COMPLETED


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(1, 5),
    is_awaited=st.booleans(),
    config=st.builds(
        UpdateConfig,
        parallelism=st.integers(0, 3),
        order=orders,
        failure_action=st.sampled_from(["pause", "rollback", "continue"]),
    ),
    steps=st.lists(st.one_of(turns, st.integers(0, 9)), min_size=15, max_size=60),
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
    while swarm.round():
        check()
    assert sum(is_serving(task) for task in swarm.tasks(id_)) == replicas


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(1, 5),
    canaries=st.integers(1, 5),
    config=st.builds(
        UpdateConfig,
        parallelism=st.integers(0, 3),
        order=orders,
        failure_action=st.sampled_from(["pause", "rollback", "continue"]),
    ),
    steps=st.lists(st.one_of(turns, st.integers(0, 9)), min_size=15, max_size=60),
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
