"""The driver: does the IO that the core asks for, and hands committed entries to the state machine.

One task owns the core. Proposals that arrive while the disk is busy go into the next append together. After a stall it
reads its inbox first and counts one tick at most. A failed write ends the member.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from shoal.errors import NotLeader, Unavailable
from shoal.lib.supervise import cancel_and_wait
from shoal.raft.core.messages import (
    ConfChange,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    SnapshotMeta,
    decode_conf_change,
)
from shoal.raft.core.raft import ProposalDropped, RaftConfig, Role
from shoal.raft.core.rawnode import RawNode, Ready
from shoal.raft.disk import LogDatabase
from shoal.raft.sealing import Sealer, load_or_make_key
from shoal.raft.snapshots import SnapshotFiles

_log = structlog.get_logger(__name__)

TICK_SECONDS = 0.1
PROPOSALS_QUEUED_MOST = 10_000
PROPOSALS_PER_APPEND_MOST = 512
BARRIER_TIMEOUT_SECONDS = 20.0


class StateMachine(Protocol):
    """What committed entries are applied to."""

    def apply(self, index: int, data: bytes) -> object:
        """Apply an entry; the result goes to its proposer."""

    def snapshot(self) -> Iterator[bytes]:
        """Yield the state at the time of the call, in chunks."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state."""


class Transport(Protocol):
    """Carries messages to other members."""

    def send(self, messages: Iterable[Message]) -> None:
        """Send messages, best effort; failures are told to `RaftDriver.report_unreachable`."""


