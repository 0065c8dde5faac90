"""Rolling updates and rollbacks, step by step from what the store shows (docker-swarm.md 4.3).

Nothing is remembered between steps: a slot is dirty when its task was made from another template; it is under way
while its new task does not run yet, or ran for less than the delay. So an update goes on where it was after a change
of leader.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.core.defaults import SECOND_NS, update_config
from shoal.core.orchestrate.plan import NewId, Plan
from shoal.core.orchestrate.slots import Place, RevisionOf, Slot, is_dirty
from shoal.model.actions import PatchService, Replace
from shoal.model.base import Struct, replace
from shoal.model.objects import Node, Service, Task, UpdateStatus
from shoal.model.specs import ServiceSpec, UpdateConfig
from shoal.model.states import TaskState, UpdateState

_STOPPED_STATES = (UpdateState.PAUSED, UpdateState.ROLLBACK_PAUSED)
_FINISHED_STATES = (UpdateState.COMPLETED, UpdateState.ROLLBACK_COMPLETED)


class Progress(Struct):
    """Where an update stands: places that wait, places under way, tasks of this update that failed early."""

    dirty: tuple[Place, ...]
    under_way: int
    failed_task_ids: tuple[str, ...]
    updated: int
    settled_at_ns: int
    wake_at_ns: int | None


class Turn(Struct):
    """What one step of an update looks at: the service, its slots, and how to look further."""

    service: Service
    slots: Mapping[Place, Slot]
    resting: Mapping[Place, Slot]
    nodes: Mapping[str, Node]
    revision_of: RevisionOf
    config: UpdateConfig
    rollback: bool
    now_ns: int

    def is_dirty(self, task: Task) -> bool:
        """Whether a task is outdated."""
        return is_dirty(task, self.service, self.revision_of, self.nodes.get(task.node_id))


def plan_update(
    plan: Plan,
    service: Service,
    slots: Mapping[Place, Slot],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
    previous: ServiceSpec | None,
    resting: Mapping[Place, Slot] | None = None,
) -> None:
    """Add to `plan` what the next step of an update needs; nothing if the service is as it should be.

    `previous` is the spec that a failing update goes back to, if its failure action says so; None if there is none.
    `resting` slots get no new task (their node is paused), but a step begun there is finished: one task stays.
    Slots that become outdated after the end of an update (a node that was paused) are updated without a new status.
    """
    status = service.update_status
    rollback = status is not None and status.state == UpdateState.ROLLBACK_STARTED
    turn = Turn(
        service=service,
        slots=slots,
        resting=resting or {},
        nodes=nodes,
        revision_of=revision_of,
        config=update_config(service.spec, rollback),
        rollback=rollback,
        now_ns=now_ns,
    )
    if status is not None and status.state in _STOPPED_STATES:
        _retire_outdated(plan, turn)
        return
    progress = measure(turn)
    if status is None and progress.dirty:
        status = UpdateStatus(state=UpdateState.UPDATING, started_at_ns=now_ns, message="update in progress")
        plan.add(
            PatchService(id=service.id, spec_version=service.spec_version, update_status=status),
            f"an update of {len(progress.dirty)} slots begins",
        )
    goes_on = status is not None and status.state not in _FINISHED_STATES
    if goes_on and status is not None and _has_failed(turn, progress):
        _give_up(plan, turn, status, progress.failed_task_ids[-1], previous)
        return
    if progress.dirty:
        _update_slots(plan, turn, progress, new_id)
    elif goes_on and status is not None and progress.under_way == 0:
        _complete(plan, turn, status, progress)
    _retire_outdated(plan, turn)
    if progress.wake_at_ns is not None and (goes_on or progress.dirty):
        plan.wake(progress.wake_at_ns)


def _has_failed(turn: Turn, progress: Progress) -> bool:
    total = len(progress.dirty) + progress.updated
    if turn.config.failure_action == "continue" or not progress.failed_task_ids or not total:
        return False
    return len(progress.failed_task_ids) / total > turn.config.max_failure_ratio


def measure(turn: Turn) -> Progress:
    """Say where an update stands, from the slots of its service."""
    service, config, now_ns = turn.service, turn.config, turn.now_ns
    dirty: list[Place] = []
    failed: list[str] = []
    under_way = updated = 0
    settled_at_ns = 0
    wakes: list[int] = []
    started_at_ns = service.update_status.started_at_ns if service.update_status else now_ns
    for place, slot in sorted(turn.slots.items(), key=lambda item: str(item[0]).rjust(12, "0")):
        ours = [
            t for t in slot.tasks if t.spec_version == service.spec_version and t.meta.created_at_ns >= started_at_ns
        ]
        failed.extend(task.id for task in ours if _failed_early(task, config))
        current = [task for task in ours if task.desired_state <= TaskState.RUNNING]
        if current:
            updated += 1
            task = current[-1]
            free_at_ns = task.running_since_ns + config.delay
            if task.status.state != TaskState.RUNNING:
                under_way += 1
            elif free_at_ns > now_ns:
                under_way += 1
                wakes.append(free_at_ns)
            settled_at_ns = max(settled_at_ns, task.running_since_ns)
        elif ours:
            # its new task has ended, and the restart policy wants no other: that was this slot's update
            updated += 1
        elif any(turn.is_dirty(task) for task in slot.active or [slot.latest]):
            dirty.append(place)
    return Progress(
        dirty=tuple(dirty),
        under_way=under_way,
        failed_task_ids=tuple(failed),
        updated=updated,
        settled_at_ns=settled_at_ns,
        wake_at_ns=min(wakes, default=None),
    )


def _failed_early(task: Task, config: UpdateConfig) -> bool:
    """Whether a task of this update ended before or within the monitored time after it began to run."""
    if task.status.state not in (TaskState.FAILED, TaskState.REJECTED, TaskState.COMPLETE, TaskState.ORPHANED):
        return False
    return not task.running_since_ns or task.status.applied_at_ns - task.running_since_ns <= config.monitor


def _update_slots(plan: Plan, turn: Turn, progress: Progress, new_id: NewId) -> None:
    config = turn.config
    room = len(progress.dirty) if config.parallelism == 0 else config.parallelism - progress.under_way
    # A task that ended is replaced by the restart rule in the same plan: that is its update.
    waiting = [place for place in progress.dirty if place not in plan.created_places]
    for place in waiting[: max(0, room)]:
        slot = turn.slots[place]
        outdated = [task for task in slot.active if turn.is_dirty(task)]
        start_first = config.order == "start-first" and slot.is_running
        if len(outdated) == len(slot.active):  # else the slot has a task that is up to date: it takes over
            number = place if isinstance(place, int) else 0
            node_id = place if isinstance(place, str) else ""
            desired = TaskState.RUNNING if start_first else TaskState.READY
            plan.create(
                turn.service, new_id, turn.now_ns, desired, f"update, {config.order or 'stop-first'}", number, node_id
            )
        if not start_first:
            for task in outdated:
                plan.desire(task, TaskState.SHUTDOWN, "an update replaces it")


def _retire_outdated(plan: Plan, turn: Turn) -> None:
    """Leave one task a slot: where the newest up-to-date task runs, the others are shut down (start-first).

    In a resting slot nothing new comes: of several that run there the newest stays, also if it is outdated.
    """
    for slot in (*turn.slots.values(), *turn.resting.values()):
        if len(slot.active) < 2:
            continue
        wanted = [task for task in slot.active if plan.is_wanted(task)]
        running = [task for task in wanted if task.status.state == TaskState.RUNNING]
        current = [task for task in running if not turn.is_dirty(task)]
        if not current and slot.place in turn.resting:
            current = wanted = running
        for task in wanted if current else ():
            if task is not current[-1]:
                plan.desire(task, TaskState.SHUTDOWN, "its successor runs")


def _give_up(plan: Plan, turn: Turn, status: UpdateStatus, task_id: str, previous: ServiceSpec | None) -> None:
    """Pause, or go back to the spec before (once: a rollback that fails is paused)."""
    service = turn.service
    reason = f"due to failure or early termination of task {task_id}"
    if turn.config.failure_action == "rollback" and not turn.rollback and previous is not None:
        started = replace(status, state=UpdateState.ROLLBACK_STARTED, message=f"update rolled back {reason}")
        restored = replace(
            service,
            spec=previous,
            spec_version=service.spec_version + 1,
            previous_spec_version=0,
            update_status=started,
        )
        action = Replace(object=restored, expected_version=service.meta.version)
        plan.replace_all(action, f"task {task_id} failed: the service goes back to its spec before")
        return
    word = "rollback" if turn.rollback else "update"
    paused = UpdateStatus(
        state=UpdateState.ROLLBACK_PAUSED if turn.rollback else UpdateState.PAUSED,
        started_at_ns=status.started_at_ns,
        completed_at_ns=turn.now_ns,
        message=f"{word} paused {reason}",
    )
    plan.add(
        PatchService(id=service.id, spec_version=service.spec_version, update_status=paused),
        f"task {task_id} failed: the {word} stands still",
    )


def _complete(plan: Plan, turn: Turn, status: UpdateStatus, progress: Progress) -> None:
    """Declare the end when the last new task has been watched for the monitored time (or the delay, if longer)."""
    config, now_ns = turn.config, turn.now_ns
    if progress.updated:
        watched_ns = config.delay + SECOND_NS if config.delay >= config.monitor else config.monitor
        ends_at_ns = (progress.settled_at_ns or status.started_at_ns) + watched_ns
        if ends_at_ns > now_ns:
            plan.wake(ends_at_ns)
            return
    done = UpdateStatus(
        state=UpdateState.ROLLBACK_COMPLETED if turn.rollback else UpdateState.COMPLETED,
        started_at_ns=status.started_at_ns,
        completed_at_ns=now_ns,
        message="rollback completed" if turn.rollback else "update completed",
    )
    plan.add(
        PatchService(id=turn.service.id, spec_version=turn.service.spec_version, update_status=done),
        "every slot is up to date",
    )
