"""The driver: does the IO that the core asks for, and hands committed entries to the state machine.

One task owns the core. Proposals that arrive while the disk is busy go into the next append together. After a stall it
reads its inbox first and counts one tick at most. A failed write ends the member: it sends nothing more, so that others
take the lead.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass

import structlog

from shoal.errors import NotLeader, Unavailable
from shoal.lib.supervise import cancel_and_wait
from shoal.raft.bootstrap import open_log
from shoal.raft.conditions import Conditions
from shoal.raft.core.confchange import ConfChangeError
from shoal.raft.core.messages import (
    ConfChange,
    ConfChangeType,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    SnapshotMeta,
    decode_conf_change,
)
from shoal.raft.core.raft import ProposalDropped, RaftConfig, Role
from shoal.raft.core.rawnode import RawNode, Ready
from shoal.raft.disk import LogDatabase
from shoal.raft.interfaces import NoTransport, StateMachine, Transport
from shoal.raft.membership import ChangeRefused, Membership, MemberView
from shoal.raft.reads import Reads
from shoal.raft.sealing import KeyFile, Sealer
from shoal.raft.settings import DriverSettings
from shoal.raft.snapshot_keeper import SnapshotKeeper, in_thread
from shoal.raft.snapshots import SnapshotFiles

__all__ = ["DriverSettings", "MemberView", "NoTransport", "RaftDriver", "StateMachine", "Transport"]

_log = structlog.get_logger(__name__)

PROPOSALS_QUEUED_MOST = 10_000
PROPOSALS_PER_APPEND_MOST = 512
MESSAGES_QUEUED_MOST = 10_000
BARRIER_TIMEOUT_SECONDS = 20.0
FAILED = "this manager cannot write to its disk any more: see its log, then restart it"
# A leader's messages promise nothing of its own disk (thesis 10.2.1): they leave while it writes.
BEFORE_WRITE_TYPES = frozenset({MessageType.APPEND, MessageType.HEARTBEAT})
NOT_AFTER_WRITE_TYPES = BEFORE_WRITE_TYPES | {MessageType.SNAPSHOT}
# What no other member may send as a message: proposals are not forwarded, snapshots come with their file.
REFUSED_TYPES = frozenset({MessageType.PROPOSE, MessageType.SNAPSHOT, MessageType.FORGET_LEADER})


@dataclass(slots=True)
class _Proposal:
    data: bytes | ConfChange
    done: asyncio.Future[object]
    term: int = 0


class RaftDriver:
    """A running member. Made by `start`.

    Attributes:
        key_file: holds the data key, loaded: to wrap it by another unlock key, or none.
        removed: this member has applied its own removal; it takes no more part.
        failure: what ended this member, if something did.
    """

    def __init__(
        self,
        settings: DriverSettings,
        machine: StateMachine,
        transport: Transport,
        database: LogDatabase,
        files: SnapshotFiles,
        key_file: KeyFile,
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._transport = transport
        self._database = database
        self.key_file = key_file
        self._storage = open_log(database, settings)
        snapshot = self._storage.snapshot()
        if snapshot.index:
            machine.restore(files.read(snapshot.index))
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
        self._committed_at_start = self._node.raft.log.committed
        self._may_stand_at_once = True
        self._was_removed = False
        self._tick = 0
        self._proposals: deque[_Proposal] = deque()
        self._waiting: dict[int, _Proposal] = {}
        self._inbox: deque[Message] = deque()
        self._reports: deque[Callable[[], None]] = deque()
        self._conditions = Conditions()
        self._reads = Reads(settings.raft_id, settings.election_ticks)
        self._keeper = SnapshotKeeper(
            files, database, self._storage, machine, transport, self._position, self.report_snapshot, self._fail
        )
        self._membership = Membership(
            self._node,
            settings.election_ticks,
            self._propose_change,
            lambda: self._keeper.can_be_joined,
            self.wait_until,
        )
        self.set_snapshots(settings.snapshot_interval, settings.entries_kept, settings.snapshots_kept)
        self._leadership_changed = asyncio.Event()
        self._was_leading = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.removed = asyncio.Event()
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    @classmethod
    async def start(
        cls, settings: DriverSettings, machine: StateMachine, transport: Transport | None = None
    ) -> RaftDriver:
        """Load what is on disk, restore the state machine, and run.

        Raises:
            Locked, WrongUnlockKey: the data key is wrapped and `unlock_key` does not open it.
            Conflict: `forgets_others` without a log.
        """
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_file = KeyFile(settings.folder / "key", settings.cluster_id)
        key_file.load(settings.unlock_key)
        sealer = Sealer(key_file.keys, settings.cluster_id.encode())
        database = LogDatabase(settings.folder / "log.sqlite", sealer)
        try:
            files = SnapshotFiles(settings.folder / "snapshots", sealer)
            if key_file.is_rotating:
                _log.info("going on with a rotation of the data key that was interrupted")
                _seal_anew(key_file, database, files)
            driver = cls(settings, machine, transport or NoTransport(), database, files, key_file)
        except BaseException:
            database.close()
            raise
        driver._task = asyncio.create_task(driver._run(), name="raft")
        return driver

    async def stop(self) -> None:
        """Stop; what was acknowledged is on disk."""
        await cancel_and_wait(self._task)
        await self._keeper.stop()
        self._fail_all(Unavailable("this manager is stopping"))
        await asyncio.to_thread(self._database.close)

    # -- what is seen from outside

    @property
    def raft_id(self) -> int:
        """The id of this member."""
        return self._settings.raft_id

    @property
    def is_leader(self) -> bool:
        """Whether this member leads and has applied an entry of its own term."""
        raft = self._node.raft
        return raft.role is Role.LEADER and self._applied_term == raft.term and not self.failure.done()

    @property
    def leader_id(self) -> int:
        """The member that leads, 0 if none is known."""
        return self._node.raft.leader

    @property
    def term(self) -> int:
        """The present term."""
        return self._node.raft.term

    @property
    def applied_index(self) -> int:
        """The index of the last entry applied here."""
        return self._applied

    def members(self) -> tuple[MemberView, ...]:
        """Return the members as this one knows them, in order of id."""
        return self._membership.view()

    def is_reachable(self, raft_id: int) -> bool:
        """Whether a member was heard of lately; a leader knows of all, a follower of its leader."""
        return self._membership.is_reachable(raft_id)

    def can_remove(self, raft_id: int) -> bool:
        """Whether the reachable voters that would stay are a quorum of those that would stay."""
        return self._membership.can_remove(raft_id)

    def has_quorum(self) -> bool:
        """Whether a quorum stands behind a leader, as far as this member can tell."""
        return not self.failure.done() and self._membership.has_quorum()

    async def wait_for_leadership(self, leading: bool) -> None:
        """Return when this member leads (or, with False, does not lead)."""
        while self.is_leader is not leading:
            self._leadership_changed.clear()
            await self._leadership_changed.wait()

    async def wait_for_leader(self, other_than: int = 0) -> int:
        """Return the leader as soon as one is known that is not `other_than`."""
        await self.wait_until(lambda: self.leader_id not in (0, other_than))
        return self.leader_id

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds`, a quick condition on what this member knows, is true; raises what it raises."""
        self._require_running()
        self._wake.set()
        await self._conditions.wait_until(holds)

    # -- what others ask

    async def propose(self, data: bytes) -> object:
        """Replicate `data`; returns what applying it returned here.

        Raises:
            NotLeader: this member does not lead, or lost the lead before the entry was committed.
            Unavailable: the queue is full or the member has failed; nothing was proposed.
        """
        return await self._propose(data)

    async def _propose_change(self, change: ConfChange) -> object:
        return await self._propose(change)

    async def _propose(self, data: bytes | ConfChange) -> object:
        self._require_running()
        if self._node.raft.role is not Role.LEADER:
            raise NotLeader("this manager does not lead the swarm")
        if len(self._proposals) >= PROPOSALS_QUEUED_MOST:
            raise Unavailable("too many changes are waiting: try again")
        proposal = _Proposal(data, asyncio.get_running_loop().create_future())
        self._proposals.append(proposal)
        self._wake.set()
        return await proposal.done

    async def add_learner(self, raft_id: int, data: bytes = b"") -> object:
        """Add a member that gets the log but does not vote; one that is a member already stays what it is.

        Args:
            raft_id: of the new member, never used before.
            data: applied by the state machine at the same index. If that returns an exception, no member changes.

        Returns:
            What applying `data` returned here, else the index.

        Raises:
            NotLeader: this member does not lead, or lost the lead on the way; the change may yet be made.
            Unavailable: not in time (it may yet be made), or not possible.
        """
        return await self._membership.add_learner(raft_id, data)

    async def promote(self, raft_id: int, data: bytes = b"") -> object:
        """Make a learner a voter, once it has caught up with the log. As `add_learner`."""
        return await self._membership.promote(raft_id, data)

    async def remove_member(self, raft_id: int, data: bytes = b"") -> object:
        """Remove a member; whether the others stay a quorum is `can_remove`'s to say. As `add_learner`."""
        return await self._membership.remove(raft_id, data)

    async def transfer_lead(self, to: int | None = None) -> None:
        """Hand the lead to a voter, by default the reachable one that lacks least; returns when it leads.

        Raises:
            NotLeader: this member does not lead.
            Unavailable: there is no heir, or it did not take the lead in time.
        """
        await self._membership.transfer_lead(to)

    async def read_barrier(self) -> int:
        """Return once everything committed before the call is applied here; the index up to which that holds."""
        self._require_running()
        raft = self._node.raft
        if self.is_leader and raft.tracker.is_singleton and self._applied >= raft.log.committed:
            return self._applied
        read = self._reads.add()
        self._wake.set()
        try:
            async with asyncio.timeout(BARRIER_TIMEOUT_SECONDS):
                return await read
        except TimeoutError:
            raise Unavailable(
                "The swarm does not have a leader. It's possible that too few managers are online. "
                "Make sure more than half of the managers are online."
            ) from None

    def set_snapshots(self, interval: int, entries_kept: int, files_kept: int) -> None:
        """Take the swarm's settings: entries between snapshots, entries kept before one, older files kept."""
        self._keeper.set(interval, entries_kept, files_kept)

    async def rotate_data_key(self, unlock_key: bytes | None) -> None:
        """Seal everything on disk with a new data key; killed on the way, the next start goes on with it.

        Args:
            unlock_key: wraps the new data key; None stores it plain.

        Raises:
            Unavailable: a snapshot was on its way for too long, or the member has failed.
        """
        try:
            async with asyncio.timeout(BARRIER_TIMEOUT_SECONDS):
                await self.wait_until(self._keeper.pause)
        except TimeoutError:
            raise Unavailable("a snapshot is being written for too long: try again") from None
        try:
            await in_thread(self.key_file.begin_rotation, unlock_key)
            await in_thread(_seal_anew, self.key_file, self._database, self._keeper.files)
        except Exception as error:
            self._fail(error)
            raise Unavailable(FAILED) from error
        finally:
            self._keeper.go_on()
        _log.info("data key rotated", is_wrapped=unlock_key is not None)

    def _require_running(self) -> None:
        if self.failure.done():
            raise Unavailable(FAILED)

    # -- what the transport brings

    def receive(self, message: Message) -> None:
        """Take a message from another member; one that does not belong here, or of a flood, is dropped."""
        if message.to != self.raft_id or message.type in REFUSED_TYPES or len(self._inbox) >= MESSAGES_QUEUED_MOST:
            _log.warning("message dropped", type=message.type, sender=message.sender, to=message.to)
            return
        self._inbox.append(message)
        self._wake.set()

    async def receive_snapshot(self, message: Message, chunks: AsyncIterable[bytes]) -> None:
        """Take a snapshot from the leader; once this returns it is durable and will be taken up.

        Args:
            message: of type SNAPSHOT.
            chunks: as its sender's transport was given them. What they raise is raised, and nothing is kept.

        Raises:
            OSError: it could not be written.
            Unavailable: it is not for this member, or this member has failed.
        """
        self._require_running()
        if message.to != self.raft_id or message.type is not MessageType.SNAPSHOT or message.snapshot is None:
            raise Unavailable("this is no snapshot for this manager")
        if message.snapshot.index > self._node.raft.log.committed:
            await self._keeper.receive(message, chunks)
        self._inbox.append(message)
        self._wake.set()

    def report_reachable(self, raft_id: int) -> None:
        """Tell that a member can be sent to again."""
        self._membership.note_reachable(raft_id)

    def report_unreachable(self, raft_id: int) -> None:
        """Tell that a message could not be sent."""
        self._membership.note_unreachable(raft_id)
        self._report(lambda: self._node.report_unreachable(raft_id))

    def report_snapshot(self, raft_id: int, ok: bool) -> None:
        """Tell how sending a snapshot ended."""
        self._report(lambda: self._node.report_snapshot(raft_id, ok))

    def _report(self, report: Callable[[], None]) -> None:
        self._reports.append(report)
        self._wake.set()

    # -- the loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        next_tick = loop.time() + self._settings.tick_seconds
        try:
            while not self.failure.done():
                self._take_inbox()
                if loop.time() >= next_tick:
                    next_tick = loop.time() + self._settings.tick_seconds
                    self._note_tick()
                self._take_proposals()
                context = self._reads.begin_round(self._tick)
                if context is not None:
                    self._node.read_index(context)
                if self._node.has_ready():
                    await self._handle(self._node.ready())
                    continue
                self._stand_at_once()
                self._conditions.settle()
                self._wake.clear()
                if self._inbox or self._reports or self._proposals or self._node.has_ready():
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
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.failure.done():
            return
        _log.critical("this manager has failed and takes no more part", exc_info=error)
        self.failure.set_result(error)
        self._fail_all(Unavailable("this manager has failed: see its log, then restart it"))
        self._leadership_changed.set()
        self._wake.set()

    def _note_tick(self) -> None:
        self._tick += 1
        self._membership.note_tick()
        self._node.tick()

    def _stand_at_once(self) -> None:
        """Alone, and all applied that was known at the start: nobody else could win, no timeout needs to pass."""
        if self._may_stand_at_once and self._applied >= self._committed_at_start:
            self._may_stand_at_once = False
            if self._node.raft.tracker.is_singleton:
                self._node.campaign()

    def _take_inbox(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            self._membership.note_heard(message.sender)
            try:
                self._node.step(message)
            except ProposalDropped:
                continue
            if message.snapshot is not None and self._node.raft.log.next_snapshot() != message.snapshot:
                self._keeper.discard(message.snapshot.index)
        while self._reports:
            self._reports.popleft()()

    def _take_proposals(self) -> None:
        raft = self._node.raft
        for _ in range(min(len(self._proposals), PROPOSALS_PER_APPEND_MOST)):
            proposal = self._proposals.popleft()
            if proposal.done.cancelled():
                continue
            try:
                if isinstance(proposal.data, ConfChange):
                    self._node.propose_conf_change(proposal.data)
                else:
                    self._node.propose(proposal.data)
            except ProposalDropped as error:
                proposal.done.set_exception(NotLeader(f"the change was not taken: {error}"))
                continue
            proposal.term = raft.term
            self._waiting[raft.log.last_index()] = proposal

    async def _handle(self, ready: Ready) -> None:
        self._send(message for message in ready.messages if message.type in BEFORE_WRITE_TYPES)
        await self._write(ready)
        self._send(message for message in ready.messages if message.type not in NOT_AFTER_WRITE_TYPES)
        for entry in ready.committed_entries:
            self._apply(entry)
        for answer in ready.read_states:
            self._reads.confirm(answer)
        self._reads.release(self._applied)
        self._node.advance()
        # After applying: a snapshot that is taken for it names the member it is for.
        for message in ready.messages:
            if message.type is MessageType.SNAPSHOT:
                self._keeper.send(message)
        if ready.soft_state is not None:
            self._reads.ask_again()
            if ready.soft_state.role != Role.LEADER:
                self._lose_lead()
        if self._was_removed is not self.removed.is_set() and self._applied >= self._node.raft.log.committed:
            await self._note_removal()
        self._note_leadership()
        self._conditions.settle()
        self._keeper.begin_if_due()

    def _send(self, messages: Iterable[Message]) -> None:
        batch = list(messages)
        if batch:
            self._transport.send(batch)

    async def _write(self, ready: Ready) -> None:
        raft = self._node.raft
        hard_state = ready.hard_state or HardState(raft.term, raft.vote, raft.log.committed)
        if ready.snapshot is not None:
            await self._keeper.adopt(ready.snapshot, ready.entries, hard_state)
            self._applied, self._applied_term = ready.snapshot.index, ready.snapshot.term
            for index in [index for index in self._waiting if index <= self._applied]:
                _fail_one(self._waiting.pop(index), NotLeader("another manager leads now; the change may be made"))
            return
        if ready.must_sync:
            await asyncio.to_thread(self._database.write, ready.entries, hard_state)
        self._storage.append(list(ready.entries))

    def _apply(self, entry: Entry) -> None:
        assert entry.index == self._applied + 1, "entries are applied in order, each once"
        result: object = entry.index
        if entry.type is not EntryType.NORMAL:
            result = self._apply_change(entry)
        elif entry.data:
            result = self._machine.apply(entry.index, entry.data)
        self._applied, self._applied_term = entry.index, entry.term
        proposal = self._waiting.pop(entry.index, None)
        if proposal is None or proposal.done.done():
            return
        if proposal.term != entry.term:
            proposal.done.set_exception(NotLeader("another manager leads now, and the change was not made"))
        elif isinstance(proposal.data, ConfChange) and entry.type is EntryType.NORMAL:
            proposal.done.set_exception(ChangeRefused())
        else:
            proposal.done.set_result(result)

    def _apply_change(self, entry: Entry) -> object:
        """Apply the data of a change of members, and the change if the data is not refused."""
        change = decode_conf_change(entry.data)
        result: object = entry.index
        if change.context:
            result = self._machine.apply(entry.index, change.context)
            if isinstance(result, Exception):
                _log.info("change of members taken back", index=entry.index, reason=str(result))
                return result
        try:
            state = self._node.apply_conf_change(change)
        except ConfChangeError as error:
            # Alike on every member, so it is left out by all of them.
            _log.error("change of members is not possible", index=entry.index, error=str(error))
            return Unavailable(f"the change of managers is not possible: {error}")
        if _removes(change, self.raft_id):
            self._was_removed = True
        if self.raft_id in self._node.raft.tracker.progress:
            self._was_removed = False
        _log.info("members changed", index=entry.index, voters=state.voters, learners=state.learners)
        return result

    async def _note_removal(self) -> None:
        if self._was_removed:
            # Nobody would tell it again after a restart that this entry is committed.
            await asyncio.to_thread(self._database.write, (), self._node.raft.hard_state())
            _log.info("this manager was removed from its group")
            self.removed.set()
        else:
            self.removed.clear()

    def _note_leadership(self) -> None:
        if self.is_leader is not self._was_leading:
            self._was_leading = self.is_leader
            self._leadership_changed.set()

    def _lose_lead(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for proposal in waiting.values():
            _fail_one(proposal, NotLeader("the lead was lost before the change was known to be made"))

    def _fail_all(self, error: Unavailable) -> None:
        proposals = [*self._waiting.values(), *self._proposals]
        self._waiting = {}
        self._proposals.clear()
        for proposal in proposals:
            _fail_one(proposal, error)
        self._conditions.fail(error)
        self._reads.fail(error)

    def _position(self) -> SnapshotMeta:
        return SnapshotMeta(self._applied, self._applied_term, self._node.raft.tracker.config.to_conf_state())


def _seal_anew(key_file: KeyFile, database: LogDatabase, files: SnapshotFiles) -> None:
    """Between the two writes of the key file everything can be opened, whichever of the two keys it is sealed with."""
    database.seal_anew(key_file.keys)
    files.seal_anew()
    key_file.finish_rotation()


def _removes(change: ConfChange, raft_id: int) -> bool:
    return any(step.type is ConfChangeType.REMOVE_NODE and step.node_id == raft_id for step in change.changes)


def _fail_one(proposal: _Proposal, error: Exception) -> None:
    if not proposal.done.done():
        proposal.done.set_exception(error)
