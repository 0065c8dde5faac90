"""Rolling updates and rollbacks, step by step from what the store shows (docker-swarm.md 4.3).

Nothing is remembered between steps: a slot is dirty when its task was made from another template; it is under way
while its new task does not run yet, or ran for less than the delay. So an update goes on where it was after a change
of leader.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.core.defaults import update_config
from shoal.core.orchestrate.plan import NewId, Plan
from shoal.core.orchestrate.slots import Place, RevisionOf, Slot, is_dirty
from shoal.model.actions import PatchService
from shoal.model.base import Struct
from shoal.model.objects import Service, Task, UpdateStatus
from shoal.model.specs import UpdateConfig
from shoal.model.states import TaskState, UpdateState

_RUNNING_STATES = (UpdateState.UPDATING, UpdateState.ROLLBACK_STARTED)
_STOPPED_STATES = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)


class Progress(Struct):
    """Where an update stands: places that wait, places under way, tasks of this update that failed early."""

    dirty: tuple[Place, ...]
    under_way: int
    failed_task_ids: tuple[str, ...]
    updated: int
    settled_at_ns: int
    wake_at_ns: int | None


def plan_update(
    plan: Plan,
    service: Service,
    slots: Mapping[Place, Slot],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
) -> None:
    """Add to `plan` what the next step of an update needs; nothing if the service is as it should be."""
    status = service.update_status
    if status is not None and status.state in _STOPPED_STATES:
        return
    rollback = status is not None and status.state == UpdateState.ROLLBACK_STARTED
    config = update_config(service.spec, rollback)
    progress = measure(service, slots, revision_of, config, now_ns)
    if status is None:
        if not progress.dirty:
            return
        status = UpdateStatus(state=UpdateState.UPDATING, started_at_ns=now_ns, message="update in progress")
        plan.add(
            PatchService(id=service.id, spec_version=service.spec_version, update_status=status),
            f"an update of {len(progress.dirty)} slots begins",
        )
    if status.state not in _RUNNING_STATES:
        return
    total = len(progress.dirty) + progress.updated
    if config.failure_action != "continue" and progress.failed_task_ids and total:
        ratio = len(progress.failed_task_ids) / total
        if ratio > config.max_failure_ratio:
            _pause(plan, service, status, progress.failed_task_ids[-1], rollback, now_ns)
            return
    if progress.dirty:
        _update_slots(plan, service, slots, progress, config, now_ns, new_id)
    elif progress.under_way == 0:
        _complete(plan, service, status, progress, config, rollback, now_ns)
    _retire_outdated(plan, service, slots, revision_of)
    if progress.wake_at_ns is not None:
        plan.wake(progress.wake_at_ns)


def measure(
    service: Service, slots: Mapping[Place, Slot], revision_of: RevisionOf, config: UpdateConfig, now_ns: int
) -> Progress:
    """Say where an update of `service` stands, from its slots."""
    dirty: list[Place] = []
    failed: list[str] = []
    under_way = updated = 0
    settled_at_ns = 0
    wakes: list[int] = []
    started_at_ns = service.update_status.started_at_ns if service.update_status else now_ns
    for place, slot in sorted(slots.items(), key=lambda item: str(item[0]).rjust(12, "0")):
        ours = [
            t for t in slot.tasks if t.spec_version == service.spec_version and t.meta.created_at_ns >= started_at_ns
        ]
        failed.extend(task.id for task in ours if _failed_early(task, config))
        current = [task for task in ours if task.desired_state <= TaskState.RUNNING]
        if current:
            updated += 1
            task = current[-1]
            free_at_ns = task.running_since_ns + config.delay
            if task.status.state < TaskState.RUNNING:
                under_way += 1
            elif free_at_ns > now_ns:
                under_way += 1
                wakes.append(free_at_ns)
            settled_at_ns = max(settled_at_ns, task.running_since_ns)
        elif _needs_update(slot, service, revision_of):
            dirty.append(place)
        elif ours:
            updated += 1
    return Progress(
        dirty=tuple(dirty),
        under_way=under_way,
        failed_task_ids=tuple(failed),
        updated=updated,
        settled_at_ns=settled_at_ns,
        wake_at_ns=min(wakes, default=None),
    )


def _needs_update(slot: Slot, service: Service, revision_of: RevisionOf) -> bool:
    candidates = slot.active or [slot.latest]
    return any(is_dirty(task, service, revision_of) for task in candidates)


def _failed_early(task: Task, config: UpdateConfig) -> bool:
    """Whether a task of this update ended before or within the monitored time after it began to run."""
    if task.status.state not in (TaskState.FAILED, TaskState.REJECTED, TaskState.COMPLETE, TaskState.ORPHANED):
        return False
    return not task.running_since_ns or task.status.applied_at_ns - task.running_since_ns <= config.monitor


def _update_slots(
    plan: Plan,
    service: Service,
    slots: Mapping[Place, Slot],
    progress: Progress,
    config: UpdateConfig,
    now_ns: int,
    new_id: NewId,
) -> None:
    room = len(progress.dirty) if config.parallelism == 0 else config.parallelism - progress.under_way
    # A task that ended is replaced by the restart rule in the same plan: that is its update.
    waiting = [place for place in progress.dirty if place not in plan.created_places]
    for place in waiting[: max(0, room)]:
        slot = slots[place]
        number = place if isinstance(place, int) else 0
        node_id = place if isinstance(place, str) else ""
        start_first = config.order == "start-first" and slot.is_running
        desired = TaskState.RUNNING if start_first else TaskState.READY
        plan.create(service, new_id, now_ns, desired, f"update, {config.order or 'stop-first'}", number, node_id)
        if not start_first:
            for task in slot.active:
                plan.desire(task, TaskState.SHUTDOWN, "an update replaces it")


def _retire_outdated(plan: Plan, service: Service, slots: Mapping[Place, Slot], revision_of: RevisionOf) -> None:
    """Start-first: shut the outdated task of a slot down once its successor runs."""
    for slot in slots.values():
        outdated = [task for task in slot.active if is_dirty(task, service, revision_of)]
        runs = any(t.status.state == TaskState.RUNNING for t in slot.active if t not in outdated)
        if outdated and runs:
            for task in outdated:
                plan.desire(task, TaskState.SHUTDOWN, "its successor runs")


def _pause(plan: Plan, service: Service, status: UpdateStatus, task_id: str, rollback: bool, now_ns: int) -> None:
    word = "rollback" if rollback else "update"
    paused = UpdateStatus(
        state=UpdateState.ROLLBACK_PAUSED if rollback else UpdateState.PAUSED,
        started_at_ns=status.started_at_ns,
        completed_at_ns=now_ns,
        message=f"{word} paused due to failure or early termination of task {task_id}",
    )
    plan.add(
        PatchService(id=service.id, spec_version=service.spec_version, update_status=paused),
        f"task {task_id} failed: the {word} stands still",
    )


def _complete(
    plan: Plan,
    service: Service,
    status: UpdateStatus,
    progress: Progress,
    config: UpdateConfig,
    rollback: bool,
    now_ns: int,
) -> None:
    """Declare the end when the last new task has been watched for the monitored time (or the delay, if longer)."""
    watched_ns = config.delay + 1_000_000_000 if config.delay >= config.monitor else config.monitor
    ends_at_ns = (progress.settled_at_ns or status.started_at_ns) + watched_ns
    if ends_at_ns > now_ns:
        plan.wake(ends_at_ns)
        return
    done = UpdateStatus(
        state=UpdateState.ROLLBACK_COMPLETED if rollback else UpdateState.COMPLETED,
        started_at_ns=status.started_at_ns,
        completed_at_ns=now_ns,
        message="rollback completed" if rollback else "update completed",
    )
    plan.add(
        PatchService(id=service.id, spec_version=service.spec_version, update_status=done),
        "every slot is up to date",
    )
