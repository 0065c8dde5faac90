"""Replacing tasks that have ended or lost their node, and letting replacements start when it is their turn.

A replacement is made at once with desired state READY, so that it can be prepared; it becomes RUNNING (of a job:
COMPLETE) when the task before it has stopped and the delay of the restart policy is over. All of it follows from the
store: nothing is lost when the leader changes (docker-swarm.md 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shoal.core.defaults import OLD_TASK_WAIT_NS, SECOND_NS, restart_policy
from shoal.core.extensions import parse_extensions
from shoal.core.orchestrate.phase import keeps_old_spec, stands_still, starts_beside
from shoal.core.orchestrate.plan import NewId, Plan, goal_of, task_label
from shoal.core.orchestrate.slots import RevisionOf, Slot, is_dirty, is_node_gone, should_restart
from shoal.model.actions import PatchTask
from shoal.model.base import replace
from shoal.model.objects import Node, Service, Task
from shoal.model.states import TaskState

ORPHANED_MESSAGE = "Task belonged to a node that has been deleted"
# enough for any bound that fits into a time, and few enough for a number to stay small
DOUBLINGS_MOST = 40
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

    A task with a younger one beside it that lives on is not replaced: that one is its successor. Nor is a successor
    that failed while its update stands still, or was to be moved here: the task before it keeps the slot.
    """
    is_replaced = False
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
        stays_behind = stands_still(service) or bool(task.replaces)
        others = slot.active if stays_behind else slot.active[position + 1 :]
        is_kept = any(not _has_ended(other, nodes) for other in others if other is not task)
        restarts = should_restart(slot, task, revision_of(task).spec.task_template)
        if restarts and not is_kept and not is_replaced:
            is_replaced = True
            slot_number = slot.place if isinstance(slot.place, int) else 0
            node_id = slot.place if isinstance(slot.place, str) else ""
            more = _lineage(task, service)
            if (
                not task.withheld
                and keeps_old_spec(service)
                and is_dirty(task, service, revision_of, nodes.get(task.node_id))
            ):
                more["spec_version"] = task.spec_version
            plan.create(service, new_id, now_ns, TaskState.READY, why, slot=slot_number, node_id=node_id, **more)
            plan.wake(now_ns)


def _lineage(task: Task, service: Service) -> dict[str, Any]:
    """Return what the replacement of a task has from it, and is to know of those before it.

    A task that ran longer than the longest restart delay has proved itself: failures are counted anew after it.
    """
    lineage: dict[str, Any] = {"withheld": task.withheld}
    if task.status.state not in (TaskState.FAILED, TaskState.REJECTED, TaskState.COMPLETE):
        return lineage
    ran_ns = task.status.applied_at_ns - task.running_since_ns if task.running_since_ns else 0
    backoff_most_ns = parse_extensions(service.spec.labels).backoff_most_ns
    lineage["failures_before"] = 1 if backoff_most_ns and ran_ns > backoff_most_ns else task.failures_before + 1
    if not task.running_since_ns and task.spec_version == service.spec_version:
        lineage["trying_since_ns"] = task.trying_since_ns or task.meta.created_at_ns
    return lineage


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
    """Let a replacement run (desired READY → RUNNING) when those before it have stopped and the delay is over.

    One whose predecessor is not told to stop waits: the update tells it when the replacement is prepared.
    """
    for task in slot.active:
        if task.desired_state != TaskState.READY or task.status.state.is_terminal:
            continue
        before = _older(task, slot)
        runs_on = any(other.is_wanted and not _has_ended(other, nodes) for other in before)
        if runs_on and not starts_beside(service):
            continue
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
            # The last that was written about the older one is that it should stop.
            deadline_ns = max(task.meta.created_at_ns, other.meta.updated_at_ns) + OLD_TASK_WAIT_NS
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
    is_other = task.spec_version != last.spec_version and is_dirty(last, service, revision_of, node)
    if not failed or is_other or (last.node_id and is_node_gone(node)):
        return 0
    # One that was refused before its own turn is replaced later than it ended: the delay counts from then.
    since_ns = max(last.status.applied_at_ns, task.meta.created_at_ns)
    return since_ns + _delay_ns(task, service, revision_of)


def _delay_ns(task: Task, service: Service, revision_of: RevisionOf) -> int:
    """Return how long a replacement waits: with a back-off twice as long after each failure in a row, up to its bound.

    A delay of 0 cannot double: with a back-off it counts as a second.
    """
    delay_ns = restart_policy(revision_of(task).spec.task_template).delay_ns
    most_ns = parse_extensions(service.spec.labels).backoff_most_ns
    if not most_ns:
        return delay_ns
    doublings = min(max(task.failures_before - 1, 0), DOUBLINGS_MOST)
    first_ns = delay_ns or SECOND_NS
    return min(first_ns << doublings, max(most_ns, first_ns))
