"""Snapshots of a member: taken of its own state to shorten the log, sent to members that are behind, received.

What the files look like is `snapshots.py`'s. A file is durable before anything refers to it.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterable, Callable, Iterator, Sequence

import structlog
from msgspec.structs import replace

from shoal.errors import Unavailable
from shoal.lib.supervise import cancel_and_wait
from shoal.raft.core.messages import ConfState, Entry, HardState, Message, SnapshotMeta
from shoal.raft.core.storage import MemoryStorage
from shoal.raft.disk import LogDatabase
from shoal.raft.interfaces import StateMachine, Transport
from shoal.raft.snapshots import SnapshotFiles

_log = structlog.get_logger(__name__)


class SnapshotKeeper:
    """Takes, sends, receives and adopts snapshots.

    Args:
        files, database, storage, machine, transport: of the member.
        position: how far the state machine is, and the members at that point.
        report: tells the core how sending a snapshot to a member ended.
        fail: ends the member, after a write to the log that failed.
    """

    def __init__(
        self,
        files: SnapshotFiles,
        database: LogDatabase,
        storage: MemoryStorage,
        machine: StateMachine,
        transport: Transport,
        position: Callable[[], SnapshotMeta],
        report: Callable[[int, bool], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.files = files
        self._database = database
        self._storage = storage
        self._machine = machine
        self._transport = transport
        self._position = position
        self._report = report
        self._fail = fail
        self._interval = self._entries_kept = self._files_kept = 0
        self._numbers = itertools.count(1)
        self._wanted: dict[int, Message] = {}
        self._receiving = 0
        self._is_paused = False
        self.task: asyncio.Task[None] | None = None

    def set(self, interval: int, entries_kept: int, files_kept: int) -> None:
        """Take the swarm's settings: entries between snapshots, entries kept before one, older files kept."""
        self._interval, self._entries_kept, self._files_kept = interval, entries_kept, files_kept

    async def stop(self) -> None:
        """Take back what is being written."""
        await cancel_and_wait(self.task)
        self.task = None
        self._wanted = {}

    def pause(self) -> bool:
        """Write no file until `go_on`; False if one is being written, which is then not stopped."""
        if self.task is None and not self._receiving:
            self._is_paused = True
        return self._is_paused

    def go_on(self) -> None:
        """Write files again; what was to be sent meanwhile is asked for again."""
        self._is_paused = False

    # -- of the own state

    @property
    def can_be_joined(self) -> bool:
        """Whether a new member can replay the log, or gets a snapshot.

        Logs of the first versions do not say who founded them: a snapshot must stand in the place of their beginning.
        """
        newest = self._storage.snapshot()
        return newest.index > 0 or not newest.conf_state.voters

    def begin_if_due(self) -> None:
        """Take a snapshot if enough was applied since the last."""
        interval = self._interval if self.can_be_joined else 1
        if (
            self.task is None
            and not self._is_paused
            and self._position().index - self._storage.snapshot().index >= interval
        ):
            self._begin()

    def _begin(self) -> None:
        kept = self._entries_kept if self.can_be_joined else 0
        # The state is taken now; encoding and writing go on beside the loop.
        meta, chunks = self._position(), self._machine.snapshot()
        self.task = asyncio.create_task(self._write(meta, chunks, kept), name="raft snapshot")

    async def _write(self, meta: SnapshotMeta, chunks: Iterator[bytes], kept: int) -> None:
        writer = self.files.begin(meta.index)
        try:
            await in_thread(writer.open)
            for chunk in chunks:
                await in_thread(writer.write, chunk)
            await in_thread(writer.finish)
        except asyncio.CancelledError:
            writer.abandon()
            raise
        except OSError as error:
            # The log is whole without it; it is tried again after the next entry.
            writer.abandon()
            _log.error("a snapshot could not be written", index=meta.index, error=str(error))
            self.task = None
            wanted, self._wanted = self._wanted, {}
            for raft_id in wanted:
                self._report(raft_id, False)
            return
        except Exception as error:
            writer.abandon()
            self._fail(error)
            return
        kept_from = max(self._storage.first_index(), meta.index - kept + 1)
        try:
            await in_thread(self._database.compact, meta, kept_from)
        except sqlite3.Error as error:
            self._fail(error)
            return
        self._storage.set_snapshot(meta)
        if kept_from > self._storage.first_index():
            self._storage.compact(kept_from - 1)
        await in_thread(self.files.remove_before, meta.index, self._files_kept)
        _log.info("snapshot written", index=meta.index, log_begins=kept_from)
        self.task = None
        wanted, self._wanted = self._wanted, {}
        for message in wanted.values():
            self.send(message)

    # -- to other members

    def send(self, message: Message) -> None:
        """Send the newest snapshot that names the member it is for; take one first if there is none."""
        newest = self._storage.snapshot()
        if message.to in _members(newest.conf_state) and self.files.path(newest.index).exists():
            self._transport.send_snapshot(replace(message, snapshot=newest), self.files.read(newest.index))
        elif message.to in _members(self._position().conf_state):
            if self._is_paused:
                self._report(message.to, False)
                return
            self._wanted[message.to] = message
            if self.task is None:
                self._begin()
        else:
            self._report(message.to, False)  # removed meanwhile

    async def receive(self, message: Message, chunks: AsyncIterable[bytes]) -> None:
        """Write a snapshot that is being received to its file, durably. Raises OSError."""
        assert message.snapshot is not None, "a snapshot message holds a snapshot"
        if self._is_paused:
            raise Unavailable("the data key is being rotated: send it again")
        self._receiving += 1
        # A name of its own: an older leader may still be sending the same one.
        writer = self.files.begin(message.snapshot.index, f"received-{next(self._numbers)}")
        try:
            await in_thread(writer.open)
            async for chunk in chunks:
                await in_thread(writer.write, chunk)
            await in_thread(writer.finish)
        except BaseException:
            writer.abandon()
            raise
        finally:
            self._receiving -= 1

    async def adopt(self, meta: SnapshotMeta, entries: Sequence[Entry], hard_state: HardState) -> None:
        """Begin anew from a received snapshot: the log, then the state machine; a restart would do the same."""
        # One of the own, older state would overwrite what is noted here.
        await self.stop()
        await in_thread(self._database.write, entries, hard_state, meta)
        chunks = await asyncio.to_thread(lambda: list(self.files.read(meta.index)))
        self._machine.restore(chunks)
        self._storage.apply_snapshot(meta)
        self._storage.append(list(entries))
        await in_thread(self.files.remove_before, meta.index, self._files_kept)
        _log.info("snapshot of another manager taken", index=meta.index)

    def discard(self, index: int) -> None:
        """Remove the file of a received snapshot that was not wanted after all."""
        if index != self._storage.snapshot().index and self.task is None:
            self.files.path(index).unlink(missing_ok=True)


def _members(state: ConfState) -> set[int]:
    return {*state.voters, *state.learners, *state.voters_outgoing, *state.learners_next}


async def in_thread(work: Callable[..., None], *arguments: object) -> None:
    """Do `work` in a thread; cancelled meanwhile, wait for it all the same: it must not go on behind the caller."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise
