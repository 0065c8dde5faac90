"""Whether a task would have room where another one is now."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.core.schedule.filters import first_failure
from shoal.core.schedule.nodes import survey
from shoal.core.schedule.plan import request_for
from shoal.model.objects import Node, Revision, Service, Task


def fits_instead(
    task: Task,
    leaving: Task,
    node: Node | None,
    tasks_of_node: Callable[[str], Iterable[Task]],
    revision_of: Callable[[Task], Revision],
    service_of: Callable[[str], Service | None],
    now_ns: int,
) -> bool:
    """Whether `node`, on which `leaving` is, could take `task` if `leaving` were gone: by the scheduler's own filters.

    False without a node: one that left the swarm, or never was.
    """
    if node is None or task.node_id not in ("", node.id):
        return False

    def staying(node_id: str) -> list[Task]:
        return [other for other in tasks_of_node(node_id) if other.id != leaving.id]

    info = survey([node], staying, revision_of, service_of, now_ns)[node.id]
    return first_failure(request_for(task, revision_of(task), service_of(task.service_id)), info) is None
