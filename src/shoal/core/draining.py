"""How long a task that nobody is balanced to any more is left to finish what it has begun. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.extensions import parse_extensions
from shoal.model.netstate import Connection
from shoal.model.objects import Task
from shoal.model.specs import ServiceSpec

# a connection that is kept open between requests says nothing of being used again
IDLE_MS = 500


def drain_seconds(spec: ServiceSpec, task: Task) -> float:
    """Return how long a task may drain at most: nothing balances to one without an address of the swarm."""
    if not any(attachment.addresses for attachment in task.attachments):
        return 0.0
    return parse_extensions(spec.labels).drain_ns / 1e9


def is_active(connection: Connection) -> bool:
    """Whether something goes on: a request that has no answer yet, or traffic within the last half second."""
    # the kernel's times are of a few milliseconds: what came with the connection looks as old as the connection
    said_nothing = connection.acknowledged_bytes <= 1
    unanswered = connection.received_bytes > 0 and (
        said_nothing or connection.since_received_ms < connection.since_sent_ms
    )
    return unanswered or min(connection.since_received_ms, connection.since_sent_ms) < IDLE_MS


def any_active(connections: Iterable[Connection]) -> bool:
    """Whether any connection is in use."""
    return any(map(is_active, connections))
