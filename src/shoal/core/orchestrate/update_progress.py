"""Where a rolling update stands, from what the store shows of its slots (docker-swarm.md 4.3).

Nothing is remembered between steps: a slot waits when its task was made from another template; it is under way while
its new task does not run yet, or ran for less than the delay; it is stuck when no new task of it came to run in time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from shoal.core.defaults import update_config
from shoal.core.extensions import Extensions, parse_extensions
from shoal.core.orchestrate.phase import is_rollback, withholds
from shoal.core.orchestrate.slots import Place, RevisionOf, Slot, is_dirty
from shoal.model.base import Struct
from shoal.model.objects import Node, Service, Task
from shoal.model.specs import UpdateConfig
from shoal.model.states import TaskState

# Whether the first task could have the node, or the address, of the second, were that one gone.
FitsInstead = Callable[[Task, Task], bool]


def never_fits(_task: Task, _instead_of: Task) -> bool:
    """Answer for who knows nothing of the nodes' room."""
    return False


class Turn(Struct):
    """What one step of an update looks at: the service, its slots, and how to look further.

    `resting` slots get no new task (their node is paused or down), but a step begun there is finished: one task stays.
    """

    service: Service
    slots: Mapping[Place, Slot]
    resting: Mapping[Place, Slot]
    nodes: Mapping[str, Node]
    revision_of: RevisionOf
    now_ns: int
    fits_instead: FitsInstead
    config: UpdateConfig
    extensions: Extensions
    rollback: bool

    def is_dirty(self, task: Task) -> bool:
        """Whether a task is outdated."""
        return is_dirty(task, self.service, self.revision_of, self.nodes.get(task.node_id))

    @property
    def word(self) -> str:
        """What it is called in messages."""
        return "rollback" if self.rollback else "update"


def make_turn(
    service: Service,
    slots: Mapping[Place, Slot],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    fits_instead: FitsInstead,
    resting: Mapping[Place, Slot] | None = None,
) -> Turn:
    """Return what a step looks at, with the settings that hold for it: a rollback has its own."""
    rollback = is_rollback(service)
    return Turn(
        service=service,
        slots=slots,
        resting=resting or {},
        nodes=nodes,
        revision_of=revision_of,
        now_ns=now_ns,
        fits_instead=fits_instead,
        config=update_config(service.spec, rollback),
        extensions=parse_extensions(service.spec.labels),
        rollback=rollback,
    )


class Progress(Struct):
    """Where an update stands.

    `dirty`: places that wait for their turn. `under_way`: how many are at work. `updated`: how many had their turn.
    `waiting`: how many need no update and do not run (yet).
    `failed`: tasks of this update that ended early. `stuck`: one task of each place where none came to run in time.
    `lacking`: how many places had their turn and have nothing up to date that runs, stuck ones not counted.
    `settled_at_ns`: when the last new task began to run, 0: none did. `wake_at_ns`: when to look again.
    """

    dirty: tuple[Place, ...]
    under_way: int
    waiting: int
    updated: int
    failed: tuple[Task, ...]
    stuck: tuple[Task, ...]
    lacking: int
    settled_at_ns: int
    wake_at_ns: int | None

    @property
    def total(self) -> int:
        """The places that this update concerns; one at least, to be divided by."""
        return max(1, len(self.dirty) + self.updated)


class _Tally:
    """Progress being counted."""

    def __init__(self, turn: Turn) -> None:
        status = turn.service.update_status
        self.turn = turn
        self.started_at_ns = status.started_at_ns if status else turn.now_ns
        self.dirty: list[Place] = []
        self.under_way = self.waiting = self.updated = self.lacking = self.settled_at_ns = 0
        self.failed: list[Task] = []
        self.stuck: list[Task] = []
        self.wakes: list[int] = []

    def add(self, place: Place, slot: Slot) -> None:
        turn, version = self.turn, self.turn.service.spec_version
        # where the old ones run on until all traffic goes over, only the new ones say where the update stands
        fresh = [task for task in slot.active if not turn.is_dirty(task)] if withholds(turn.service) else []
        active = fresh or slot.active
        ours = [t for t in slot.tasks if t.spec_version == version and t.meta.created_at_ns >= self.started_at_ns]
        early = [task for task in ours if ended_early(task, self.turn.config)]
        self.failed.extend(early)
        current = [task for task in ours if task.is_wanted]
        if current:
            self.updated += 1
            self._add_new(ours, current[-1])
        elif ours:
            # its new task has ended, and the restart policy wants no other: that was this slot's update
            self.updated += 1
            self.lacking += bool(early)
        elif any(turn.is_dirty(task) for task in active or [slot.latest]):
            self.dirty.append(place)
        elif active and not any(task.status.state == TaskState.RUNNING for task in active):
            # what it has is up to date; the end waits for it all the same
            self.waiting += self._is_in_time(active[-1], self.started_at_ns)

    def _add_new(self, ours: list[Task], task: Task) -> None:
        if task.status.state == TaskState.RUNNING:
            free_at_ns = task.running_since_ns + self.turn.config.delay
            if free_at_ns > self.turn.now_ns:
                self.under_way += 1
                self.wakes.append(free_at_ns)
            self.settled_at_ns = max(self.settled_at_ns, task.running_since_ns)
        elif any(earlier.running_since_ns for earlier in ours):
            self.under_way += 1  # one has run: what comes now is a restart, and counts as a failure if it was early
        else:
            self.under_way += self._is_in_time(task)

    def _is_in_time(self, task: Task, since_ns: int = 0) -> bool:
        """Whether a task may still come to run; else it is noted as stuck."""
        tried_since_ns = max(since_ns, task.trying_since_ns or task.meta.created_at_ns)
        due_at_ns = tried_since_ns + self.turn.extensions.progress_deadline_ns
        if due_at_ns <= self.turn.now_ns:
            self.stuck.append(task)
            return False
        self.wakes.append(due_at_ns)
        return True


def measure(turn: Turn) -> Progress:
    """Say where an update stands, from the slots of its service."""
    tally = _Tally(turn)
    for place, slot in sorted(turn.slots.items(), key=lambda item: str(item[0]).rjust(12, "0")):
        tally.add(place, slot)
    return Progress(
        dirty=tuple(tally.dirty),
        under_way=tally.under_way,
        waiting=tally.waiting,
        updated=tally.updated,
        failed=tuple(tally.failed),
        stuck=tuple(tally.stuck),
        lacking=tally.lacking,
        settled_at_ns=tally.settled_at_ns,
        wake_at_ns=min(tally.wakes, default=None),
    )


def has_ended_by_itself(task: Task) -> bool:
    """Whether a task came to an end that nobody asked for."""
    return task.status.state in (TaskState.FAILED, TaskState.REJECTED, TaskState.COMPLETE, TaskState.ORPHANED)


def ended_early(task: Task, config: UpdateConfig) -> bool:
    """Whether a task ended before or within the monitored time after it began to run."""
    if not has_ended_by_itself(task):
        return False
    return not task.running_since_ns or task.status.applied_at_ns - task.running_since_ns <= config.monitor
