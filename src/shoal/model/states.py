"""The states of tasks and nodes, as numbers and words of Docker Swarm (docker-swarm.md 4.1, 4.8)."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class TaskState(IntEnum):
    """State of a task, observed or desired. The order is the order of life: a task never goes back."""

    NEW = 0
    PENDING = 64
    ASSIGNED = 192
    ACCEPTED = 256
    PREPARING = 320
    READY = 384
    STARTING = 448
    RUNNING = 512
    COMPLETE = 576
    SHUTDOWN = 640
    FAILED = 704
    REJECTED = 768
    REMOVE = 800
    ORPHANED = 832

    @property
    def word(self) -> str:
        """The state as Docker's API writes it."""
        return self.name.lower()

    @property
    def is_terminal(self) -> bool:
        """Whether a task observed in this state has ended for good."""
        return self > TaskState.RUNNING


TASK_STATE_BY_WORD = {state.word: state for state in TaskState}


class NodeState(StrEnum):
    """Whether a node is reachable."""

    UNKNOWN = "unknown"
    DOWN = "down"
    READY = "ready"
    DISCONNECTED = "disconnected"


class Availability(StrEnum):
    """What the operator allows a node to do."""

    ACTIVE = "active"
    PAUSE = "pause"
    DRAIN = "drain"


class Role(StrEnum):
    """What a node is for."""

    WORKER = "worker"
    MANAGER = "manager"


class UpdateState(StrEnum):
    """Where a rolling update stands."""

    UPDATING = "updating"
    PAUSED = "paused"
    COMPLETED = "completed"
    ROLLBACK_STARTED = "rollback_started"
    ROLLBACK_PAUSED = "rollback_paused"
    ROLLBACK_COMPLETED = "rollback_completed"


class Promotion(StrEnum):
    """Whether an update with a canary may go on to the rest (shoal.update.canary)."""

    NONE = ""
    AWAITED = "awaited"
    # awaited, and not given by itself any more: a canary failed
    HELD = "held"
    GIVEN = "given"


class LocalNodeState(StrEnum):
    """How a daemon stands to a swarm."""

    INACTIVE = "inactive"
    PENDING = "pending"
    ACTIVE = "active"
    ERROR = "error"
    LOCKED = "locked"
