"""What a log entry says: actions on the store, each with its preconditions (architecture.md 4.3).

Preconditions are judged when the entry is applied, alike on every member: an entry applies whole or not at all.
Patches carry only what changes; those of tasks are forward-only, so two loops that write about one task at the same
time do not undo each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.model.base import Struct
from shoal.model.objects import (
    Attachment,
    Endpoint,
    JobStatus,
    ManagerStatus,
    NodeDescription,
    NodeStatus,
    StoreObject,
    TaskStatus,
    UpdateStatus,
)
from shoal.model.specs import GenericResource
from shoal.model.states import TaskState

LOG_FORMAT = 1
# the feature level of blue-green updates
SWITCHING_LEVEL = 2


class Create(Struct, tag="create"):
    """Put a new object. Fails if its id exists, its name is taken, or a port or address of it is in use."""

    object: StoreObject


class Replace(Struct, tag="replace"):
    """Put an object over the one of version `expected_version`; None replaces whatever version is there."""

    object: StoreObject
    expected_version: int | None = None


class Remove(Struct, tag="remove"):
    """Take an object out; an absent one is a failure if it `must_exist` or a version is expected."""

    kind: str
    id: str
    expected_version: int | None = None
    must_exist: bool = False


class PatchTask(Struct, tag="patch-task"):
    """Move a task forward; a state below the present one is ignored, and so is a task that is gone.

    `node_id` is set once: a task that has a node keeps it. Another `pull_node_id` has not pulled yet. An address in use
    elsewhere fails the entry.
    """

    id: str
    desired_state: TaskState | None = None
    status: TaskStatus | None = None
    node_id: str | None = None
    attachments: tuple[Attachment, ...] | None = None
    generic_resources: tuple[GenericResource, ...] | None = None
    pull_node_id: str | None = None
    pulled: bool = False


class PatchService(Struct, tag="patch-service"):
    """Write what managers decide about a service, for the spec of `spec_version` only: a newer spec ignores it.

    With `update_status` set to None and `clear_update_status` the status is taken away.
    """

    id: str
    spec_version: int
    endpoint: Endpoint | None = None
    update_status: UpdateStatus | None = None
    clear_update_status: bool = False
    job_status: JobStatus | None = None
    rebalancing: bool | None = None


class SwitchTraffic(Struct, tag="switch-traffic"):
    """Give traffic to tasks that were withheld from it, and stop those that had it: one action, so at one index.

    For the spec of `spec_version` only: a newer spec ignores it. Tasks that are gone are ignored.
    """

    service_id: str
    spec_version: int
    released_task_ids: tuple[str, ...]
    stopped_task_ids: tuple[str, ...] = ()
    update_status: UpdateStatus | None = None


class PatchNode(Struct, tag="patch-node"):
    """Write what the dispatcher saw of a node, or which raft member runs on it; a node that is gone is ignored.

    With `clear_manager_status` no member runs on it any more.
    """

    id: str
    status: NodeStatus | None = None
    description: NodeDescription | None = None
    manager_status: ManagerStatus | None = None
    clear_manager_status: bool = False


Action = Create | Replace | Remove | PatchTask | PatchService | SwitchTraffic | PatchNode


class LogEntry(Struct):
    """One entry of the raft log: time, ids and random values stand in it, applying reads no clock."""

    actions: tuple[Action, ...]
    at_ns: int
    actor: str = ""
    format: int = LOG_FORMAT
    feature_level: int = 1


def feature_level_of(actions: Iterable[Action]) -> int:
    """Return the feature level that a member must know to apply `actions`."""
    return SWITCHING_LEVEL if any(isinstance(action, SwitchTraffic) for action in actions) else 1
