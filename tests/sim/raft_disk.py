"""The disk of a simulated member: what is synced stays; a write that a crash interrupts leaves a part of itself.

A write is a row of records: a snapshot, entries, the hard state. A crash may keep any first part of the row, and of the
record after it a torn piece, which a checksum shows when the log is read again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from shoal.raft.core.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    Entry,
    EntryType,
    HardState,
    SnapshotMeta,
    encode_conf_change,
)
from shoal.raft.core.storage import MemoryStorage

ADD = ConfChangeType.ADD_NODE
Record = SnapshotMeta | Entry | HardState


@dataclass(frozen=True)
class Saved:
    """A snapshot with the state it holds."""

    meta: SnapshotMeta
    state: int


class Disk:
    """Snapshot, entries and hard state that are durable, and a torn record at the end of the log, if there is one."""

    def __init__(self, entries: tuple[Entry, ...], hard_state: HardState) -> None:
        self.saved = Saved(SnapshotMeta(), 0)
        self.received: dict[int, Saved] = {}
        self.entries = list(entries)
        self.hard_state = hard_state
        self._torn: Entry | None = None

    def write(self, snapshot: SnapshotMeta | None, entries: tuple[Entry, ...], hard_state: HardState) -> None:
        """Write and sync."""
        for record in _row(snapshot, entries, hard_state):
            self._put(record)

    def write_and_crash(
        self, snapshot: SnapshotMeta | None, entries: tuple[Entry, ...], hard_state: HardState, chance: random.Random
    ) -> None:
        """Begin to write; the power goes before it is synced."""
        row = _row(snapshot, entries, hard_state)
        kept = chance.randrange(len(row) + 1)
        for record in row[:kept]:
            self._put(record)
        if kept < len(row) and isinstance(record := row[kept], Entry) and chance.random() < 0.5:
            self._truncate(record.index)
            self._torn = Entry(record.term, record.index, record.type, b"torn")

    def _put(self, record: Record) -> None:
        match record:
            case Entry():
                self._truncate(record.index)
                self.entries.append(record)
            case HardState():
                self.hard_state = record
            case SnapshotMeta():
                self.saved = self.received[record.index]
                self.entries = []

    def _truncate(self, index: int) -> None:
        if self.entries and index <= self.entries[-1].index:
            del self.entries[index - self.entries[0].index :]

    def save(self, saved: Saved, first_kept: int) -> None:
        """Note an own snapshot and forget the entries before `first_kept`."""
        self.saved = saved
        self.entries = [entry for entry in self.entries if entry.index >= first_kept]

    def load(self) -> MemoryStorage:
        """Read all after a crash; what is torn is cut off."""
        self._torn = self.take_torn(self._torn)
        if self._torn is not None:
            self.entries.append(self._torn)
        self._torn = None
        self.received.clear()
        meta = self.saved.meta
        storage = MemoryStorage()
        storage.apply_snapshot(meta)
        older = [entry for entry in self.entries if entry.index <= meta.index]
        if older:
            storage.keep_older(older)
        storage.append([entry for entry in self.entries if entry.index > meta.index])
        commit = max(self.hard_state.commit, meta.index)
        storage.hard_state = HardState(self.hard_state.term, self.hard_state.vote, commit)
        return storage

    def take_torn(self, _torn: Entry | None) -> Entry | None:
        """Judge a torn record by its checksum: it is not taken."""
        return None

    @property
    def last_index(self) -> int:
        """The last index that is durable."""
        return self.entries[-1].index if self.entries else self.saved.meta.index

    def holds(self, index: int, term: int) -> bool:
        """Whether an entry, or a snapshot of it, is durable."""
        if index <= self.saved.meta.index:
            return True
        if not self.entries or not self.entries[0].index <= index <= self.entries[-1].index:
            return False
        return self.entries[index - self.entries[0].index].term == term


def first_on_disk(voters: Iterable[int]) -> tuple[tuple[Entry, ...], HardState]:
    """Return what the first members start with: committed entries that add them, for all who join to see."""
    entries = tuple(
        Entry(1, index, EntryType.CONF_CHANGE_V2, encode_conf_change(ConfChange((ConfChangeSingle(ADD, voter),))))
        for index, voter in enumerate(voters, start=1)
    )
    return entries, HardState(term=1, commit=len(entries))


def _row(snapshot: SnapshotMeta | None, entries: tuple[Entry, ...], hard_state: HardState) -> list[Record]:
    # The hard state last: its commit index must not reach beyond the entries that are there.
    return [*([] if snapshot is None else [snapshot]), *entries, hard_state]
