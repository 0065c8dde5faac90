"""Events, derived from what an entry changed: the same on every member, kept in a bounded ring.

Attributes are Docker's (docker-swarm.md 2.4): the name, and what changed as `.old` and `.new`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from shoal.model.events import Event
from shoal.model.objects import Config, Network, Node, Secret, Service, StoreObject
from shoal.store.apply import Change

EVENTS_KEPT = 1000


class EventRing:
    """The last `EVENTS_KEPT` events; part of every snapshot."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self._events: deque[Event] = deque(events, maxlen=EVENTS_KEPT)

    def append(self, events: Iterable[Event]) -> None:
        """Add events, dropping the oldest beyond the bound."""
        self._events.extend(events)

    def all(self) -> tuple[Event, ...]:
        """Return the events held, oldest first."""
        return tuple(self._events)


def events_of(changes: Iterable[Change], at_ns: int, index: int, actor: str) -> tuple[Event, ...]:
    """Return the events that the changes of one entry amount to; tasks and revisions have none."""
    events: list[Event] = []
    for change in changes:
        value = change.new or change.old
        if not isinstance(value, Node | Service | Network | Secret | Config):
            continue
        action = "create" if change.old is None else "remove" if change.new is None else "update"
        attributes = {"name": _name(value)}
        if change.old is not None and change.new is not None:
            differing = _differences(change.old, change.new)
            if not differing and not actor:
                # a loop's own bookkeeping, such as the address of a service: nobody asked, and Docker is silent, too
                continue
            attributes |= differing
        events.append(
            Event(
                kind=change.kind,
                action=action,
                id=change.id,
                attributes=attributes,
                at_ns=at_ns,
                index=index,
                actor=actor,
            )
        )
    return tuple(events)


def _name(value: Node | Service | Network | Secret | Config) -> str:
    return value.description.hostname if isinstance(value, Node) else value.spec.name


def _differences(old: StoreObject, new: StoreObject) -> dict[str, str]:
    pairs: list[tuple[str, str, str]] = []
    if isinstance(old, Node) and isinstance(new, Node):
        pairs = [
            ("availability", old.spec.availability, new.spec.availability),
            ("role", old.spec.role, new.spec.role),
            ("state", old.status.state, new.status.state),
        ]
    elif isinstance(old, Service) and isinstance(new, Service):
        pairs = [
            ("image", _image(old), _image(new)),
            ("replicas", _replicas(old), _replicas(new)),
            ("updatestate", _update_state(old), _update_state(new)),
        ]
    differences: dict[str, str] = {}
    for name, before, after in pairs:
        if before != after:
            if before:
                differences[f"{name}.old"] = before
            differences[f"{name}.new"] = after
    return differences


def _image(service: Service) -> str:
    container = service.spec.task_template.container_spec
    return container.image if container else ""


def _replicas(service: Service) -> str:
    replicated = service.spec.mode.replicated
    return "" if replicated is None or replicated.replicas is None else str(replicated.replicas)


def _update_state(service: Service) -> str:
    return service.update_status.state if service.update_status else ""
