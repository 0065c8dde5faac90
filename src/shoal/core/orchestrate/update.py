"""Rolling updates and rollbacks, step by step from what the store shows (docker-swarm.md 4.3).

What Docker has not: a new task is prepared (READY) before the one it replaces is told to stop, so that a missing image
costs no replica; where the two have no room beside each other, the old one stops first; a slot whose tasks do not come
to run in time counts as failed; the end is declared when enough tasks run; a canary waits for its promotion.
"""

from __future__ import annotations

from shoal.core.defaults import SECOND_NS
from shoal.core.extensions import BLUE_GREEN, DEFAULTS, PROGRESS_DEADLINE
from shoal.core.orchestrate import blue_green
from shoal.core.orchestrate.moves import is_guest
from shoal.core.orchestrate.phase import FINISHED_STATES, awaits_promotion, is_canary_phase, stands_still, withholds
from shoal.core.orchestrate.plan import NewId, Plan
from shoal.core.orchestrate.slots import Slot
from shoal.core.orchestrate.update_progress import Progress, Turn, has_ended_by_itself, measure
from shoal.model.actions import PatchService, PatchTask, Replace
from shoal.model.base import replace
from shoal.model.objects import Task, UpdateStatus
from shoal.model.specs import ServiceSpec
from shoal.model.states import Promotion, TaskState, UpdateState

STARTED_MESSAGE = "update in progress"
PROMOTED_MESSAGE = "update in progress: the canary was promoted"


def plan_failure(plan: Plan, turn: Turn, previous: ServiceSpec | None) -> bool:
    """Pause an update that has failed, or go back to `previous` (None: there is none); whether it has come to that.

    It is then all that the plan does: what follows is planned from the state this leads to.
    """
    status = turn.service.update_status
    if status is None or status.state in FINISHED_STATES:
        return False
    if awaits_promotion(turn.service):
        return _plan_canary_failure(plan, turn, status, previous)
    if stands_still(turn.service):
        return False
    progress = measure(turn)
    bad = len(progress.failed) + len(progress.stuck)
    if turn.config.failure_action == "continue" or not bad or bad / progress.total <= turn.config.max_failure_ratio:
        return False
    reason = _reason(progress.failed[-1]) if progress.failed else _stuck_reason(turn, progress.stuck[-1])
    _give_up(plan, turn, status, reason, previous)
    return True


def plan_update(plan: Plan, turn: Turn, new_id: NewId) -> None:
    """Add to `plan` what the next step of an update needs; nothing if the service is as it should be.

    Slots that become outdated after the end of an update (a node that was paused) are updated without a new status.
    """
    service, status = turn.service, turn.service.update_status
    if status is not None and stands_still(service):
        if not withholds(service):
            _retire_outdated(plan, turn)
            _stand_still(plan, turn)
        elif not awaits_promotion(service):
            blue_green.give_up(plan, turn)
        if status.promotion == Promotion.AWAITED:
            _promote_when_due(plan, turn, status)
        return
    blue_green.tidy(plan, turn)
    progress = measure(turn)
    if status is None and (progress.dirty or blue_green.is_ahead(turn)):
        status = UpdateStatus(state=UpdateState.UPDATING, started_at_ns=turn.now_ns, message=STARTED_MESSAGE)
        _write(plan, turn, status, f"an update of {len(progress.dirty)} slots begins")
    room = _room(turn, progress)
    goes_on = status is not None and status.state not in FINISHED_STATES
    if progress.dirty and room:
        _update_slots(plan, turn, progress, room, new_id)
    elif goes_on and status is not None and progress.under_way + progress.waiting == 0:
        _conclude(plan, turn, status, progress)
    # what is withheld from traffic takes nobody's place
    no_room = "" if withholds(service) else _hand_over(plan, turn)
    if no_room and goes_on and status is not None:
        message = f"{turn.word} in progress: {no_room}"
        if message != status.message:
            _write(plan, turn, replace(status, message=message), no_room)
    if not withholds(service):
        _retire_outdated(plan, turn)
    if progress.wake_at_ns is not None and (goes_on or progress.dirty):
        plan.wake(progress.wake_at_ns)


def _write(plan: Plan, turn: Turn, status: UpdateStatus, why: str) -> None:
    service = turn.service
    plan.add(PatchService(id=service.id, spec_version=service.spec_version, update_status=status), why)


def _room(turn: Turn, progress: Progress) -> int:
    """Return how many more slots may be updated now: up to the parallelism, and no more than canaries at first."""
    waiting, parallelism = len(progress.dirty), turn.config.parallelism
    room = waiting if parallelism == 0 or withholds(turn.service) else parallelism - progress.under_way
    canary = turn.extensions.canary
    if canary is not None and not turn.rollback and is_canary_phase(turn.service):
        total = len(turn.slots)
        room = min(room, canary.slots_of(total) - (total - waiting))
    return max(0, room)


