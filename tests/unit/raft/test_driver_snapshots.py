"""Snapshots between members: who is behind the log gets one, and a fault on the way heals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal.errors import NotLeader
from shoal.raft.core.messages import ConfState, Message, MessageType, SnapshotMeta
from shoal.raft.driver import RaftDriver
from tests.doubles.raft_group import DEADLINE_SECONDS, Group
from tests.unit.raft.test_driver_group import run

SETTINGS = {"snapshot_interval": 20, "entries_kept": 10}


async def write(leader: RaftDriver, count: int) -> None:
    for number in range(count):
        await leader.propose(b"%d" % number)


async def write_until_compacted(group: Group, leader: RaftDriver, beyond: int) -> None:
    """Write until the log of the leader does not hold the entry after `beyond` any more."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while leader._storage.first_index() <= beyond + 1:
            await write(leader, 10)


def files_of(group: Group, raft_id: int) -> list[str]:
    return sorted(path.name for path in (group.folder(raft_id) / "snapshots").iterdir())


def test_followers_shorten_their_logs(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        await write(leader, 60)
        await group.until(
            lambda: all(driver._storage.snapshot().index >= 40 for driver in group.drivers.values()), "snapshots"
        )
        assert all(driver._storage.first_index() > 20 for driver in group.drivers.values())
        assert group.network.snapshots_sent == []

    run(tmp_path, scenario, **SETTINGS)


def test_who_is_a_little_behind_gets_entries(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {3}
        await write(leader, 40)
        await group.until(lambda: leader._storage.snapshot().index > group.drivers[3].applied_index, "a snapshot")
        group.network.cut = set()
        await group.until_alike()
        assert group.network.snapshots_sent == []
        assert group.journals[3].restored == 0

    run(tmp_path, scenario, snapshot_interval=20, entries_kept=500)


def test_who_is_far_behind_gets_a_snapshot(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {3}
        behind = group.drivers[3].applied_index
        await write_until_compacted(group, leader, behind)
        group.network.cut = set()
        await leader.propose(b"after")
        assert (await group.until_alike())[-1] == b"after"
        assert group.journals[3].restored == 1
        assert {to for to, _ in group.network.snapshots_sent} == {3}
        await group.kill(3)
        await group.start(3)
        assert (await group.until_alike())[-1] == b"after"
        assert all(name.endswith(".snapshot") for name in files_of(group, 3))

    run(tmp_path, scenario, **SETTINGS)


def test_who_joins_late_gets_a_snapshot_that_names_it(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(1)
        await write_until_compacted(group, leader, 10)
        await group.join(2)
        await leader.propose(b"after")
        assert (await group.until_alike())[-1] == b"after"
        assert [view.raft_id for view in group.drivers[2].members()] == [1, 2]
        assert group.journals[2].restored == 1
        meta = group.drivers[2]._storage.snapshot()
        assert 2 in {*meta.conf_state.voters, *meta.conf_state.learners}

    run(tmp_path, scenario, **SETTINGS)


def test_a_snapshot_file_that_is_missing_is_written_anew(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {3}
        await write_until_compacted(group, leader, group.drivers[3].applied_index)
        await group.until(lambda: leader._keeper.task is None, "no snapshot under way")
        for path in (group.folder(1) / "snapshots").iterdir():
            path.unlink()
        group.network.cut = set()
        await group.until_alike()

    run(tmp_path, scenario, **SETTINGS)


def test_a_transfer_that_breaks_is_done_again(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {3}
        await write_until_compacted(group, leader, group.drivers[3].applied_index)
        chunks = 0

        def breaks_twice(_chunk: bytes) -> None:
            nonlocal chunks
            chunks += 1
            if chunks in (3, 9):
                raise ConnectionError("cut")

        group.network.snapshot_fault = breaks_twice
        group.network.cut = set()
        await group.until_alike()
        assert len(group.network.snapshots_sent) >= 3
        assert len(files_of(group, 3)) == 1

    run(tmp_path, scenario, **SETTINGS)


@pytest.mark.parametrize("moment", ["before it is noted", "before it is restored"])
def test_a_crash_while_a_snapshot_is_taken_up_heals_at_the_restart(tmp_path: Path, moment: str) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {3}
        await write_until_compacted(group, leader, group.drivers[3].applied_index)
        slow = group.drivers[3]

        def crash(*_: object) -> None:
            raise OSError("killed")

        if moment == "before it is noted":
            write = slow._database.write

            def crash_at_snapshot(entries: object, hard_state: object, snapshot: object = None) -> None:
                if snapshot is not None:
                    crash()
                write(entries, hard_state)  # type: ignore[arg-type]

            slow._database.write = crash_at_snapshot  # type: ignore[method-assign,assignment]
        else:
            group.journals[3].restore = crash  # type: ignore[method-assign]
        group.network.cut = set()
        async with asyncio.timeout(DEADLINE_SECONDS):
            await slow.failure
        await group.kill(3)
        restarted = await group.start(3)
        if moment == "before it is restored":
            assert group.journals[3].restored == 1
            assert restarted.applied_index > 0
        await group.until_alike()
        assert len(files_of(group, 3)) == 1

    run(tmp_path, scenario, **SETTINGS)


def test_a_snapshot_of_the_own_state_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {3}
        slow = group.drivers[3]
        await write_until_compacted(group, leader, slow.applied_index)
        slow._keeper._begin()  # under way when the leader's comes
        group.network.cut = set()
        await group.until_alike()
        newest = slow._storage.snapshot().index
        await group.kill(3)
        restarted = await group.start(3)
        assert restarted._storage.snapshot().index == newest
        await group.until_alike()

    run(tmp_path, scenario, **SETTINGS)


def test_a_snapshot_that_brings_nothing_new_is_not_kept(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"1 x"

    async def scenario(group: Group) -> None:
        leader = await group.found(2)
        await leader.propose(b"x")
        await group.until_alike()
        follower = group.drivers[2]
        old = SnapshotMeta(2, 2, ConfState(voters=(1, 2)))
        await follower.receive_snapshot(
            Message(MessageType.SNAPSHOT, to=2, sender=1, term=leader.term, snapshot=old), chunks()
        )
        # Of a leader of a term that is over: it comes whole, and is not wanted.
        stale = SnapshotMeta(999, 1, ConfState(voters=(1, 2)))
        await follower.receive_snapshot(Message(MessageType.SNAPSHOT, to=2, sender=1, term=1, snapshot=stale), chunks())
        await leader.propose(b"y")
        await group.until_alike()
        assert files_of(group, 2) == []
        assert group.journals[2].restored == 0

    run(tmp_path, scenario)


def test_what_waits_when_a_snapshot_replaces_the_log_is_told_so(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {1}
        waiting = asyncio.create_task(leader.propose(b"lost"))
        other = await group.leader(2, 3)
        await write_until_compacted(group, other, leader.applied_index)
        with pytest.raises(NotLeader):
            await waiting
        group.network.cut = set()
        await group.until_alike()
        assert b"lost" not in group.journals[1].data
        assert group.journals[1].restored == 1

    run(tmp_path, scenario, **SETTINGS)
