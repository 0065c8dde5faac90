"""One member with a disk: what was acknowledged is there again, whatever the moment of the stop."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from shoal.errors import Unavailable
from shoal.raft.driver import DriverSettings, RaftDriver
from shoal.raft.sealing import BrokenSeal
from shoal.raft.snapshots import SnapshotWriter


class Journal:
    """A state machine that remembers what it was given."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, bytes]] = []

    def apply(self, index: int, data: bytes) -> object:
        self.entries.append((index, data))
        return index

    def snapshot(self) -> Iterator[bytes]:
        entries = list(self.entries)
        return (f"{index} ".encode() + data for index, data in entries)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.entries = []
        for chunk in chunks:
            index, _, data = chunk.partition(b" ")
            self.entries.append((int(index), data))

    @property
    def data(self) -> list[bytes]:
        return [data for _, data in self.entries]


def settings(folder: Path, **changes: int) -> DriverSettings:
    return DriverSettings(
        raft_id=7, cluster_id="c", folder=folder / "raft", founds=True, random_int=lambda _n: 0, **changes
    )


async def started(folder: Path, journal: Journal, **changes: int) -> RaftDriver:
    driver = await RaftDriver.start(settings(folder, **changes), journal)
    await asyncio.wait_for(driver.wait_for_leadership(True), 5)
    return driver


def test_what_was_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal()
        driver = await started(tmp_path, journal)
        await asyncio.gather(*(driver.propose(b"%d" % number) for number in range(100)))
        assert await driver.read_barrier() == driver.applied_index
        await driver.stop()
        again = Journal()
        driver = await started(tmp_path, again)
        assert again.entries == journal.entries
        assert await driver.propose(b"more") == driver.applied_index
        await driver.stop()

    asyncio.run(scenario())


def test_proposals_that_wait_share_an_append(tmp_path: Path) -> None:
    async def scenario() -> None:
        driver = await started(tmp_path, Journal())
        writes = 0
        write = driver._database.write

        def counted(*arguments: object) -> None:
            nonlocal writes
            writes += 1
            write(*arguments)  # type: ignore[arg-type]

        driver._database.write = counted  # type: ignore[method-assign]
        await asyncio.gather(*(driver.propose(b"x") for _ in range(200)))
        assert writes < 20
        await driver.stop()

    asyncio.run(scenario())


def test_snapshots_shorten_the_log_and_restore_all(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal()
        driver = await started(tmp_path, journal, snapshot_interval=20, entries_kept=5)
        for number in range(100):
            await driver.propose(b"%d" % number)
            if driver._keeper.task is not None:
                await driver._keeper.task
        assert driver._storage.snapshot().index >= 80
        assert len(list((tmp_path / "raft" / "snapshots").iterdir())) == 1
        await driver.stop()
        with contextlib.closing(sqlite3.connect(tmp_path / "raft" / "log.sqlite")) as connection:
            rows = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
        assert rows < 40
        again = Journal()
        driver = await started(tmp_path, again)
        assert again.data == journal.data
        await driver.stop()

    asyncio.run(scenario())


def test_snapshots_and_appends_take_turns_on_the_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal()
        driver = await started(tmp_path, journal, snapshot_interval=5, entries_kept=2)

        async def propose(first: int) -> None:
            for number in range(first, first + 60):
                await driver.propose(b"%d" % number)

        await asyncio.gather(*(propose(first) for first in range(0, 480, 60)))
        await driver.stop()
        again = Journal()
        driver = await started(tmp_path, again)
        assert again.data == journal.data
        assert len(again.data) == 480
        await driver.stop()

    asyncio.run(scenario())


def test_nothing_readable_is_on_the_disk(tmp_path: Path) -> None:
    async def scenario() -> None:
        driver = await started(tmp_path, Journal(), snapshot_interval=10)
        for _ in range(15):
            await driver.propose(b"a very secret value")
        if driver._keeper.task is not None:
            await driver._keeper.task
        await driver.stop()
        for path in (tmp_path / "raft").rglob("*"):
            assert path.is_dir() or b"very secret" not in path.read_bytes(), path

    asyncio.run(scenario())


def test_a_changed_record_is_found(tmp_path: Path) -> None:
    async def scenario() -> None:
        driver = await started(tmp_path, Journal())
        await driver.propose(b"one")
        await driver.propose(b"two")
        await driver.stop()
        connection = sqlite3.connect(tmp_path / "raft" / "log.sqlite")
        rows = connection.execute("SELECT position, sealed FROM entries ORDER BY position DESC LIMIT 2").fetchall()
        connection.execute("UPDATE entries SET sealed = ? WHERE position = ?", (rows[0][1], rows[1][0]))
        connection.commit()
        connection.close()
        with pytest.raises(BrokenSeal):
            await RaftDriver.start(settings(tmp_path), Journal())

    asyncio.run(scenario())


def test_a_failed_write_ends_the_member(tmp_path: Path) -> None:
    async def scenario() -> None:
        driver = await started(tmp_path, Journal())

        def broken(*_arguments: object) -> None:
            raise OSError(28, "No space left on device")

        driver._database.write = broken  # type: ignore[method-assign]
        with pytest.raises(Unavailable, match="failed"):
            await driver.propose(b"x")
        assert isinstance(await driver.failure, OSError)
        with pytest.raises(Unavailable, match="restart"):
            await driver.propose(b"y")
        await driver.stop()

    asyncio.run(scenario())


def test_a_snapshot_under_way_is_taken_back_when_the_member_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        driver = await started(tmp_path, Journal(), snapshot_interval=3)
        begin = driver._keeper.files.begin
        opening, may_go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def slow(index: int, name: str = "own") -> SnapshotWriter:
            writer = begin(index, name)
            open_now = writer.open

            def wait_then_open() -> None:
                loop.call_soon_threadsafe(opening.set)
                may_go_on.wait(10)
                open_now()

            writer.open = wait_then_open  # type: ignore[method-assign]
            return writer

        driver._keeper.files.begin = slow  # type: ignore[method-assign]
        for number in range(4):
            await driver.propose(b"%d" % number)
        await opening.wait()
        stopping = asyncio.create_task(driver.stop())
        loop.call_soon(may_go_on.set)
        await stopping
        assert list((tmp_path / "raft" / "snapshots").iterdir()) == []

    asyncio.run(scenario())