def _update_slots(plan: Plan, turn: Turn, progress: Progress, room: int, new_id: NewId) -> None:
    # A task that ended is replaced by the restart rule in the same plan: that is its update.
    waiting = [place for place in progress.dirty if place not in plan.created_places]
    withheld = withholds(turn.service)
    order = BLUE_GREEN if withheld else turn.config.order or "stop-first"
    for place in waiting[:room]:
        slot = turn.slots[place]
        outdated = [task for task in slot.active if turn.is_dirty(task)]
        if len(outdated) == len(slot.active):  # else the slot has a task that is up to date: it takes over
            number = place if isinstance(place, int) else 0
            node_id = place if isinstance(place, str) else ""
            at_once = withheld or (order == "start-first" and slot.is_running)
            desired = TaskState.RUNNING if at_once else TaskState.READY
            plan.create(
                turn.service, new_id, turn.now_ns, desired, f"update, {order}", number, node_id, withheld=withheld
            )
        if not slot.is_running and not withheld:
            for task in outdated:
                plan.desire(task, TaskState.SHUTDOWN, "an update replaces it")


def _hand_over(plan: Plan, turn: Turn) -> str:
    """Tell outdated tasks to stop when their successor is prepared (stop-first), or has no room beside them.

    Returns a text about a slot that had no room, empty if all had.
    """
    told = ""
    for slot in turn.slots.values():
        wanted = [task for task in slot.active if plan.is_wanted(task)] if len(slot.active) > 1 else []
        outdated = [task for task in wanted if turn.is_dirty(task)]
        successors = [task for task in wanted if task not in outdated]
        if not outdated or not successors:
            continue
        new, why = successors[-1], ""
        if turn.config.order != "start-first" and TaskState.READY <= new.status.state < TaskState.RUNNING:
            why = "its successor is prepared"
        elif (leaving := _leaves_room(turn, new, outdated)) is not None:
            if new.pull_node_id != leaving.node_id:
                # a missing image must be known of before a replica is given up for it
                plan.add(PatchTask(id=new.id, pull_node_id=leaving.node_id), f"{_place_text(slot)}: pull its image")
            if new.pull_node_id != leaving.node_id or not new.pulled:
                continue
            why = "its successor has no room beside it"
            told = f"{_place_text(slot)} stops its old task first, the new one has no room beside it: {new.status.err}"
        for task in outdated if why else ():
            plan.desire(task, TaskState.SHUTDOWN, why)
    return told


def _leaves_room(turn: Turn, new: Task, outdated: list[Task]) -> Task | None:
    """Return the replaced task whose address or node a task could have that has none to get beside it."""
    lacks_something = new.status.state <= TaskState.PENDING and bool(new.status.err)
    return next((old for old in outdated if turn.fits_instead(new, old)), None) if lacks_something else None


def _place_text(slot: Slot) -> str:
    return f"slot {slot.place}" if isinstance(slot.place, int) else f"node {slot.place}"


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
            if task is not current[-1] and not is_guest(task, slot):
                plan.desire(task, TaskState.SHUTDOWN, "its successor runs")


def _stand_still(plan: Plan, turn: Turn) -> None:
    """Let the outdated task that runs keep its slot: what was to replace it is given up until another update."""
    for slot in turn.slots.values():
        wanted = [task for task in slot.active if plan.is_wanted(task)] if len(slot.active) > 1 else []
        running = [task for task in wanted if task.status.state == TaskState.RUNNING]
        for task in wanted if running else ():
            if task is not running[-1]:
                plan.desire(task, TaskState.SHUTDOWN, f"the {turn.word} stands still")


def _reason(task: Task) -> str:
    return f"due to failure or early termination of task {task.id}"


def _stuck_reason(turn: Turn, task: Task) -> str:
    cause = task.status.err or f"it is {task.status.state.word}"
    deadline = turn.service.spec.labels.get(PROGRESS_DEADLINE, DEFAULTS[PROGRESS_DEADLINE])
    return f"because task {task.id} did not come to run within {deadline}: {cause}"


def _give_up(plan: Plan, turn: Turn, status: UpdateStatus, reason: str, previous: ServiceSpec | None) -> None:
    """Pause, or go back to the spec before (once: a rollback that fails is paused)."""
    service = turn.service
    if turn.config.failure_action == "rollback" and not turn.rollback and previous is not None:
        started = UpdateStatus(
            state=UpdateState.ROLLBACK_STARTED,
            started_at_ns=status.started_at_ns,
            message=f"update rolled back {reason}",
        )
        restored = replace(
            service,
            spec=previous,
            spec_version=service.spec_version + 1,
            previous_spec_version=0,
            update_status=started,
        )
        action = Replace(object=restored, expected_version=service.meta.version)
        plan.replace_all(action, f"the service goes back to its spec before, {reason}")
        return
    _pause(plan, turn, status, reason)


