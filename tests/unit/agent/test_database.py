"""What a node remembers of its tasks, on a disk that fails."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from shoal.agent.database import TaskDatabase, TaskRecord
from shoal.model.objects import Revision, Task
from shoal.model.specs import ServiceSpec


def record(id_: str) -> TaskRecord:
    revision = Revision(id="s.1", service_id="s", spec_version=1, spec=ServiceSpec(name="s"))
    return TaskRecord(task=Task(id=id_, service_id="s", spec_version=1), revision=revision)


def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    async def live() -> None:
        database = TaskDatabase(tmp_path / "tasks.sqlite")
        database.set(record("kept"))
        database.set(record("gone"))
        await database.written()
        pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
        database._connection.execute(f"PRAGMA max_page_count = {pages}")
        database.forget("gone")
        for number in range(500):
            database.set(record(f"more{number}"))
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await database.written()
        database._connection.execute("PRAGMA max_page_count = 100000")
        # what was noted since is newer than what failed
        database.forget("more1")
        await database.written()
        database.close()

    asyncio.run(live())
    again = TaskDatabase(tmp_path / "tasks.sqlite")
    found = {each.task.id for each in again.load()}
    again.close()
    assert found == {"kept", *(f"more{number}" for number in range(500))} - {"more1"}
