"""What happened in the swarm, as `docker events --filter scope=swarm` tells it."""

from __future__ import annotations

from shoal.model.base import Struct


class Event(Struct):
    """One event: `kind` is node, service, network, secret or config; `action` is create, update or remove.

    `actor` is who asked for it (empty: the swarm itself); `index` the log entry it came with.
    """

    kind: str
    action: str
    id: str
    attributes: dict[str, str]
    at_ns: int
    index: int
    actor: str = ""
