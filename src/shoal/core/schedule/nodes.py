"""What the scheduler knows of a node: what it has, what is taken of it, and how its tasks fared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from shoal.core.attachments import is_attachment
from shoal.core.schedule.resources import Needs, needs_of
from shoal.model.objects import Node, Revision, Service, Task
from shoal.model.specs import GenericResource
from shoal.model.states import TaskState

FAILURES_MOST = 5
FAILURE_WINDOW_NS = 5 * 60 * 1_000_000_000


class NodeInfo:
    """A node with its present load; the scheduler adds to it what it places."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.nano_cpus = node.description.resources.nano_cpus
        self.memory_bytes = node.description.resources.memory_bytes
        self.generic = Counter(_generic_totals(node))
        self._free_names = _free_names(node)
        self.tasks_total = 0
        self.tasks_by_service: Counter[str] = Counter()
        self.host_ports: Counter[tuple[str, int]] = Counter()
        self.failures: Counter[tuple[str, int]] = Counter()

    def claim(self, needs: Needs) -> tuple[GenericResource, ...]:
        """Return which of the node's generic resources a task is to have: the first free names, or how many."""
        claimed: list[GenericResource] = []
        for kind, amount in needs.generic:
            names = self._free_names.get(kind)
            if names is None:
                claimed.append(GenericResource(discrete_resource_spec={"Kind": kind, "Value": amount}))
            else:
                chosen = sorted(names)[:amount]
                claimed += [GenericResource(named_resource_spec={"Kind": kind, "Value": name}) for name in chosen]
        return tuple(claimed)

    def add(
        self, service_id: str, needs: Needs, wanted: bool = True, claimed: tuple[GenericResource, ...] = ()
    ) -> None:
        """Count a task that is, or will be, on this node.

        Args:
            service_id: its service.
            needs: what it takes.
            wanted: False for one that is stopping: it still holds its needs.
            claimed: the generic resources it was given by name.
        """
        for resource in claimed:
            if resource.named_resource_spec:
                named = resource.named_resource_spec
                self._free_names.get(named.get("Kind", ""), set()).discard(named.get("Value", ""))
        self.nano_cpus -= needs.nano_cpus
        self.memory_bytes -= needs.memory_bytes
        for kind, amount in needs.generic:
            self.generic[kind] -= amount
        for port in needs.host_ports:
            self.host_ports[port] += 1
        if wanted:
            self.tasks_total += 1
            self.tasks_by_service[service_id] += 1

    def release(self, service_id: str, needs: Needs, claimed: tuple[GenericResource, ...] = ()) -> None:
        """Count off a wanted task that leaves this node."""
        for resource in claimed:
            if resource.named_resource_spec:
                named = resource.named_resource_spec
                self._free_names.setdefault(named.get("Kind", ""), set()).add(named.get("Value", ""))
        self.nano_cpus += needs.nano_cpus
        self.memory_bytes += needs.memory_bytes
        for kind, amount in needs.generic:
            self.generic[kind] += amount
        for port in needs.host_ports:
            self.host_ports[port] -= 1
        self.tasks_total -= 1
        self.tasks_by_service[service_id] -= 1

    def load_for(self, service_id: str, spec_version: int) -> tuple[int, int, int, str]:
        """Return the order of preference, least first (docker-swarm.md 4.5).

        A node on which this version failed often comes last; then fewer tasks of the service, then fewer tasks.
        """
        failures = self.failures[(service_id, spec_version)]
        return (
            failures if failures >= FAILURES_MOST else 0,
            self.tasks_by_service[service_id],
            self.tasks_total,
            self.node.id,
        )


def _generic_totals(node: Node) -> dict[str, int]:
    totals: dict[str, int] = {}
    for resource in node.description.resources.generic_resources:
        if resource.discrete_resource_spec:
            kind = str(resource.discrete_resource_spec.get("Kind", ""))
            totals[kind] = totals.get(kind, 0) + int(resource.discrete_resource_spec.get("Value", 0))
        elif resource.named_resource_spec:
            kind = resource.named_resource_spec.get("Kind", "")
            totals[kind] = totals.get(kind, 0) + 1
    return totals


def _free_names(node: Node) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for resource in node.description.resources.generic_resources:
        if resource.named_resource_spec:
            named = resource.named_resource_spec
            names.setdefault(named.get("Kind", ""), set()).add(named.get("Value", ""))
    return names


def survey(
    nodes: Iterable[Node],
    tasks_of_node: Callable[[str], Iterable[Task]],
    revision_of: Callable[[Task], Revision],
    service_of: Callable[[str], Service | None],
    now_ns: int,
) -> dict[str, NodeInfo]:
    """Return what is known of each node from the tasks it was given."""
    known: dict[tuple[str, int], Needs] = {}
    infos: dict[str, NodeInfo] = {}
    for node in nodes:
        info = infos[node.id] = NodeInfo(node)
        for task in tasks_of_node(node.id):
            state = task.status.state
            if state < TaskState.ASSIGNED or is_attachment(task):
                continue  # chosen for this node (global services), but not confirmed yet; or nothing that runs
            if state > TaskState.RUNNING:
                recent = task.status.applied_at_ns > now_ns - FAILURE_WINDOW_NS
                if state in (TaskState.FAILED, TaskState.REJECTED) and recent:
                    info.failures[(task.service_id, task.spec_version)] += 1
                continue
            key = (task.service_id, task.spec_version)
            if key not in known:
                known[key] = needs_of(revision_of(task).spec, service_of(task.service_id))
            info.add(task.service_id, known[key], task.is_wanted, task.generic_resources)
    return infos