def _pause(plan: Plan, turn: Turn, status: UpdateStatus, reason: str) -> None:
    paused = UpdateStatus(
        state=UpdateState.ROLLBACK_PAUSED if turn.rollback else UpdateState.PAUSED,
        started_at_ns=status.started_at_ns,
        completed_at_ns=turn.now_ns,
        message=f"{turn.word} paused {reason}",
    )
    action = PatchService(id=turn.service.id, spec_version=turn.service.spec_version, update_status=paused)
    plan.replace_all(action, f"the {turn.word} stands still {reason}")


def _conclude(plan: Plan, turn: Turn, status: UpdateStatus, progress: Progress) -> None:
    """End an update whose slots have all had their turn: complete, short of running tasks, or awaiting its promotion.

    The last new task is watched for the monitored time before (or for the delay, if that is longer).
    """
    config, now_ns = turn.config, turn.now_ns
    if progress.updated:
        watched_ns = config.delay + SECOND_NS if config.delay >= config.monitor else config.monitor
        ends_at_ns = (progress.settled_at_ns or status.started_at_ns) + watched_ns
        if ends_at_ns > now_ns:
            plan.wake(ends_at_ns)
            return
    short = progress.lacking + len(progress.stuck)
    if short > config.max_failure_ratio * progress.total:
        last = progress.stuck or progress.failed
        cause = last[-1].status.err or f"it is {last[-1].status.state.word}"
        _pause(plan, turn, status, f"because {short} of {progress.total} slots run no new task; {last[-1].id}: {cause}")
        return
    if progress.dirty or _is_whole_canary(turn):
        _await_promotion(plan, turn, status, len(progress.dirty))
        return
    done = UpdateStatus(
        state=UpdateState.ROLLBACK_COMPLETED if turn.rollback else UpdateState.COMPLETED,
        started_at_ns=status.started_at_ns,
        completed_at_ns=now_ns,
        message=f"{turn.word} completed",
    )
    if withholds(turn.service):
        blue_green.switch(plan, turn, done)
    else:
        _write(plan, turn, done, "every slot is up to date")


def _is_whole_canary(turn: Turn) -> bool:
    return turn.extensions.canary is not None and not turn.rollback and is_canary_phase(turn.service)


def _await_promotion(plan: Plan, turn: Turn, status: UpdateStatus, left: int) -> None:
    name, total = turn.service.spec.name, len(turn.slots)
    where = "have new tasks that take no traffic yet" if withholds(turn.service) else "are updated"
    awaiting = UpdateStatus(
        state=UpdateState.PAUSED,
        started_at_ns=status.started_at_ns,
        completed_at_ns=turn.now_ns,
        message=f"awaiting promotion: {total - left} of {total} slots {where}; go on with `shoal service promote "
        f"{name}` or back with `shoal service rollback {name}`",
        promotion=Promotion.AWAITED,
    )
    _write(plan, turn, awaiting, "the canaries run")
    if turn.extensions.promote_after_ns:
        plan.wake(turn.now_ns + turn.extensions.promote_after_ns)


def _plan_canary_failure(plan: Plan, turn: Turn, status: UpdateStatus, previous: ServiceSpec | None) -> bool:
    """Answer a canary that fails while the promotion is awaited: go back, or do not promote by itself any more."""
    version, since_ns = turn.service.spec_version, status.completed_at_ns
    failed = [
        task
        for slot in turn.slots.values()
        for task in slot.tasks
        if task.spec_version == version and has_ended_by_itself(task) and task.status.applied_at_ns > since_ns
    ]
    goes_back = turn.config.failure_action == "rollback" and previous is not None
    if not failed or (status.promotion == Promotion.HELD and not goes_back):
        return False
    if goes_back:
        _give_up(plan, turn, status, _reason(failed[-1]), previous)
        return True
    held = replace(
        status, promotion=Promotion.HELD, message=f"{status.message}; not promoted by itself {_reason(failed[-1])}"
    )
    action = PatchService(id=turn.service.id, spec_version=version, update_status=held)
    plan.replace_all(action, f"no promotion by itself {_reason(failed[-1])}")
    return True


def _promote_when_due(plan: Plan, turn: Turn, status: UpdateStatus) -> None:
    after_ns = turn.extensions.promote_after_ns
    if not after_ns:
        return
    due_at_ns = status.completed_at_ns + after_ns
    if due_at_ns > turn.now_ns:
        plan.wake(due_at_ns)
        return
    _write(plan, turn, promoted(turn.now_ns), "the canaries ran long enough without failure")


def promoted(now_ns: int) -> UpdateStatus:
    """Return the status of an update whose canary was promoted: what failed before is judged and done with."""
    return UpdateStatus(
        state=UpdateState.UPDATING, started_at_ns=now_ns, message=PROMOTED_MESSAGE, promotion=Promotion.GIVEN
    )
