"""Jobs: tasks that run to their end, so many times or once a node (docker-swarm.md 4.4).

A run is named by its iteration: what another one left is removed. Within a run a slot (from 0) or a node is done when
one of its tasks is COMPLETE; one that failed is tried again as the restart policy says, and when that says no, the slot
is given up: the job then never counts as complete, and takes no further slot for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.core import constraint
from shoal.core.cron import runs_kept
from shoal.core.orchestrate.global_ import nodes_to_fill
from shoal.core.orchestrate.plan import NewId, Plan
from shoal.core.orchestrate.restart import plan_orphans, plan_restart, plan_starts
from shoal.core.orchestrate.slots import RevisionOf, Slot, group
from shoal.model.objects import Node, Service, Task
from shoal.model.states import Availability, NodeState, TaskState


def plan(
    service: Service,
    tasks: Iterable[Task],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
) -> Plan:
    """Plan the tasks of a job of either kind."""
    result = Plan()
    tasks = tuple(tasks)
    plan_orphans(result, tasks, nodes, now_ns)
    iteration = service.job_status.iteration if service.job_status else None
    current = []
    kept = _iterations_kept(service, tasks)
    for task in tasks:
        if task.job_iteration == iteration:
            current.append(task)
        elif task.job_iteration not in kept:
            result.desire(task, TaskState.REMOVE, "it is of a run before")
        elif not task.status.state.is_terminal:
            result.desire(task, TaskState.SHUTDOWN, "another run has begun")
    if service.spec.mode.replicated_job is not None:
        _plan_replicated(result, service, current, nodes, revision_of, now_ns, new_id)
    else:
        _plan_global(result, service, current, nodes, revision_of, now_ns, new_id)
    return result


def _iterations_kept(service: Service, tasks: Iterable[Task]) -> frozenset[int]:
    """Return the runs before the present one whose tasks stay: as many as the service's label says, none without it."""
    count = runs_kept(service.spec.labels) or 0
    present = service.job_status.iteration if service.job_status else 0
    before = {task.job_iteration for task in tasks if task.job_iteration is not None and task.job_iteration < present}
    return frozenset(sorted(before, reverse=True)[:count])


def is_done(slot: Slot) -> bool:
    """Whether a task of the slot has come to its end as it should."""
    return any(task.status.state == TaskState.COMPLETE for task in slot.tasks)


def _plan_replicated(
    result: Plan,
    service: Service,
    tasks: list[Task],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
) -> None:
    job = service.spec.mode.replicated_job
    assert job is not None, "the caller looked"
    total, at_once = job.total_completions or 0, job.max_concurrent or 0
    slots = group(tasks, by_node=False)
    busy = 0
    for place, slot in slots.items():
        if is_done(slot):
            _end_others(result, slot)
            continue
        plan_restart(result, service, slot, nodes, revision_of, now_ns, new_id)
        plan_starts(result, service, slot, nodes, revision_of, now_ns)
        busy += place in result.created_places or any(result.is_wanted(task) for task in slot.active)
    free = (number for number in range(total) if number not in slots)
    for _, number in zip(range(at_once - busy), free, strict=False):
        result.create(service, new_id, now_ns, TaskState.COMPLETE, f"{total} are to complete", slot=number)


def _plan_global(
    result: Plan,
    service: Service,
    tasks: list[Task],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
) -> None:
    placement = service.spec.task_template.placement
    constraints = constraint.parse(placement.constraints) if placement else ()
    slots = group(tasks, by_node=True)
    for place, slot in slots.items():
        node = nodes.get(str(place))
        if is_done(slot):
            _end_others(result, slot)
        elif node is None:
            _end_all(result, slot, "its node was removed")
        elif node.spec.availability == Availability.DRAIN:
            _end_all(result, slot, "its node is drained")
        elif node.status.state == NodeState.DOWN:
            # It can run nowhere else, and may run on there: when the node is back its task is simply known again.
            continue
        elif not constraint.matches_all(constraints, node):
            _end_all(result, slot, "its node does not fit any more")
        elif node.spec.availability != Availability.PAUSE:
            plan_restart(result, service, slot, nodes, revision_of, now_ns, new_id)
            plan_starts(result, service, slot, nodes, revision_of, now_ns)
    for node in nodes_to_fill(slots, nodes, constraints, revision_of):
        result.create(service, new_id, now_ns, TaskState.COMPLETE, "a node to run on once", node_id=node.id)


def _end_others(result: Plan, slot: Slot) -> None:
    """End what runs beside a task that is complete: its successor, made when its node was thought lost."""
    for task in slot.active:
        if task.status.state != TaskState.COMPLETE:
            result.desire(task, TaskState.SHUTDOWN, "another task of its slot is complete")


def _end_all(result: Plan, slot: Slot, why: str) -> None:
    for task in slot.active:
        result.desire(task, TaskState.SHUTDOWN, why)
