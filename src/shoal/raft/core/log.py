"""The log of a member: what is in storage, what is not yet, and how far it is committed and applied."""

from __future__ import annotations

from typing import Protocol

from shoal.raft.core.messages import ConfState, Entry, HardState, SnapshotMeta

# What an entry costs beside its data, so that many empty ones have a size, too.
ENTRY_OVERHEAD_BYTES = 12


class CompactedError(Exception):
    """The entries asked for are gone into a snapshot."""


class UnavailableError(Exception):
    """The entries asked for are not there (yet)."""


class SnapshotUnavailableError(Exception):
    """A snapshot is being made; ask again."""


class Storage(Protocol):
    """What is on disk. Reads are of what `Ready` had written; the core never writes."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return what was written last, to start from."""

    def entries(self, low: int, high: int, bytes_most: int) -> list[Entry]:
        """Return entries low ≤ index < high, at least one, up to `bytes_most`. Raises Compacted/UnavailableError."""

    def term(self, index: int) -> int:
        """Return the term of an entry from `first_index - 1` on. Raises Compacted/UnavailableError."""

    def first_index(self) -> int:
        """Return the first index that is not in a snapshot."""

    def last_index(self) -> int:
        """Return the last index, that of the snapshot if there are no entries after it."""

    def snapshot(self) -> SnapshotMeta:
        """Return the newest snapshot. Raises SnapshotUnavailableError."""


