"""Replacing tasks that have ended or lost their node, and letting replacements start when it is their turn.

A replacement is made at once with desired state READY, so that it can be prepared; it becomes RUNNING (of a job:
COMPLETE) when the task before it has stopped and the delay of the restart policy is over. All of it follows from the
store: nothing is lost when the leader changes (docker-swarm.md 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.core.defaults import OLD_TASK_WAIT_NS, restart_policy
from shoal.core.orchestrate.plan import NewId, Plan, goal_of, task_label
from shoal.core.orchestrate.slots import RevisionOf, Slot, is_dirty, is_node_gone, should_restart
from shoal.model.actions import PatchTask
from shoal.model.base import replace
from shoal.model.objects import Node, Service, Task
from shoal.model.states import TaskState

ORPHANED_MESSAGE = "Task belonged to a node that has been deleted"
# States in which a task has done its part or was told to stop: no failure, so no delay before the next one.
_STOPPED_AS_ASKED = (TaskState.SHUTDOWN, TaskState.ORPHANED)


def plan_restart(
    plan: Plan,
    service: Service,
    slot: Slot,
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
) -> None:
    """Replace the wanted tasks of a slot that have ended or whose node is gone, if their restart policy says so.

    A task with a younger one beside it that lives on is not replaced: that one is its successor.
    """
    for position, task in enumerate(slot.active):
        if not _has_ended(task, nodes):
            continue
        start_at_ns = _start_time(task, service, slot, nodes, revision_of)
        if task.desired_state == TaskState.READY and task.status.state.is_terminal and start_at_ns > now_ns:
            # Refused while it was prepared: its own delay runs on, or a missing image would be tried in a tight loop.
            plan.wake(start_at_ns)
            continue
        node_gone = not task.status.state.is_terminal
        why = "its node is gone" if node_gone else f"it has ended ({task.status.state.word})"
        plan.desire(task, TaskState.SHUTDOWN, why)
        has_successor = any(not _has_ended(younger, nodes) for younger in slot.active[position + 1 :])
        restarts = should_restart(slot, task, revision_of(task).spec.task_template)
        if restarts and not has_successor and slot.place not in plan.created_places:
            slot_number = slot.place if isinstance(slot.place, int) else 0
            node_id = slot.place if isinstance(slot.place, str) else ""
            plan.create(service, new_id, now_ns, TaskState.READY, why, slot=slot_number, node_id=node_id)
            plan.wake(now_ns)


def plan_orphans(plan: Plan, tasks: Iterable[Task], nodes: Mapping[str, Node], now_ns: int) -> None:
    """Note that tasks of nodes that left the swarm are lost: nobody will report of them, and what they hold is free."""
    for task in tasks:
        if task.node_id and task.node_id not in nodes and TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING:
            lost = replace(task.status, state=TaskState.ORPHANED, timestamp_ns=now_ns, message=ORPHANED_MESSAGE)
            plan.add(PatchTask(id=task.id, status=lost), f"{task_label(task)}: orphaned, its node was removed")


def _has_ended(task: Task, nodes: Mapping[str, Node]) -> bool:
    return task.status.state.is_terminal or (bool(task.node_id) and is_node_gone(nodes.get(task.node_id)))


def plan_starts(
    plan: Plan, service: Service, slot: Slot, nodes: Mapping[str, Node], revision_of: RevisionOf, now_ns: int
) -> None:
    """Let a replacement run (desired READY → RUNNING) when those before it have stopped and the delay is over."""
    for task in slot.active:
        if task.desired_state != TaskState.READY or task.status.state.is_terminal:
            continue
        before = _older(task, slot)
        waits_until_ns = _stop_deadline(task, before, nodes, now_ns)
        if waits_until_ns is not None:
            plan.wake(waits_until_ns)
            continue
        start_at_ns = _start_time(task, service, slot, nodes, revision_of)
        if start_at_ns <= now_ns:
            plan.desire(task, goal_of(service), "its turn has come")
        else:
            plan.wake(start_at_ns)


def _stop_deadline(task: Task, before: list[Task], nodes: Mapping[str, Node], now_ns: int) -> int | None:
    """Return until when to wait for older tasks to stop, None if there is nothing to wait for (any more)."""
    for other in before:
        if other.is_wanted:
            continue  # it was not told to stop: this one is to start beside it
        # A task of a node that is down cannot report that it stopped; one that is drained can.
        node = nodes.get(other.node_id)
        reachable = node is not None and node.status.state != "down"
        if not other.status.state.is_terminal and other.node_id and reachable:
            deadline_ns = task.meta.created_at_ns + OLD_TASK_WAIT_NS
            return deadline_ns if deadline_ns > now_ns else None
    return None


def _older(task: Task, slot: Slot) -> list[Task]:
    return slot.tasks[: slot.tasks.index(task)]


def _start_time(task: Task, service: Service, slot: Slot, nodes: Mapping[str, Node], revision_of: RevisionOf) -> int:
    """Return from when on a replacement may run: the delay after a failure; at once after an update or a drain."""
    before = _older(task, slot)
    if not before:
        return 0
    last = before[-1]
    node = nodes.get(last.node_id)
    failed = last.status.state.is_terminal and last.status.state not in _STOPPED_AS_ASKED
    if not failed or is_dirty(last, service, revision_of, node) or (last.node_id and is_node_gone(node)):
        return 0
    # One that was refused before its own turn is replaced later than it ended: the delay counts from then.
    since_ns = max(last.status.applied_at_ns, task.meta.created_at_ns)
    return since_ns + restart_policy(revision_of(task).spec.task_template).delay_ns
