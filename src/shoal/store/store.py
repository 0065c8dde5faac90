"""The store: the one place where the parts of Shoal meet.

It is the state machine under a consensus engine: writes are proposed as log entries and take effect when they are
applied; reads are of the applied state. It runs on the loop's thread and holds frozen objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from shoal.errors import InvalidArgument, ShoalError, Unavailable
from shoal.lib.clock import Clock
from shoal.model.actions import LOG_FORMAT, Action, LogEntry, feature_level_of
from shoal.model.base import Struct, replace
from shoal.model.events import Event
from shoal.model.objects import Service, StoreObject, revision_id
from shoal.store.apply import apply_entry
from shoal.store.consensus import Consensus
from shoal.store.events import EventRing, events_of
from shoal.store.feed import Feed, Follower
from shoal.store.tables import Tables
from shoal.store.view import View

ENTRY_BYTES_MOST = 1 << 20
ACTIONS_PER_ENTRY_MOST = 1000
SNAPSHOT_CHUNK_OBJECTS = 200

Plan = Callable[[View], Sequence[Action]]


class _SnapshotHead(Struct):
    format: int
    events: tuple[Event, ...]


class Store:
    """Tables, transactions and the change feed over a consensus engine.

    Args:
        clock: stamps the entries proposed here; applying reads none.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._encoder = msgspec.msgpack.Encoder()
        self._entry_decoder = msgspec.msgpack.Decoder(LogEntry)
        self._objects_decoder = msgspec.msgpack.Decoder(tuple[StoreObject, ...])
        self._head_decoder = msgspec.msgpack.Decoder(_SnapshotHead)
        self._feed = Feed()
        self._consensus: Consensus | None = None
        self._load(Tables(), EventRing())

    def _load(self, tables: Tables, events: EventRing) -> None:
        self._tables = tables
        self._events = events
        self.view = View(tables, events)

    def attach(self, consensus: Consensus) -> None:
        """Set the engine that carries this store's writes; done once, by the composition root."""
        self._consensus = consensus

    @property
    def consensus(self) -> Consensus:
        """The engine that carries this store's writes."""
        if self._consensus is None:
            raise Unavailable("the store has no consensus engine yet")
        return self._consensus

    # -- writing

    async def update(self, plan: Plan, actor: str = "") -> int:
        """Propose what `plan` makes of the present view as one entry; it applies whole or not at all.

        Args:
            plan: a plain function from a view to actions; no actions means nothing is proposed.
            actor: who asked for it, for events.

        Returns:
            The raft index of the entry (the last applied one if there was nothing to do).

        Raises:
            ShoalError: what `plan` refused, the precondition that failed when the entry was applied, or what the
                consensus engine said.
        """
        try:
            actions = plan(self.view)
        except ShoalError:
            # A leader that was deposed and has not heard of it would refuse by what holds no more: it asks first.
            await self.barrier()
            actions = plan(self.view)
        if not actions:
            return self.consensus.applied_index
        data = self.encode(actions, actor)
        if len(data) > ENTRY_BYTES_MOST:
            raise InvalidArgument(f"the change takes {len(data)} bytes, more than the {ENTRY_BYTES_MOST} of one entry")
        return await self._propose(data)

    async def batch(self, plan: Plan) -> None:
        """As `update`, for loops: what does not fit one entry is split into several, each whole by itself."""
        pending = [tuple(plan(self.view))]
        while pending:
            actions = pending.pop(0)
            if not actions:
                continue
            data = self.encode(actions, "")
            if len(actions) > 1 and (len(actions) > ACTIONS_PER_ENTRY_MOST or len(data) > ENTRY_BYTES_MOST):
                middle = len(actions) // 2
                pending[:0] = [actions[:middle], actions[middle:]]
            else:
                await self._propose(data)

    def encode(self, actions: Sequence[Action], actor: str = "") -> bytes:
        """Return actions as the data of an entry: for what a change of the members of the group carries with it."""
        level = feature_level_of(actions)
        return self._encoder.encode(
            LogEntry(actions=tuple(actions), at_ns=self._clock.now_ns(), actor=actor, feature_level=level)
        )

    async def _propose(self, data: bytes) -> int:
        result = await self.consensus.propose(data)
        if isinstance(result, ShoalError):
            raise result
        assert isinstance(result, int), "applying an entry returns its index or an error"
        return result

    # -- reading

    async def barrier(self) -> int:
        """Wait until everything acknowledged before this call is visible here (ReadIndex)."""
        return await self.consensus.read_barrier()

    def follow(self, *kinds: str) -> Follower:
        """Follow the changes of `kinds` (all kinds without any) from now on."""
        return self._feed.follow(*kinds)

    # -- the state machine under the consensus engine

    def apply(self, index: int, data: bytes) -> object:
        """Apply a committed entry; returns its index, or the error of the precondition that failed."""
        entry = self._entry_decoder.decode(data)
        if entry.format > LOG_FORMAT:
            raise RuntimeError(f"log entry {index} has format {entry.format}, this version knows {LOG_FORMAT}")
        applied = apply_entry(self._tables, entry, index)
        if applied.error is not None:
            return applied.error
        self._events.append(events_of(applied.changes, entry.at_ns, index, entry.actor))
        self._feed.publish(applied.changes)
        return index

    def snapshot(self) -> Iterator[bytes]:
        """Yield the present state in chunks of a few hundred objects; later writes do not show in it."""
        objects = tuple(self._tables.everything())
        head = _SnapshotHead(format=LOG_FORMAT, events=self._events.all())
        return self._snapshot_chunks(head, objects)

    def _snapshot_chunks(self, head: _SnapshotHead, objects: tuple[StoreObject, ...]) -> Iterator[bytes]:
        yield self._encoder.encode(head)
        for start in range(0, len(objects), SNAPSHOT_CHUNK_OBJECTS):
            yield self._encoder.encode(objects[start : start + SNAPSHOT_CHUNK_OBJECTS])

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state by a snapshot's; every follower of the feed gets a gap."""
        iterator = iter(chunks)
        head = self._head_decoder.decode(next(iterator))
        if head.format > LOG_FORMAT:
            raise RuntimeError(f"the snapshot has format {head.format}, this version knows {LOG_FORMAT}")
        tables = Tables()
        for chunk in iterator:
            for value in self._objects_decoder.decode(chunk):
                tables.of_type(type(value)).put(value)
        for service in tuple(tables.services.rows.values()):
            tables.services.put(_share_spec(tables, service))
        self._load(tables, EventRing(head.events))
        self._feed.invalidate()


def _share_spec(tables: Tables, service: Service) -> Service:
    """Let a decoded service hold the very spec of its revision, as it did before it was written down."""
    revision = tables.revisions.rows.get(revision_id(service.id, service.spec_version))
    return service if revision is None else replace(service, spec=revision.spec)
