"""The change feed: a bounded ring that loops follow at their own pace; who is too slow gets a gap and rebuilds."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from shoal.model.base import Struct
from shoal.store.apply import Change

CHANGES_KEPT = 20_000


class Batch(Struct):
    """What a follower missed. After a `gap` the changes are incomplete: read the whole view anew."""

    changes: tuple[Change, ...]
    gap: bool = False


class Feed:
    """The ring. One writer (applying), many followers, all on the loop's thread."""

    def __init__(self, changes_kept: int = CHANGES_KEPT) -> None:
        self._ring: deque[Change] = deque(maxlen=changes_kept)
        self._written = 0
        self._generation = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def publish(self, changes: Iterable[Change]) -> None:
        """Add changes and wake the followers."""
        before = self._written
        for change in changes:
            self._ring.append(change)
            self._written += 1
        if self._written != before:
            self._wake()

    def invalidate(self) -> None:
        """Give every follower a gap: the whole state was replaced by a snapshot's."""
        self._ring.clear()
        self._generation += 1
        self._wake()

    def follow(self, *kinds: str) -> Follower:
        """Start following from now on; without `kinds` all kinds are told."""
        return Follower(self, frozenset(kinds))

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class Follower:
    """A place in the feed."""

    def __init__(self, feed: Feed, kinds: frozenset[str]) -> None:
        self._feed = feed
        self._kinds = kinds
        self._position = feed._written
        self._generation = feed._generation

    def take(self) -> Batch:
        """Return what has happened since the last call, at once; it may be nothing."""
        feed = self._feed
        missed = feed._written - self._position
        gap = missed > len(feed._ring) or self._generation != feed._generation
        self._position, self._generation = feed._written, feed._generation
        if gap:
            return Batch(changes=(), gap=True)
        recent = [feed._ring[position] for position in range(len(feed._ring) - missed, len(feed._ring))]
        return Batch(changes=tuple(c for c in recent if not self._kinds or c.kind in self._kinds))

    async def wait(self, timeout_seconds: float | None = None) -> Batch:
        """Return what has happened since the last call; wait for something of the followed kinds to happen.

        After `timeout_seconds` an empty batch is returned.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_seconds is None else loop.time() + timeout_seconds
        while True:
            batch = self.take()
            if batch.changes or batch.gap:
                return batch
            waiter: asyncio.Future[None] = loop.create_future()
            self._feed._waiters.add(waiter)
            try:
                remaining = None if deadline is None else max(0.0, deadline - loop.time())
                # not wait_for: before Python 3.12 it loses a cancellation that comes together with a change
                async with asyncio.timeout(remaining):
                    await waiter
            except TimeoutError:
                return self.take()
            finally:
                self._feed._waiters.discard(waiter)
