"""What a node remembers of its tasks, so that it can go on without a manager: a small SQLite file.

Written behind: a lost last write costs nothing, because containers are found again by their labels and managers send
the assignments anew. Holds no secrets.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import msgspec

from shoal.model.base import Struct
from shoal.model.objects import Revision, Task

BURST_SECONDS = 0.05
SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, record BLOB NOT NULL);
"""


class TaskRecord(Struct):
    """A task as its node knows it: with its own status in it, and the revision it is made from."""

    task: Task
    revision: Revision


class TaskDatabase:
    """The file `worker/tasks.sqlite`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)
        self._lock = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(TaskRecord)
        self._changed: dict[str, TaskRecord | None] = {}
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()

    def load(self) -> tuple[TaskRecord, ...]:
        """Return all records."""
        with self._lock:
            rows = self._connection.execute("SELECT record FROM tasks").fetchall()
        return tuple(self._decoder.decode(row[0]) for row in rows)

    def set(self, record: TaskRecord) -> None:
        """Note a record, to be written soon."""
        self._changed[record.task.id] = record
        self._wake.set()

    def forget(self, task_id: str) -> None:
        """Note that a task is gone, to be written soon."""
        self._changed[task_id] = None
        self._wake.set()

    async def run(self) -> None:
        """Write what was noted, batch by batch, until cancelled."""
        while True:
            await self._wake.wait()
            # Tasks change in bursts; one transaction holds what a burst leaves.
            await asyncio.sleep(BURST_SECONDS)
            self._wake.clear()
            await self.written()

    async def written(self) -> None:
        """Return when all that was noted is in the file: it then survives a kill of the daemon."""
        async with self._turn:
            changed, self._changed = self._changed, {}
            if not changed:
                return
            try:
                await asyncio.to_thread(self._write, changed)
            except BaseException:
                # not in the file, or nobody knows: it is written again, under what was noted since
                self._changed = changed | self._changed
                self._wake.set()
                raise

    def _write(self, changed: dict[str, TaskRecord | None]) -> None:
        with self._lock:
            # left by a write that failed
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN")
            for task_id, record in changed.items():
                if record is None:
                    self._connection.execute("DELETE FROM tasks WHERE id = ?", (task_id,))
                else:
                    encoded = self._encoder.encode(record)
                    self._connection.execute("INSERT OR REPLACE INTO tasks VALUES (?, ?)", (task_id, encoded))
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Write what is left and close the file."""
        self._write(self._changed)
        with self._lock:
            self._connection.close()
