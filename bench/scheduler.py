"""How long a round of the scheduler takes: all tasks of one service pending, nodes empty, as SwarmKit's own benchmark.

Run: python bench/scheduler.py. SwarmKit's figures on this kind of machine: 10,000 tasks 2.7 s, 100,000 tasks 30.2 s.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from shoal.core.schedule.nodes import survey
from shoal.core.schedule.plan import plan_placement
from shoal.model.container_spec import ContainerSpec
from shoal.model.objects import Node, NodeDescription, NodeStatus, Revision, Service, Task, TaskStatus, revision_id
from shoal.model.specs import NodeSpec, Placement, Platform, Resources, ServiceSpec, TaskSpec
from shoal.model.states import Availability, NodeState, Role, TaskState

NODES = 1000
TASKS = (10_000, 100_000)
RUNS = 3
NOW_NS = 1_700_000_000_000_000_000


def make_nodes() -> list[Node]:
    return [
        Node(
            id=f"node{number:04}",
            number=number + 1,
            spec=NodeSpec(
                role=Role.WORKER,
                availability=Availability.ACTIVE,
                labels={"zone": f"z{number % 10}", "disk": "ssd" if number % 2 else "hdd"},
            ),
            status=NodeStatus(state=NodeState.READY),
            description=NodeDescription(
                platform=Platform(architecture="x86_64", os="linux"),
                resources=Resources(nano_cpus=64_000_000_000, memory_bytes=1 << 40),
            ),
        )
        for number in range(NODES)
    ]


def run(count: int, constraints: tuple[str, ...], already: int) -> float:
    """Return the seconds of one round; `already`: tasks that run from before."""
    spec = ServiceSpec(
        name="web",
        task_template=TaskSpec(
            container_spec=ContainerSpec(image="busybox"), placement=Placement(constraints=constraints)
        ),
    )
    service = Service(id="service", spec=spec, spec_version=1)
    revision = Revision(id=revision_id("service", 1), service_id="service", spec_version=1, spec=spec)
    nodes = make_nodes()
    running: dict[str, list[Task]] = {}
    for number in range(already):
        node_id = nodes[number % NODES].id
        running.setdefault(node_id, []).append(
            Task(
                id=f"old{number}",
                service_id="service",
                spec_version=1,
                slot=number,
                node_id=node_id,
                status=TaskStatus(state=TaskState.RUNNING),
            )
        )
    tasks = [
        Task(
            id=f"task{number:06}",
            service_id="service",
            spec_version=1,
            slot=number,
            status=TaskStatus(state=TaskState.PENDING),
        )
        for number in range(count)
    ]
    begun = time.perf_counter()
    infos = survey(nodes, lambda node_id: running.get(node_id, ()), lambda _task: revision, lambda _id: service, NOW_NS)
    patches = plan_placement(tasks, infos, lambda _task: revision, lambda _id: service, NOW_NS)
    taken = time.perf_counter() - begun
    placed = sum(patch.node_id is not None for patch in patches)
    if placed != count:
        raise RuntimeError(f"{placed} of {count} tasks were placed")
    return taken


def main() -> None:
    print(f"{'tasks on ' + str(NODES) + ' nodes':<44} {'median':>8} {'least':>8} {'most':>8}")
    for count in TASKS:
        for what, constraints, already in (
            ("", (), 0),
            (", constrained", ("node.labels.disk==ssd", "node.role==worker"), 0),
            (", beside as many that run", (), count),
        ):
            taken = [run(count, constraints, already) for _ in range(RUNS)]
            name = f"{count:,}{what}"
            print(f"{name:<44} {statistics.median(taken):>7.2f}s {min(taken):>7.2f}s {max(taken):>7.2f}s", flush=True)


if __name__ == "__main__":
    main()