class NoTransport:
    """For a group of one member: there is nobody to send to."""

    def send(self, messages: Iterable[Message]) -> None:
        """Send nothing."""
        for message in messages:
            raise AssertionError(f"a message to {message.to} in a group of one")


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Settings of a member.

    Attributes:
        raft_id: of this member.
        cluster_id: ties sealed records to their swarm.
        folder: holds the log, the snapshots and the data key.
        voters: the first members, for a member that has no log yet.
        election_ticks, heartbeat_ticks: in ticks of 100 ms.
        snapshot_interval: entries between snapshots.
        entries_kept: entries kept in the log before a snapshot, for slow members.
        snapshots_kept: older snapshot files that are kept.
        random_int: spreads elections.
    """

    raft_id: int
    cluster_id: str
    folder: Path
    voters: tuple[int, ...]
    random_int: Callable[[int], int]
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    snapshot_interval: int = 10_000
    entries_kept: int = 500
    snapshots_kept: int = 0


class RaftDriver:
    """A running member. Made by `start`."""

    def __init__(
        self,
        settings: DriverSettings,
        machine: StateMachine,
        transport: Transport,
        database: LogDatabase,
        snapshots: SnapshotFiles,
    ) -> None:
        self._settings = settings
        self.set_snapshots(settings.snapshot_interval, settings.entries_kept, settings.snapshots_kept)
        self._machine = machine
        self._transport = transport
        self._database = database
        self._snapshots = snapshots
        self._storage = self._database.load()
        if not self._storage.snapshot().conf_state.voters:
            first = SnapshotMeta(conf_state=ConfState(voters=settings.voters))
            self._database.write((), None, first)
            self._storage.apply_snapshot(first)
        snapshot = self._storage.snapshot()
        if snapshot.index:
            machine.restore(self._snapshots.read(snapshot.index))
        self._applied = snapshot.index
        self._applied_term = snapshot.term
        self._node = RawNode(
            RaftConfig(
                id=settings.raft_id,
                election_ticks=settings.election_ticks,
                heartbeat_ticks=settings.heartbeat_ticks,
                random_int=settings.random_int,
                applied=snapshot.index,
            ),
            self._storage,
        )
        self._proposals: deque[tuple[bytes | ConfChange, asyncio.Future[object]]] = deque()
        self._waiting: dict[int, tuple[int, asyncio.Future[object]]] = {}
        self._inbox: deque[Message] = deque()
        self._barriers: list[tuple[int, asyncio.Future[int]]] = []
        self._reads: dict[bytes, list[asyncio.Future[int]]] = {}
        self._next_read: list[asyncio.Future[int]] = []
        self._read_number = 0
        self._leadership_changed = asyncio.Event()
        self._was_leading = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._snapshot_task: asyncio.Task[None] | None = None
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(
        cls, settings: DriverSettings, machine: StateMachine, transport: Transport | None = None
    ) -> RaftDriver:
        """Load what is on disk, restore the state machine, and run."""
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sealer = Sealer(load_or_make_key(settings.folder / "key"), settings.cluster_id.encode())
        database = LogDatabase(settings.folder / "log.sqlite", sealer)
        try:
            snapshots = SnapshotFiles(settings.folder / "snapshots", sealer)
            driver = cls(settings, machine, transport or NoTransport(), database, snapshots)
        except BaseException:
            database.close()
            raise
        if driver._node.raft.tracker.is_singleton:
            # Nobody else could win: no election timeout needs to pass.
            driver._node.campaign()
        driver._task = asyncio.create_task(driver._run(), name="raft")
        return driver

    async def stop(self) -> None:
        """Stop; what was acknowledged is on disk."""
        await cancel_and_wait(self._task, self._snapshot_task)
        self._fail_all(Unavailable("this manager is stopping"))
        await asyncio.to_thread(self._database.close)

    # -- what is seen from outside

    @property
    def is_leader(self) -> bool:
        """Whether this member leads and has applied an entry of its own term."""
        raft = self._node.raft
        return raft.role is Role.LEADER and self._applied_term == raft.term

    @property
    def leader_id(self) -> int:
        """The member that leads, 0 if none is known."""
        return self._node.raft.leader

    @property
    def applied_index(self) -> int:
        """The index of the last entry applied here."""
        return self._applied

    def is_reachable(self, raft_id: int) -> bool:
        """Whether a member was heard of lately, as far as a leader can tell."""
        if raft_id == self._settings.raft_id:
            return True
        progress = self._node.raft.tracker.progress.get(raft_id)
        return progress is not None and progress.recent_active

    async def wait_for_leadership(self, leading: bool) -> None:
        """Return when this member leads (or, with False, does not lead)."""
        while self.is_leader is not leading:
            self._leadership_changed.clear()
            await self._leadership_changed.wait()

    # -- what others ask

    async def propose(self, data: bytes) -> object:
        """Replicate `data`; returns what applying it returned here.

        Raises:
            NotLeader: this member does not lead, or lost the lead before the entry was committed.
            Unavailable: the queue is full or the member has failed; nothing was proposed.
        """
        if self.failure.done():
            raise Unavailable("this manager cannot write to its disk any more: see its log, then restart it")
        if self._node.raft.role is not Role.LEADER:
            raise NotLeader("this manager does not lead the swarm")
        if len(self._proposals) >= PROPOSALS_QUEUED_MOST:
            raise Unavailable("too many changes are waiting: try again")
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._proposals.append((data, done))
        self._wake.set()
        return await done

    async def read_barrier(self) -> int:
        """Return once everything committed before the call is applied here; the index up to which that holds."""
        if self.failure.done():
            raise Unavailable("this manager cannot write to its disk any more: see its log, then restart it")
        raft = self._node.raft
        if self.is_leader and raft.tracker.is_singleton and self._applied >= raft.log.committed:
            return self._applied
        read: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._next_read.append(read)
        self._wake.set()
        try:
            async with asyncio.timeout(BARRIER_TIMEOUT_SECONDS):
                return await read
        except TimeoutError:
            raise Unavailable(
                "The swarm does not have a leader. It's possible that too few managers are online. "
                "Make sure more than half of the managers are online."
            ) from None

    def receive(self, message: Message) -> None:
        """Take a message from another member."""
        self._inbox.append(message)
        self._wake.set()

    def report_unreachable(self, raft_id: int) -> None:
        """Tell that a message could not be sent."""
        self._node.report_unreachable(raft_id)

    # -- the loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_tick = loop.time() + TICK_SECONDS
        try:
            while True:
                self._take_inbox()
                if loop.time() >= next_tick:
                    next_tick = loop.time() + TICK_SECONDS
                    self._node.tick()
                self._take_proposals()
                self._ask_reads()
                if self._node.has_ready():
                    await self._handle(self._node.ready())
                    continue
                self._note_leadership()
                self._wake.clear()
                if self._inbox or self._proposals:
                    continue
                try:
                    # not wait_for: before Python 3.12 it loses a cancellation that comes together with the event
                    async with asyncio.timeout(max(0.0, next_tick - loop.time())):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            _log.critical("this manager has failed and takes no more part", exc_info=error)
            self.failure.set_result(error)
            self._fail_all(Unavailable("this manager has failed: see its log, then restart it"))
            self._leadership_changed.set()

    def _take_inbox(self) -> None:
        while self._inbox:
            try:
                self._node.step(self._inbox.popleft())
            except ProposalDropped:
                continue

    def _take_proposals(self) -> None:
        raft = self._node.raft
        for _ in range(min(len(self._proposals), PROPOSALS_PER_APPEND_MOST)):
            data, done = self._proposals.popleft()
            if done.cancelled():
                continue
            try:
                if isinstance(data, ConfChange):
                    self._node.propose_conf_change(data)
                else:
                    self._node.propose(data)
            except ProposalDropped as error:
                done.set_exception(NotLeader(f"the change was not taken: {error}"))
                continue
            self._waiting[raft.log.last_index()] = (raft.term, done)

    def _ask_reads(self) -> None:
        """One round confirms all reads that wait; those that come meanwhile wait for the next."""
        if not self._next_read or self._reads:
            return
        self._read_number += 1
        context = f"{self._settings.raft_id}-{self._read_number}".encode()
        self._reads[context], self._next_read = self._next_read, []
        self._node.read_index(context)

    async def _handle(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            raise AssertionError("snapshots from other members are received by the transport, which is not built yet")
        if ready.must_sync:
            hard_state = ready.hard_state or HardState(
                self._node.raft.term, self._node.raft.vote, self._node.raft.log.committed
            )
            await asyncio.to_thread(self._database.write, ready.entries, hard_state)
        self._storage.append(list(ready.entries))
        if ready.messages:
            self._transport.send(ready.messages)
        for entry in ready.committed_entries:
            self._apply(entry)
        for read in ready.read_states:
            for waiting in self._reads.pop(read.context, ()):
                self._barriers.append((read.index, waiting))
        self._release_barriers()
        self._node.advance()
        if ready.soft_state is not None and ready.soft_state.role != Role.LEADER:
            self._lose_lead()
        self._note_leadership()
        self._maybe_snapshot()

    def _apply(self, entry: Entry) -> None:
        assert entry.index == self._applied + 1, "entries are applied in order, each once"
        result: object = entry.index
        if entry.type is EntryType.NORMAL:
            if entry.data:
                result = self._machine.apply(entry.index, entry.data)
        else:
            self._node.apply_conf_change(decode_conf_change(entry.data))
        self._applied, self._applied_term = entry.index, entry.term
        term, done = self._waiting.pop(entry.index, (0, None))
        if done is not None and not done.done():
            if term == entry.term:
                done.set_result(result)
            else:
                done.set_exception(NotLeader("another manager leads now, and the change was not made"))

    def _release_barriers(self) -> None:
        still: list[tuple[int, asyncio.Future[int]]] = []
        for index, waiting in self._barriers:
            if index > self._applied:
                still.append((index, waiting))
            elif not waiting.done():
                waiting.set_result(self._applied)
        self._barriers = still

    def _note_leadership(self) -> None:
        if self.is_leader is not self._was_leading:
            self._was_leading = self.is_leader
            self._leadership_changed.set()

    def _lose_lead(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for _, done in waiting.values():
            if not done.done():
                done.set_exception(NotLeader("the lead was lost before the change was known to be made"))
        for reads in self._reads.values():
            self._next_read.extend(reads)
        self._reads = {}

    def _fail_all(self, error: Unavailable) -> None:
        proposals = [done for _, done in (*self._waiting.values(), *self._proposals)]
        reads = [*self._next_read, *(read for waiting in self._reads.values() for read in waiting)]
        reads.extend(read for _, read in self._barriers)
        self._waiting, self._reads, self._next_read, self._barriers = {}, {}, [], []
        self._proposals.clear()
        for done in proposals:
            if not done.done():
                done.set_exception(error)
        for read in reads:
            if not read.done():
                read.set_exception(error)

    # -- snapshots

    def set_snapshots(self, interval: int, entries_kept: int, files_kept: int) -> None:
        """Take the swarm's settings: entries between snapshots, entries kept before one, older files kept."""
        self._snapshot_interval, self._entries_kept, self._snapshots_kept = interval, entries_kept, files_kept

    def _maybe_snapshot(self) -> None:
        since = self._applied - self._storage.snapshot().index
        if since < self._snapshot_interval or self._snapshot_task is not None:
            return
        meta = SnapshotMeta(self._applied, self._applied_term, self._node.raft.tracker.config.to_conf_state())
        # The state is taken now; encoding and writing go on beside the loop.
        self._snapshot_task = asyncio.create_task(self._write_snapshot(meta, self._machine.snapshot()))

    async def _write_snapshot(self, meta: SnapshotMeta, chunks: Iterator[bytes]) -> None:
        writer = self._snapshots.begin(meta.index)
        try:
            await _in_thread(writer.open)
            for chunk in chunks:
                await _in_thread(writer.write, chunk)
            await _in_thread(writer.finish)
        except asyncio.CancelledError:
            writer.abandon()
            raise
        except OSError as error:
            # The log is whole without it; it is tried again after the next entry.
            writer.abandon()
            _log.error("a snapshot could not be written", index=meta.index, error=str(error))
            self._snapshot_task = None
            return
        kept_from = max(self._storage.first_index(), meta.index - self._entries_kept + 1)
        await asyncio.to_thread(self._database.compact, meta, kept_from)
        self._storage.set_snapshot(meta)
        if kept_from > self._storage.first_index():
            self._storage.compact(kept_from - 1)
        await asyncio.to_thread(self._snapshots.remove_before, meta.index, self._snapshots_kept)
        _log.info("snapshot written", index=meta.index)
        self._snapshot_task = None


async def _in_thread(work: Callable[..., None], *arguments: object) -> None:
    """Do `work` in a thread; cancelled meanwhile, wait for it all the same: it must not go on behind the caller."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise
