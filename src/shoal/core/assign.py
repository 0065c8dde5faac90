"""What a node is to be told: the difference between what it was sent and what the store wants of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from shoal.model.messages import Assignments
from shoal.model.objects import Revision, Task, revision_id
from shoal.model.states import TaskState


class Sent:
    """What a session has told its node: tasks by id as they were sent, and how many of them use each revision."""

    def __init__(self) -> None:
        self.sequence = 0
        self.tasks: dict[str, Task] = {}
        self.revision_uses: Counter[str] = Counter()


def belongs_to_node(task: Task) -> bool:
    """Whether a node should know of a task that was given to it: from ASSIGNED on."""
    return task.status.state >= TaskState.ASSIGNED


def diff(
    sent: Sent,
    wanted: Iterable[Task],
    revision_of: Callable[[Task], Revision],
    among: frozenset[str] | None = None,
) -> Assignments | None:
    """Return what to send so that the node knows `wanted`, and note it in `sent`; None if it knows already.

    A task's own progress does not come back to the node that reported it: only its desired state, its addresses and
    its being there count.

    Args:
        sent: what the node was told.
        wanted: the tasks given to the node.
        revision_of: gives a task's revision.
        among: the ids of all tasks that may have changed since the last call; `wanted` then holds only those of them
            that are given to the node. None: every task is looked at.
    """
    complete = sent.sequence == 0
    tasks: list[Task] = []
    revisions: dict[str, Revision] = {}
    present: set[str] = set()
    for task in wanted:
        if not belongs_to_node(task):
            continue
        present.add(task.id)
        known = sent.tasks.get(task.id)
        if known is not None and _same_for_node(known, task):
            continue
        tasks.append(task)
        sent.tasks[task.id] = task
        if known is None:
            revision = revision_of(task)
            if not sent.revision_uses[revision.id]:
                revisions[revision.id] = revision
            sent.revision_uses[revision.id] += 1
    candidates = sent.tasks.keys() if among is None else among & sent.tasks.keys()
    removed = tuple(sorted(candidates - present))
    stale: list[str] = []
    for task_id in removed:
        gone = sent.tasks.pop(task_id)
        id_ = revision_id(gone.service_id, gone.spec_version)
        sent.revision_uses[id_] -= 1
        if not sent.revision_uses[id_]:
            del sent.revision_uses[id_]
            stale.append(id_)
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
        removed_revision_ids=tuple(sorted(stale)),
    )


def _same_for_node(known: Task, task: Task) -> bool:
    return known.desired_state == task.desired_state and known.attachments == task.attachments
