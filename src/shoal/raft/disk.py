"""The log on disk: SQLite in WAL mode with synchronous=FULL, records sealed. A write that returns is on the disk.

Appends and the compaction after a snapshot come from different threads and take turns. A failed write ends the member:
it is never retried on this handle, because after a failed fsync nobody knows what is on the disk.
"""

from __future__ import annotations

import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from shoal.raft.core.messages import Entry, EntryType, HardState, SnapshotMeta
from shoal.raft.core.storage import MemoryStorage
from shoal.raft.sealing import Sealer

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    position INTEGER PRIMARY KEY, term INTEGER NOT NULL, type TEXT NOT NULL, sealed BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value BLOB NOT NULL);
"""


class LogDatabase:
    """The file `raft/log.sqlite`."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._sealer = sealer
        self._turn = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise RuntimeError(f"{path} was written by a newer shoald (log schema {version})")
        self._connection.executescript(SCHEMA)
        self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._hard_state_decoder = msgspec.msgpack.Decoder(HardState)
        self._snapshot_decoder = msgspec.msgpack.Decoder(SnapshotMeta)
        self._encoder = msgspec.msgpack.Encoder()

    def load(self) -> MemoryStorage:
        """Return everything, opened, as a log in memory."""
        storage = MemoryStorage()
        snapshot = self._state("snapshot")
        if snapshot is not None:
            storage.apply_snapshot(self._snapshot_decoder.decode(snapshot))
        rows = self._connection.execute("SELECT position, term, type, sealed FROM entries ORDER BY position")
        entries = [
            Entry(term, position, EntryType(type_), self._sealer.open(sealed, _place(position, term)))
            for position, term, type_, sealed in rows
        ]
        first = storage.first_index()
        if entries and entries[0].index < first:
            # Entries before the snapshot are kept for slow members: they stay readable.
            storage.keep_older(entries[: first - entries[0].index])
        storage.append([entry for entry in entries if entry.index >= first])
        hard_state = self._state("hard_state")
        if hard_state is not None:
            storage.hard_state = self._hard_state_decoder.decode(hard_state)
        commit = max(storage.hard_state.commit, storage.snapshot().index)
        storage.hard_state = HardState(storage.hard_state.term, storage.hard_state.vote, commit)
        return storage

    def _state(self, key: str) -> bytes | None:
        row = self._connection.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._sealer.open(row[0], key.encode())

    def write(
        self, entries: Sequence[Entry], hard_state: HardState | None, snapshot: SnapshotMeta | None = None
    ) -> None:
        """Write entries (over those of the same index and all after) and states, in one transaction."""
        with self._transaction() as execute:
            # Sealed in one's turn: the key may be another afterwards.
            seal = self._sealer.seal
            rows = [(e.index, e.term, e.type.value, seal(e.data, _place(e.index, e.term))) for e in entries]
            if snapshot is not None:
                execute("DELETE FROM entries")
                self._put_state("snapshot", self._encoder.encode(snapshot))
            if rows:
                execute("DELETE FROM entries WHERE position >= ?", (entries[0].index,))
                self._connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
            if hard_state is not None:
                self._put_state("hard_state", self._encoder.encode(hard_state))

    def compact(self, snapshot: SnapshotMeta, first_kept: int) -> None:
        """Note a snapshot that is on disk, and forget the entries before `first_kept`."""
        with self._transaction() as execute:
            self._put_state("snapshot", self._encoder.encode(snapshot))
            execute("DELETE FROM entries WHERE position < ?", (first_kept,))

    def seal_anew(self, keys: Sequence[bytes]) -> None:
        """Take keys, the first of which seals from now on, and seal all there is with it."""
        with self._transaction() as execute:
            self._sealer.use(keys)
            for position, term, sealed in self._connection.execute(
                "SELECT position, term, sealed FROM entries"
            ).fetchall():
                place = _place(position, term)
                again = self._sealer.seal(self._sealer.open(sealed, place), place)
                execute("UPDATE entries SET sealed = ? WHERE position = ?", (again, position))
            for key, sealed in self._connection.execute("SELECT key, value FROM state").fetchall():
                self._put_state(key, self._sealer.open(sealed, key.encode()))

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., object]]:
        """Wait for one's turn; what raises inside is not committed, and the handle is not to be used again."""
        with self._turn:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection.execute
            self._connection.execute("COMMIT")

    def _put_state(self, key: str, value: bytes) -> None:
        sealed = self._sealer.seal(value, key.encode())
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (key, sealed))

    def close(self) -> None:
        """Close the file, after the transaction under way."""
        with self._turn:
            self._connection.close()


def _place(index: int, term: int) -> bytes:
    return struct.pack(">QQ", index, term)
