"""The data key: plain or wrapped, and never lost in between."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from shoal.ca.tokens import parse_unlock_key
from shoal.errors import InvalidArgument, Locked, Unavailable, WrongUnlockKey
from shoal.raft.disk import LogDatabase
from shoal.raft.driver import DriverSettings, RaftDriver
from shoal.raft.sealing import BrokenSeal, KeyFile, Sealer
from shoal.raft.snapshots import SnapshotFiles
from tests.doubles.raft_group import DEADLINE_SECONDS, Journal

UNLOCK = bytes(range(32))
OTHER = bytes(32)


def test_a_key_is_made_once_and_only_for_root(tmp_path: Path) -> None:
    key = KeyFile(tmp_path / "key", "c").load()
    assert KeyFile(tmp_path / "key", "c").load() == key
    assert len(key) == 32
    assert (tmp_path / "key").stat().st_mode & 0o077 == 0
    assert KeyFile(tmp_path / "other", "c").load() != key


def test_wrapped_it_opens_with_the_unlock_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key_file = KeyFile(path, "c")
    assert not key_file.is_locked()
    key = key_file.load()
    key_file.wrap(UNLOCK)
    assert key_file.is_locked()
    assert key not in path.read_bytes()
    with pytest.raises(Locked, match="needs to be unlocked") as locked:
        KeyFile(path, "c").load()
    assert locked.value.status == 503
    with pytest.raises(WrongUnlockKey, match="invalid key provided") as wrong:
        KeyFile(path, "c").load(OTHER)
    assert wrong.value.status == 401
    with pytest.raises(WrongUnlockKey):
        KeyFile(path, "another swarm").load(UNLOCK)
    with pytest.raises(WrongUnlockKey):
        KeyFile(path, "c").load(b"short")
    assert KeyFile(path, "c").load(UNLOCK) == key


def test_the_unlock_key_can_be_changed_and_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key_file = KeyFile(path, "c")
    key = key_file.load()
    key_file.wrap(UNLOCK)
    key_file.wrap(OTHER)
    with pytest.raises(WrongUnlockKey):
        KeyFile(path, "c").load(UNLOCK)
    unlocked = KeyFile(path, "c")
    assert unlocked.load(OTHER) == key
    unlocked.unwrap()
    assert not unlocked.is_locked()
    assert KeyFile(path, "c").load() == key
    assert KeyFile(path, "c").load(UNLOCK) == key


def test_who_has_not_opened_it_cannot_unwrap_it(tmp_path: Path) -> None:
    key_file = KeyFile(tmp_path / "key", "c")
    key_file.load()
    key_file.wrap(UNLOCK)
    with pytest.raises(Locked):
        KeyFile(tmp_path / "key", "c").unwrap()
    with pytest.raises(Locked):
        KeyFile(tmp_path / "key", "c").wrap(OTHER)


def test_a_broken_key_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"half a key")
    with pytest.raises(BrokenSeal, match="no key"):
        KeyFile(tmp_path / "key", "c").load()


def test_unlock_keys_are_read_in_dockers_form() -> None:
    text = "SWMKEY-1-" + base64.b64encode(UNLOCK).decode().rstrip("=")
    assert parse_unlock_key(text) == UNLOCK
    for wrong in ("", "SWMKEY-1-", text[:-1], text + "A", text.removeprefix("SWMKEY-1-"), "SWMKEY-2" + text[8:], "é"):
        with pytest.raises(InvalidArgument, match="invalid human-readable key"):
            parse_unlock_key(wrong)


def test_a_record_opens_in_its_place_alone() -> None:
    sealer = Sealer([UNLOCK], b"c")
    sealed = sealer.seal(b"data", b"1")
    assert sealer.open(sealed, b"1") == b"data"
    for opener, place in ((sealer, b"2"), (Sealer([UNLOCK], b"d"), b"1"), (Sealer([OTHER], b"c"), b"1")):
        with pytest.raises(BrokenSeal):
            opener.open(sealed, place)


def test_a_member_starts_with_its_unlock_key(tmp_path: Path) -> None:
    def settings(unlock_key: bytes | None = None) -> DriverSettings:
        return DriverSettings(
            raft_id=1, cluster_id="c", folder=tmp_path, random_int=lambda _n: 0, founds=True, unlock_key=unlock_key
        )

    async def scenario() -> None:
        driver = await RaftDriver.start(settings(), Journal())
        async with asyncio.timeout(DEADLINE_SECONDS):
            await driver.wait_for_leadership(True)
        await driver.propose(b"x")
        driver.key_file.wrap(UNLOCK)
        await driver.propose(b"y")
        await driver.stop()
        with pytest.raises(Locked):
            await RaftDriver.start(settings(), Journal())
        with pytest.raises(WrongUnlockKey):
            await RaftDriver.start(settings(OTHER), Journal())
        journal = Journal()
        driver = await RaftDriver.start(settings(UNLOCK), journal)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await driver.wait_for_leadership(True)
        assert journal.data == [b"x", b"y"]
        await driver.stop()
        assert repr(UNLOCK) not in repr(settings(UNLOCK))

    asyncio.run(scenario())


def settings_of(folder: Path, unlock_key: bytes | None = None) -> DriverSettings:
    return DriverSettings(
        raft_id=1,
        cluster_id="c",
        folder=folder,
        random_int=lambda _n: 0,
        founds=True,
        unlock_key=unlock_key,
        snapshot_interval=20,
    )


async def started(folder: Path, journal: Journal, unlock_key: bytes | None = None) -> RaftDriver:
    driver = await RaftDriver.start(settings_of(folder, unlock_key), journal)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await driver.wait_for_leadership(True)
    return driver


def test_the_data_key_is_rotated_while_the_member_writes(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal = Journal()
        driver = await started(tmp_path, journal)
        before = driver.key_file.keys

        async def write(client: int) -> None:
            for number in range(60):
                await driver.propose(b"%d-%d" % (client, number))

        writing = asyncio.gather(*(write(client) for client in range(4)))
        await driver.wait_until(lambda: driver.applied_index > 50)
        await driver.rotate_data_key(UNLOCK)
        await writing
        await driver.stop()
        assert driver.key_file.keys != before
        assert not driver.key_file.is_rotating
        assert KeyFile(tmp_path / "key", "c").is_locked()
        again = Journal()
        driver = await started(tmp_path, again, UNLOCK)
        assert again.entries == journal.entries
        assert len(again.entries) == 240
        await driver.rotate_data_key(None)
        assert not driver.key_file.is_locked()
        await driver.stop()
        again = Journal()
        await (await started(tmp_path, again)).stop()
        assert again.entries == journal.entries

    asyncio.run(scenario())


@pytest.mark.parametrize("moment", ["database", "files", "end"])
def test_a_rotation_that_was_interrupted_is_finished_at_the_next_start(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "database": (LogDatabase, "seal_anew"),
        "files": (SnapshotFiles, "seal_anew"),
        "end": (KeyFile, "finish_rotation"),
    }

    def crash(*_: object) -> None:
        raise OSError("killed")

    async def scenario() -> None:
        journal = Journal()
        driver = await started(tmp_path, journal)
        for number in range(50):
            await driver.propose(b"%d" % number)
        await driver.wait_until(lambda: driver._keeper.task is None)
        with monkeypatch.context() as patch:
            patch.setattr(*places[moment], crash)
            with pytest.raises(Unavailable):
                await driver.rotate_data_key(UNLOCK)
            await driver.stop()
        assert KeyFile(tmp_path / "key", "c").is_locked()
        again = Journal()
        driver = await started(tmp_path, again, UNLOCK)
        assert not driver.key_file.is_rotating
        await driver.stop()
        assert again.entries == journal.entries
        await (await started(tmp_path, Journal(), UNLOCK)).stop()

    asyncio.run(scenario())


def test_a_rotation_begun_twice_loses_no_key(tmp_path: Path) -> None:
    key_file = KeyFile(tmp_path / "key", "c")
    first = key_file.load()
    key_file.begin_rotation(None)
    keys = key_file.keys
    assert keys[1] == first
    key_file.begin_rotation(UNLOCK)
    again = KeyFile(tmp_path / "key", "c")
    assert again.load(UNLOCK) == keys[0]
    assert again.keys == keys
    again.finish_rotation()
    assert again.keys == keys[:1]
    assert again.is_locked()