def entry_bytes(entry: Entry) -> int:
    """Return what an entry counts against limits."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


def limit_bytes(entries: list[Entry], bytes_most: int) -> list[Entry]:
    """Return the first entries that fit `bytes_most`; at least one."""
    total = 0
    for position, entry in enumerate(entries):
        total += entry_bytes(entry)
        if total > bytes_most and position > 0:
            return entries[:position]
    return entries


class RaftLog:
    """Storage and what is to be written to it, as one log.

    Args:
        storage: what is on disk.
        applying_bytes_most: how much is handed out to be applied at once.
    """

    def __init__(self, storage: Storage, applying_bytes_most: int = 1 << 20) -> None:
        self.storage = storage
        self._applying_bytes_most = applying_bytes_most
        first = storage.first_index()
        last = storage.last_index()
        self.committed = first - 1
        self.applying = first - 1
        self.applied = first - 1
        # Not on disk yet: a snapshot, and entries from `offset` on; the part before `in_progress` is being written.
        self.offset = last + 1
        self.unstable: list[Entry] = []
        self.pending_snapshot: SnapshotMeta | None = None
        self._offset_in_progress = last + 1
        self._snapshot_in_progress = False

    # -- positions

    def first_index(self) -> int:
        """Return the first index that is not in a snapshot."""
        if self.pending_snapshot is not None:
            return self.pending_snapshot.index + 1
        return self.storage.first_index()

    def last_index(self) -> int:
        """Return the last index."""
        if self.unstable:
            return self.unstable[-1].index
        if self.pending_snapshot is not None:
            return self.pending_snapshot.index
        return self.storage.last_index()

    def last_term(self) -> int:
        """Return the term of the last entry."""
        return self.term(self.last_index())

    def term(self, index: int) -> int:
        """Return the term of an entry. Raises CompactedError, UnavailableError."""
        if index + 1 < self.first_index():
            raise CompactedError
        if index > self.last_index():
            raise UnavailableError
        if self.unstable and index >= self.offset:
            return self.unstable[index - self.offset].term
        if self.pending_snapshot is not None and index == self.pending_snapshot.index:
            return self.pending_snapshot.term
        return self.storage.term(index)

    def term_or_zero(self, index: int) -> int:
        """Return the term of an entry, 0 if it is not known."""
        try:
            return self.term(index)
        except (CompactedError, UnavailableError):
            return 0

    def matches(self, term: int, index: int) -> bool:
        """Whether the entry at `index` is of `term`."""
        try:
            return self.term(index) == term
        except (CompactedError, UnavailableError):
            return False

    def is_up_to_date(self, last_term: int, last_index: int) -> bool:
        """Whether another log is at least as new as this one (thesis 3.6.1)."""
        own = self.last_term()
        return last_term > own or (last_term == own and last_index >= self.last_index())

    # -- reading

    def entries(self, low: int, high: int, bytes_most: int) -> list[Entry]:
        """Return entries low ≤ index < high, up to `bytes_most`, at least one if there is one."""
        if low >= high:
            return []
        if low < self.first_index():
            raise CompactedError
        if high > self.last_index() + 1:
            raise UnavailableError
        found: list[Entry] = []
        if low < self.offset:
            found = self.storage.entries(low, min(high, self.offset), bytes_most)
            if len(found) < min(high, self.offset) - low:
                return found
        if high > self.offset:
            found = [*found, *self.unstable[max(low, self.offset) - self.offset : high - self.offset]]
        return limit_bytes(found, bytes_most)

    # -- writing

    def append(self, entries: list[Entry]) -> int:
        """Add entries, over those of the same index and all after; returns the last index."""
        if not entries:
            return self.last_index()
        first = entries[0].index
        assert first > self.committed, f"entry {first} is committed and cannot be replaced"
        if first == self.offset + len(self.unstable):
            self.unstable.extend(entries)
        elif first <= self.offset:
            self.unstable = list(entries)
            self.offset = first
            self._offset_in_progress = first
        else:
            self.unstable[first - self.offset :] = entries
            self._offset_in_progress = min(self._offset_in_progress, first)
        return self.last_index()

    def find_conflict(self, entries: tuple[Entry, ...]) -> int:
        """Return the index of the first entry that this log has otherwise or not at all; 0 if it has them all."""
        for entry in entries:
            if not self.matches(entry.term, entry.index):
                return entry.index
        return 0

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """Return the last index ≤ `index` whose term is ≤ `term`, with its term (0 if unknown)."""
        while index > 0:
            try:
                own = self.term(index)
            except (CompactedError, UnavailableError):
                return index, 0
            if own <= term:
                return index, own
            index -= 1
        return 0, 0

    def try_append(
        self, previous_term: int, previous_index: int, entries: tuple[Entry, ...], committed: int
    ) -> int | None:
        """Append what a leader sent, if the log agrees before it; returns the last index, None if it does not."""
        if not self.matches(previous_term, previous_index):
            return None
        last_new = previous_index + len(entries)
        conflict = self.find_conflict(entries)
        if conflict:
            assert conflict > self.committed, f"entry {conflict} conflicts with a committed entry"
            self.append(list(entries[conflict - previous_index - 1 :]))
        self.commit_to(min(committed, last_new))
        return last_new

    def commit_to(self, index: int) -> None:
        """Raise the commit index; it never goes back."""
        if index > self.committed:
            assert index <= self.last_index(), f"commit index {index} is beyond the log: was it lost?"
            self.committed = index

    def try_commit(self, index: int, term: int) -> bool:
        """Raise the commit index to an entry of the leader's own term (thesis 3.6.2)."""
        if index > self.committed and self.term_or_zero(index) == term:
            self.commit_to(index)
            return True
        return False

    def restore(self, snapshot: SnapshotMeta) -> None:
        """Begin anew from a snapshot."""
        self.committed = snapshot.index
        self.offset = snapshot.index + 1
        self._offset_in_progress = self.offset
        self.unstable = []
        self.pending_snapshot = snapshot
        self._snapshot_in_progress = False

    # -- handing out (Ready) and taking back (Advance)

    def next_unstable(self) -> list[Entry]:
        """Return entries that are to be written and were not handed out yet."""
        return self.unstable[self._offset_in_progress - self.offset :]

    def next_snapshot(self) -> SnapshotMeta | None:
        """Return the snapshot that is to be written and was not handed out yet."""
        return None if self._snapshot_in_progress else self.pending_snapshot

    def next_committed(self) -> list[Entry]:
        """Return entries that may be applied and were not handed out yet.

        They may still be unwritten: whoever is given them writes the entries of the same `Ready` first.
        """
        if self.pending_snapshot is not None:
            return []
        low, high = self.applying + 1, self.committed + 1
        if low >= high:
            return []
        return self.entries(low, high, self._applying_bytes_most)

    def has_next_committed(self) -> bool:
        """Whether there is something to apply."""
        return self.pending_snapshot is None and self.applying < self.committed

    def accept(self, entries: list[Entry], committed: list[Entry]) -> None:
        """Note what was handed out."""
        self._snapshot_in_progress = self.pending_snapshot is not None
        if entries:
            self._offset_in_progress = entries[-1].index + 1
        if committed:
            self.applying = committed[-1].index

    def stable_to(self, index: int, term: int) -> None:
        """Note that entries up to `index` are on disk, if they are still the ones that were written."""
        if not self.unstable or index < self.offset or index > self.unstable[-1].index:
            return
        if self.unstable[index - self.offset].term != term:
            return
        self.unstable = self.unstable[index + 1 - self.offset :]
        self.offset = index + 1
        self._offset_in_progress = max(self._offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """Note that a snapshot is on disk."""
        if self.pending_snapshot is not None and self.pending_snapshot.index == index:
            self.pending_snapshot = None
            self._snapshot_in_progress = False

    def applied_to(self, index: int) -> None:
        """Note how far the state machine is."""
        assert self.applied <= index <= self.committed, f"applied {index} is not in [{self.applied}, {self.committed}]"
        self.applied = index
        self.applying = max(self.applying, index)
