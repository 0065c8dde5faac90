"""A log in memory: for tests, the simulation, and as the copy that a disk-backed log reads from."""

from __future__ import annotations

from shoal.raft.core.log import CompactedError, UnavailableError, limit_bytes
from shoal.raft.core.messages import ConfState, Entry, HardState, SnapshotMeta


class MemoryStorage:
    """Entries after a snapshot. The entry before the first is kept as a stub: its term is asked for."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self._snapshot = SnapshotMeta()
        self._entries: list[Entry] = []
        self._stub = (0, 0)  # index and term before the first entry

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return what was written last."""
        return self.hard_state, self._snapshot.conf_state

    def entries(self, low: int, high: int, bytes_most: int) -> list[Entry]:
        """Return entries low ≤ index < high, up to `bytes_most`."""
        offset = self._stub[0]
        if low <= offset:
            raise CompactedError
        if high > self.last_index() + 1:
            raise UnavailableError
        return limit_bytes(self._entries[low - offset - 1 : high - offset - 1], bytes_most)

    def term(self, index: int) -> int:
        """Return the term of an entry, or of the one before the first."""
        offset, term = self._stub
        if index < offset:
            raise CompactedError
        if index == offset:
            return term
        if index > self.last_index():
            raise UnavailableError
        return self._entries[index - offset - 1].term

    def first_index(self) -> int:
        """Return the first index that is not in a snapshot."""
        return self._stub[0] + 1

    def last_index(self) -> int:
        """Return the last index."""
        return self._stub[0] + len(self._entries)

    def snapshot(self) -> SnapshotMeta:
        """Return the newest snapshot."""
        return self._snapshot

    def apply_snapshot(self, snapshot: SnapshotMeta) -> None:
        """Begin anew from a snapshot."""
        self._snapshot = snapshot
        self._stub = (snapshot.index, snapshot.term)
        self._entries = []

    def set_snapshot(self, snapshot: SnapshotMeta) -> None:
        """Note a newer snapshot; the entries stay until `compact`."""
        self._snapshot = snapshot

    def keep_older(self, entries: list[Entry]) -> None:
        """Take entries that the snapshot covers, too: they are read by members that are a little behind.

        The term of the entry before the first is not known any more; nobody can ask for it but by an index that
        counts as compacted.
        """
        self._entries = list(entries)
        self._stub = (entries[0].index - 1, 0)

    def compact(self, index: int) -> None:
        """Forget the entries up to and with `index`."""
        offset = self._stub[0]
        if index <= offset:
            raise CompactedError
        term = self.term(index)
        del self._entries[: index - offset]
        self._stub = (index, term)

    def append(self, entries: list[Entry]) -> None:
        """Add entries, over those of the same index and all after."""
        if not entries:
            return
        offset = self._stub[0]
        fresh = [entry for entry in entries if entry.index > offset]
        if not fresh:
            return
        position = fresh[0].index - offset - 1
        assert position <= len(self._entries), f"a gap before entry {fresh[0].index}"
        self._entries[position:] = fresh
