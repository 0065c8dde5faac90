"""What happens on a node, as `docker events` tells it: the last ones are kept, followers hear the next."""

from __future__ import annotations

import asyncio
from collections import deque

from shoal.lib.clock import Clock
from shoal.model.container import Container
from shoal.model.events import Event

# as Docker
EVENTS_KEPT = 256
# a follower that does not read loses the oldest beyond this
EVENTS_QUEUED_MOST = 1024


class EventFollower:
    """Hears events from now on."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=EVENTS_QUEUED_MOST)
        self._wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Take an event."""
        self._events.append(event)
        self._wake.set()

    async def wait(self) -> list[Event]:
        """Return the events since the last call, as soon as there are some."""
        await self._wake.wait()
        self._wake.clear()
        events = list(self._events)
        self._events.clear()
        return events


class NodeEvents:
    """The events of a node's containers, images and volumes; told on its event loop only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._followers: set[EventFollower] = set()

    def tell(self, container: Container, action: str, **more: str) -> None:
        """Something has happened to a container; `more`: what is told besides its image, name and labels."""
        config = container.config
        attributes = {**config.labels, **more, "image": config.image, "name": config.name}
        self._tell("container", action, container.id, attributes)

    def tell_of_image(self, action: str, image_id: str, name: str) -> None:
        """Something has happened to an image; pulls and pushes are told of the name, as Docker does."""
        self._tell("image", action, name if action in ("pull", "push") else image_id, {"name": name})

    def tell_of_volume(self, action: str, name: str, **more: str) -> None:
        """Something has happened to a volume."""
        self._tell("volume", action, name, {"driver": "local", **more})

    def _tell(self, kind: str, action: str, object_id: str, attributes: dict[str, str]) -> None:
        now_ns = self._clock.now_ns()
        event = Event(kind=kind, action=action, id=object_id, attributes=attributes, at_ns=now_ns, index=0)
        self._kept.append(event)
        for follower in self._followers:
            follower.put(event)

    def kept(self) -> tuple[Event, ...]:
        """Return the last events, oldest first."""
        return tuple(self._kept)

    def follow(self) -> EventFollower:
        """Begin to hear of events; `leave` ends it."""
        follower = EventFollower()
        self._followers.add(follower)
        return follower

    def leave(self, follower: EventFollower) -> None:
        """Hear no more."""
        self._followers.discard(follower)
