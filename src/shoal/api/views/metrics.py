"""What a node and its swarm are doing, as families of Prometheus' metrics. Pure: from records to samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from shoal.model.container import Container
from shoal.model.metrics import ConsensusStatus
from shoal.model.objects import Node, Service, Task
from shoal.model.states import TaskState
from shoal.model.streams import ContainerStats
from shoal.store.view import View

NANO = 1e9
SERVICE_LABEL = "com.docker.swarm.service.name"
TASK_LABELS = ("service", "task", "container")


def metrics_text(families: Iterable[Metric]) -> bytes:
    """Return families in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given(families))
    return generate_latest(registry)


class _Given:
    """A collector of what was collected already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        yield from self._families


def node_families(version: str, node_id: str, containers: Iterable[Container], image_count: int) -> Iterator[Metric]:
    """Yield what any node tells: who it is, and its containers by state."""
    about = GaugeMetricFamily("shoal_node_info", "This node; always 1", labels=("version", "node"))
    about.add_metric((version, node_id), 1)
    yield about
    by_state = Counter(container.state.status for container in containers)
    counts = GaugeMetricFamily("shoal_containers", "Containers of this node by state", labels=("state",))
    for state in ("created", "running", "exited", "dead"):
        counts.add_metric((state,), by_state[state])
    yield counts
    yield GaugeMetricFamily("shoal_images", "Images of this node", value=image_count)


def usage_families(samples: Iterable[tuple[Container, ContainerStats]]) -> Iterator[Metric]:
    """Yield what the running containers use."""
    processor = CounterMetricFamily(
        "shoal_container_cpu_seconds", "Processor time used since the container began", labels=TASK_LABELS
    )
    memory = GaugeMetricFamily("shoal_container_memory_bytes", "Memory in use", labels=TASK_LABELS)
    limit = GaugeMetricFamily("shoal_container_memory_limit_bytes", "The most memory it may use", labels=TASK_LABELS)
    processes = GaugeMetricFamily("shoal_container_processes", "Processes and threads", labels=TASK_LABELS)
    received = CounterMetricFamily("shoal_container_network_received_bytes", "Bytes received", labels=TASK_LABELS)
    sent = CounterMetricFamily("shoal_container_network_sent_bytes", "Bytes sent", labels=TASK_LABELS)
    for container, stats in samples:
        if not stats.at_ns:
            continue  # it has ended meanwhile
        labels = (container.config.labels.get(SERVICE_LABEL, ""), container.config.name, container.id)
        processor.add_metric(labels, stats.cpu.total_ns / NANO)
        memory.add_metric(labels, stats.memory.usage)
        limit.add_metric(labels, stats.memory.limit)
        processes.add_metric(labels, stats.process_count)
        received.add_metric(labels, sum(interface.received_bytes for interface in stats.interfaces))
        sent.add_metric(labels, sum(interface.sent_bytes for interface in stats.interfaces))
    yield from (processor, memory, limit, processes, received, sent)


def consensus_families(status: ConsensusStatus) -> Iterator[Metric]:
    """Yield how a manager stands in the Raft group."""
    for name, text, value in (
        ("shoal_raft_is_leader", "Whether this manager leads", status.is_leader),
        ("shoal_raft_has_leader", "Whether a leader with a quorum is known", status.has_leader),
        ("shoal_raft_term", "The term of the Raft group", status.term),
        ("shoal_raft_applied_index", "The last entry of the log that was applied", status.applied_index),
        ("shoal_raft_members", "Members of the Raft group", status.members),
        ("shoal_raft_members_reachable", "Members heard of lately", status.members_reachable),
    ):
        yield GaugeMetricFamily(name, text, value=float(value))


def swarm_families(view: View) -> Iterator[Metric]:
    """Yield the nodes, services and tasks of the swarm, as a manager knows them."""
    nodes = GaugeMetricFamily("shoal_nodes", "Nodes", labels=("role", "state", "availability"))
    by_node = Counter(
        (str(node.spec.role), str(node.status.state), str(node.spec.availability)) for node in view.find(Node)
    )
    for node_labels, count in sorted(by_node.items()):
        nodes.add_metric(node_labels, count)
    yield nodes
    tasks = GaugeMetricFamily("shoal_tasks", "Tasks by what they do", labels=("state",))
    running: Counter[str] = Counter()
    by_state: Counter[TaskState] = Counter()
    for task in view.find(Task):
        by_state[task.status.state] += 1
        if task.status.state == TaskState.RUNNING:
            running[task.service_id] += 1
    for state in TaskState:
        tasks.add_metric((state.word,), by_state[state])
    yield tasks
    wanted = GaugeMetricFamily("shoal_service_replicas", "Tasks a replicated service is to have", labels=("service",))
    has = GaugeMetricFamily("shoal_service_tasks_running", "Tasks of a service that run", labels=("service",))
    for service in sorted(view.find(Service), key=lambda each: each.spec.name):
        replicated = service.spec.mode.replicated
        if replicated is not None:
            wanted.add_metric((service.spec.name,), replicated.replicas or 0)
        has.add_metric((service.spec.name,), running[service.id])
    yield from (wanted, has)
