"""What a node is to be told: the difference between what it was sent and what the store wants of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.model.messages import Assignments
from shoal.model.objects import Revision, Task
from shoal.model.states import TaskState


class Sent:
    """What a session has told its node: tasks by id as they were sent, and the revisions it holds."""

    def __init__(self) -> None:
        self.sequence = 0
        self.tasks: dict[str, Task] = {}
        self.revision_ids: set[str] = set()


def belongs_to_node(task: Task) -> bool:
    """Whether a node should know of a task that was given to it: from ASSIGNED on."""
    return task.status.state >= TaskState.ASSIGNED


def diff(sent: Sent, wanted: Iterable[Task], revision_of: Callable[[Task], Revision]) -> Assignments | None:
    """Return what to send so that the node knows `wanted`, and note it in `sent`; None if it knows already.

    A task's own progress does not come back to the node that reported it: only its desired state, its addresses and
    its being there count.
    """
    complete = sent.sequence == 0
    tasks: list[Task] = []
    revisions: dict[str, Revision] = {}
    present: set[str] = set()
    needed_revisions: set[str] = set()
    for task in wanted:
        if not belongs_to_node(task):
            continue
        present.add(task.id)
        revision = revision_of(task)
        needed_revisions.add(revision.id)
        known = sent.tasks.get(task.id)
        if known is not None and _same_for_node(known, task):
            continue
        tasks.append(task)
        sent.tasks[task.id] = task
        if revision.id not in sent.revision_ids:
            revisions[revision.id] = revision
    removed = tuple(sorted(set(sent.tasks) - present))
    for task_id in removed:
        del sent.tasks[task_id]
    stale = tuple(sorted(sent.revision_ids - needed_revisions))
    sent.revision_ids = needed_revisions
    if not complete and not tasks and not removed:
        return None
    applies_to, sent.sequence = sent.sequence, sent.sequence + 1
    return Assignments(
        sequence=sent.sequence,
        applies_to=applies_to,
        complete=complete,
        tasks=tuple(tasks),
        removed_task_ids=removed,
        revisions=tuple(revisions.values()),
        removed_revision_ids=stale,
    )


def _same_for_node(known: Task, task: Task) -> bool:
    return known.desired_state == task.desired_state and known.attachments == task.attachments
