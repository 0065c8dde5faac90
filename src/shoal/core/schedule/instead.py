"""Room that a task would leave: a successor may be prepared in it before it has left (stop-first updates).

A task that is only prepared takes no processor and no memory, so it may have the node of the task it replaces while
that one runs on. Host ports and generic resources are taken at once: with those the old task has to leave first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from shoal.core.orchestrate.phase import stands_still, starts_beside
from shoal.core.schedule.filters import first_failure
from shoal.core.schedule.nodes import survey
from shoal.core.schedule.plan import request_for
from shoal.model.actions import PatchTask
from shoal.model.objects import Node, Revision, Service, Task, TaskStatus
from shoal.model.states import TaskState

TAKEOVER_MESSAGE = "scheduler assigned task to the node of the task it replaces"


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


def plan_takeovers(
    pending: Iterable[Task],
    patches: Iterable[PatchTask],
    nodes: Mapping[str, Node],
    tasks_of_service: Callable[[str], Iterable[Task]],
    tasks_of_node: Callable[[str], Iterable[Task]],
    revision_of: Callable[[Task], Revision],
    service_of: Callable[[str], Service | None],
    now_ns: int,
) -> list[PatchTask]:
    """Return `patches`, with successors that no node can take assigned where the task is that they replace.

    One a node and round: the next is judged by what the store says of the first.

    Args:
        pending: the tasks that `patches` were planned for; those with desired state READY are looked at.
        patches: what the scheduler has decided.
        nodes, tasks_of_service, tasks_of_node, revision_of, service_of: how to look further.
        now_ns: the time of the new statuses.
    """
    planned = {patch.id: patch for patch in patches}
    taken = {patch.node_id for patch in planned.values()}
    for task in pending:
        service = service_of(task.service_id)
        is_placed = task.id in planned and planned[task.id].node_id
        if is_placed or service is None or not _may_take_over(task, service, revision_of(task)):
            continue
        for leaving in tasks_of_service(task.service_id):
            node = nodes.get(leaving.node_id)
            if leaving.node_id in taken or not _is_replaced(leaving, task):
                continue
            if fits_instead(task, leaving, node, tasks_of_node, revision_of, service_of, now_ns):
                status = TaskStatus(state=TaskState.ASSIGNED, timestamp_ns=now_ns, message=TAKEOVER_MESSAGE)
                planned[task.id] = PatchTask(id=task.id, node_id=leaving.node_id, status=status)
                taken.add(leaving.node_id)
                break
    return list(planned.values())


def _may_take_over(task: Task, service: Service, revision: Revision) -> bool:
    if task.desired_state != TaskState.READY or starts_beside(service) or stands_still(service):
        return False
    needs = request_for(task, revision, service).needs
    return not needs.host_ports and not needs.generic


def _is_replaced(leaving: Task, task: Task) -> bool:
    """Whether `task` is there to replace `leaving`: in its place, and made from another revision."""
    same_place = leaving.slot == task.slot and (task.slot != 0 or leaving.node_id == task.node_id)
    runs = leaving.is_wanted and leaving.status.state == TaskState.RUNNING
    return same_place and runs and leaving.spec_version != task.spec_version
