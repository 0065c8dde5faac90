"""What a node is to be told: the difference between what it was sent and what the store wants of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from shoal.core.payload_versions import config_key, secret_key
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.messages import Assignments
from shoal.model.objects import Config, Revision, Secret, Task, revision_id
from shoal.model.states import TaskState

Payload = TypeVar("Payload", Secret, Config)


class Sent:
    """What a session has told its node: tasks by id as they were sent, and how many of them use what else was sent."""

    def __init__(self) -> None:
        self.sequence = 0
        self.tasks: dict[str, Task] = {}
        self.revision_uses: Counter[str] = Counter()
        # secrets and configs are needed by revisions, those by tasks: ids by revision
        self.secret_ids: dict[str, tuple[str, ...]] = {}
        self.config_ids: dict[str, tuple[str, ...]] = {}
        self.secret_uses: Counter[str] = Counter()
        self.config_uses: Counter[str] = Counter()


def belongs_to_node(task: Task) -> bool:
    """Whether a node should know of a task that was given to it: from ASSIGNED on."""
    return task.status.state >= TaskState.ASSIGNED


def diff(
    sent: Sent,
    wanted: Iterable[Task],
    revision_of: Callable[[Task], Revision],
    among: frozenset[str] | None = None,
    *,
    secret_of: Callable[[str], Secret | None] = lambda _id: None,
    config_of: Callable[[str], Config | None] = lambda _id: None,
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
        secret_of: gives a version of a secret by its id on nodes, None if there is none (any more).
        config_of: the same for configs.
    """
    complete = sent.sequence == 0
    tasks: list[Task] = []
    revisions: list[Revision] = []
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
                revisions.append(revision)
            sent.revision_uses[revision.id] += 1
    candidates = sent.tasks.keys() if among is None else among & sent.tasks.keys()
    removed = tuple(sorted(candidates - present))
    stale = _stale_revisions(sent, removed)
    if not complete and not tasks and not removed:
        return None
    applies_to, sent.sequence = sent.sequence, sent.sequence + 1
    message = Assignments(
        sequence=sent.sequence,
        applies_to=applies_to,
        complete=complete,
        tasks=tuple(tasks),
        removed_task_ids=removed,
        revisions=tuple(revisions),
        removed_revision_ids=tuple(sorted(stale)),
    )
    return _with_payloads(sent, message, secret_of, config_of)


def _with_payloads(
    sent: Sent,
    message: Assignments,
    secret_of: Callable[[str], Secret | None],
    config_of: Callable[[str], Config | None],
) -> Assignments:
    """Return `message` with the secrets and configs that its revisions need, and those no longer needed."""
    containers = {each.id: each.spec.task_template.container_spec for each in message.revisions}
    needed_secrets = {id_: _secret_ids(container) for id_, container in containers.items()}
    needed_configs = {id_: _config_ids(container) for id_, container in containers.items()}
    stale = message.removed_revision_ids
    new_secrets, old_secrets = _count(sent.secret_ids, sent.secret_uses, needed_secrets, stale)
    new_configs, old_configs = _count(sent.config_ids, sent.config_uses, needed_configs, stale)
    return replace(
        message,
        secrets=_found(new_secrets, secret_of),
        configs=_found(new_configs, config_of),
        removed_secret_ids=old_secrets,
        removed_config_ids=old_configs,
    )


def _stale_revisions(sent: Sent, removed: tuple[str, ...]) -> list[str]:
    """Forget the tasks `removed`; return the revisions that none uses any more."""
    stale: list[str] = []
    for task_id in removed:
        gone = sent.tasks.pop(task_id)
        id_ = revision_id(gone.service_id, gone.spec_version)
        sent.revision_uses[id_] -= 1
        if not sent.revision_uses[id_]:
            del sent.revision_uses[id_]
            stale.append(id_)
    return stale


def _count(
    held: dict[str, tuple[str, ...]], uses: Counter[str], added: dict[str, tuple[str, ...]], stale: Iterable[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Note what revisions need; return the ids that are needed from now on, and those that no longer are.

    A revision that comes and goes in one message counts once each way.
    """
    before = frozenset(uses)
    for revision, ids in added.items():
        held[revision] = ids
        uses.update(ids)
    for revision in stale:
        uses.subtract(held.pop(revision, ()))
    for id_ in [id_ for id_, count in uses.items() if not count]:
        del uses[id_]
    return [id_ for id_ in uses if id_ not in before], tuple(sorted(before - uses.keys()))


def _found(ids: Iterable[str], payload_of: Callable[[str], Payload | None]) -> tuple[Payload, ...]:
    """Return what is there of `ids`: a node that lacks one refuses the task and says so."""
    return tuple(payload for payload in map(payload_of, ids) if payload is not None)


def _secret_ids(container: ContainerSpec | None) -> tuple[str, ...]:
    return tuple({secret_key(each): None for each in container.secrets}) if container is not None else ()


def _config_ids(container: ContainerSpec | None) -> tuple[str, ...]:
    return tuple({config_key(each): None for each in container.configs}) if container is not None else ()


def _same_for_node(known: Task, task: Task) -> bool:
    return known.desired_state == task.desired_state and known.attachments == task.attachments
