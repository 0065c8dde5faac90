"""Moving a task to another node: a second task of its slot comes to run there, then the first is told to stop.

The second one `replaces` the first. It is a guest in the slot until it runs: whatever goes wrong with it, or an update
that begins meanwhile, is its end, and the first one is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.core.defaults import SECOND_NS, is_replicated
from shoal.core.extensions import REBALANCE
from shoal.core.orchestrate.phase import FINISHED_STATES
from shoal.core.orchestrate.plan import NewId, Plan, new_task
from shoal.core.orchestrate.slots import Place, RevisionOf, Slot, group, is_dirty
from shoal.model.actions import Create
from shoal.model.objects import Node, Service, Task
from shoal.model.states import TaskState

MOVES_A_MINUTE = 6
MOVE_INTERVAL_NS = 60 * SECOND_NS // MOVES_A_MINUTE


def is_rebalanced(service: Service) -> bool:
    """Whether uneven tasks of a service are moved: always, or until they are even because somebody asked for it."""
    return is_replicated(service.spec) and (service.rebalancing or service.spec.labels.get(REBALANCE) == "auto")


def is_guest(task: Task, slot: Slot) -> bool:
    """Whether a task is on its way to take the place of another that is wanted still."""
    is_coming = bool(task.replaces) and task.status.state < TaskState.RUNNING
    return is_coming and any(other.id == task.replaces for other in slot.active)


def plan_guests(
    plan: Plan,
    service: Service,
    slots: Mapping[Place, Slot],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
) -> None:
    """Let tasks that were moved away stop where their successors run, and give up successors that cannot come."""
    for slot in slots.values():
        for task in slot.active if len(slot.active) > 1 else ():
            replaced = next((other for other in slot.active if other.id == task.replaces), None)
            if replaced is None:
                continue
            if task.status.state == TaskState.RUNNING:
                plan.desire(replaced, TaskState.SHUTDOWN, "it was moved to another node")
            elif task.status.state < TaskState.RUNNING:
                has_no_room = task.status.state <= TaskState.PENDING and bool(task.status.err)
                if has_no_room or is_dirty(task, service, revision_of, nodes.get(task.node_id)):
                    plan.desire(task, TaskState.SHUTDOWN, "it is not moved after all")


def what_hinders(
    service: Service, tasks: Iterable[Task], nodes: Mapping[str, Node], revision_of: RevisionOf
) -> tuple[list[Task], str]:
    """Return the tasks of a service, one a slot, from which moves can be planned; or why none can be now."""
    status = service.update_status
    if status is not None and status.state not in FINISHED_STATES:
        return [], f"its update is {status.state}"
    settled: list[Task] = []
    for slot in group(tasks, by_node=False).values():
        if any(is_guest(task, slot) for task in slot.active):
            return [], "a task is being moved"
        if len(slot.active) != 1 or slot.active[0].status.state != TaskState.RUNNING:
            return [], f"slot {slot.place} does not run yet"
        task = slot.active[0]
        if is_dirty(task, service, revision_of, nodes.get(task.node_id)):
            return [], "its update has not begun yet"
        settled.append(task)
    return settled, ""


def next_move_at_ns(tasks: Iterable[Task]) -> int:
    """Return from when on the next task may be moved: so many a minute."""
    last_ns = max((task.meta.created_at_ns for task in tasks if task.replaces), default=0)
    return last_ns + MOVE_INTERVAL_NS if last_ns else 0


def move_task(task: Task, to_node_id: str, new_id: NewId, now_ns: int) -> Create:
    """Return the making of the task that takes the place of `task` on another node."""
    return Create(
        object=new_task(
            new_id(),
            now_ns,
            service_id=task.service_id,
            spec_version=task.spec_version,
            slot=task.slot,
            node_id=to_node_id,
            desired_state=TaskState.RUNNING,
            replaces=task.id,
        )
    )
