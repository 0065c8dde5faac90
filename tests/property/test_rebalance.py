"""Rebalancing ends, makes no service less even, breaks no rule of placement, and costs no replica."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.core.schedule.filters import FILTERS, Request
from shoal.core.schedule.nodes import NodeInfo
from shoal.core.schedule.rebalance import plan_moves
from shoal.core.schedule.resources import Needs
from shoal.model.base import replace
from shoal.model.objects import Node, NodeDescription, NodeStatus, Task, TaskStatus
from shoal.model.specs import NodeSpec, Resources, RestartPolicy
from shoal.model.states import Availability, NodeState, TaskState
from tests.doubles.swarm import LOOPS, PureSwarm, service_spec

CPU = 1_000_000_000
SERVICE = "s"
nodes = st.builds(
    lambda zone, availability, cpus, tasks, failures: (zone, availability, cpus, tasks, failures),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from([Availability.ACTIVE, Availability.ACTIVE, Availability.PAUSE]),
    st.integers(0, 8),
    st.integers(0, 6),
    st.sampled_from([0, 0, 0, 1]),
)


def squares(counts: Counter[str]) -> int:
    return sum(count * count for count in counts.values())


@settings(max_examples=100, deadline=None)
@given(
    described=st.lists(nodes, min_size=1, max_size=6),
    by_zone=st.booleans(),
    max_replicas=st.sampled_from([0, 0, 2, 4]),
)
def test_each_move_makes_the_service_more_even(
    described: list[tuple[str, Availability, int, int, int]], by_zone: bool, max_replicas: int
) -> None:
    request = Request(
        service_id=SERVICE,
        spec_version=1,
        needs=Needs(nano_cpus=CPU),
        max_replicas=max_replicas,
        spread=("node.labels.zone",) if by_zone else (),
    )
    infos: dict[str, NodeInfo] = {}
    tasks: list[Task] = []
    zones: dict[str, str] = {}
    for number, (zone, availability, cpus, count, failures) in enumerate(described):
        node = Node(
            id=f"n{number}",
            spec=NodeSpec(availability=availability, labels={"zone": zone}),
            status=NodeStatus(state=NodeState.READY),
            description=NodeDescription(resources=Resources(nano_cpus=cpus * CPU)),
        )
        info = infos[node.id] = NodeInfo(node)
        zones[node.id] = zone if availability == Availability.ACTIVE else ""
        info.failures[(SERVICE, 1)] = failures
        for _ in range(count):
            info.add(SERVICE, request.needs)
            running = TaskStatus(state=TaskState.RUNNING)
            slot = len(tasks) + 1
            task = Task(id=f"t{slot}", service_id=SERVICE, spec_version=1, slot=slot, node_id=node.id, status=running)
            tasks.append(task)
    place = {task.id: task.node_id for task in tasks}
    on_node = Counter(place.values())
    on_zone = Counter(zones[node] for node in place.values() if zones[node])
    moves = plan_moves(tasks, request, infos, most=10_000)
    for move in moves:
        assert place[move.task_id] == move.from_node_id
        before = (squares(on_zone) if by_zone else 0, squares(on_node))
        source, target = infos[move.from_node_id].node, infos[move.to_node_id].node
        assert source.spec.availability == target.spec.availability == Availability.ACTIVE
        assert not infos[target.id].failures[(SERVICE, 1)]
        on_node[source.id] -= 1
        on_node[target.id] += 1
        on_zone[zones[source.id]] -= 1
        on_zone[zones[target.id]] += 1
        assert (squares(on_zone) if by_zone else 0, squares(on_node)) < before
        place[move.task_id] = target.id
        assert not max_replicas or on_node[target.id] <= max_replicas
        assert infos[target.id].nano_cpus >= 0
    assert plan_moves([replace(task, node_id=place[task.id]) for task in tasks], request, infos, most=1) == []
    open_nodes = [id_ for id_, info in infos.items() if all(one.check(request, info) for one in FILTERS)]
    for target_id in open_nodes if not by_zone else ():
        if not infos[target_id].failures[(SERVICE, 1)]:
            active = [id_ for id_, info in infos.items() if info.node.spec.availability == Availability.ACTIVE]
            assert max(on_node[id_] for id_ in active) - on_node[target_id] < 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.integers(2, 7),
    steps=st.lists(st.one_of(st.sampled_from(LOOPS), st.integers(1, 5).map("work".__mul__)), max_size=60),
)
def test_no_replica_is_missing_while_tasks_move(replicas: int, steps: list[str]) -> None:
    swarm = PureSwarm(3)
    swarm.set_availability("n1", Availability.DRAIN)
    labels = {"shoal.rebalance": "auto"}
    id_ = swarm.create(replace(service_spec("web", replicas, restart_policy=RestartPolicy(delay=0)), labels=labels))
    swarm.settle()
    swarm.set_availability("n1", Availability.ACTIVE)

    def check() -> None:
        wanted = [task.slot for task in swarm.wanted(id_)]
        assert len(wanted) <= replicas + 1
        assert set(wanted) == set(range(1, replicas + 1))
        assert len({task.slot for task in swarm.running(id_)}) == replicas

    for step in steps:
        if step in LOOPS:
            swarm.decide((step,))
        for _ in range(step.count("work")):
            swarm.work()
        check()
    for _ in swarm.rounds():
        check()
    counts = Counter(task.node_id for task in swarm.running(id_))
    assert max(counts.values()) - min(counts[node] for node in ("n1", "n2", "n3")) < 2
