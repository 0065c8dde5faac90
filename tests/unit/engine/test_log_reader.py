from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from shoal.engine.keeper.lines import encode_lines
from shoal.engine.log_reader import read_log
from shoal.model.container import LogOptions


def write(path: Path, numbers: range) -> None:
    with path.open("ab") as file:
        for number in numbers:
            stream = "stderr" if number % 10 == 0 else "stdout"
            file.write(encode_lines([b"%d\n" % number], stream, number))


def read(path: Path, **options: object) -> list[int]:
    async def work() -> list[int]:
        return [int(line.data) async for line in read_log(path, LogOptions(**options), lambda: True)]

    return asyncio.run(work())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write(tmp_path / "log.2", range(1, 11))
    write(tmp_path / "log.1", range(11, 5001))
    write(tmp_path / "log", range(5001, 5011))
    return tmp_path / "log"


def test_all_files_oldest_first(log: Path) -> None:
    assert read(log) == list(range(1, 5011))
    assert read(log, follow=True) == list(range(1, 5011))


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 4999, 5000, 5009, 5010, 9999])
def test_tail_over_files(log: Path, count: int) -> None:
    assert read(log, tail=count) == list(range(1, 5011))[max(0, 5010 - count) : 5010]


def test_tail_of_what_is_asked_for(log: Path) -> None:
    assert read(log, tail=3, stdout=False) == [4990, 5000, 5010]
    assert read(log, tail=9999, stdout=False) == list(range(10, 5011, 10))
    assert read(log, since_ns=5009) == [5009, 5010]
    assert read(log, until_ns=2) == [1, 2]
    assert read(log, tail=2, since_ns=10, until_ns=12) == [11, 12]


def test_no_log_and_rubbish_in_it(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == []
    assert read(tmp_path / "none", tail=5) == []
    (tmp_path / "log").write_bytes(b"rubbish\n{}\n")
    write(tmp_path / "log", range(1, 3))
    assert read(tmp_path / "log") == [1, 2]


def test_following_ends_when_the_time_has_come(log: Path) -> None:
    async def work() -> list[int]:
        options = LogOptions(follow=True, since_ns=5000, until_ns=6000)
        times = iter([5500, 5999])
        lines = read_log(log, options, lambda: False, lambda: next(times, 6001))
        return [int(line.data) async for line in lines]

    assert asyncio.run(work()) == list(range(5000, 5011))


@pytest.mark.parametrize("others_are_newer", [False, True])
def test_our_file_is_dropped_while_it_is_followed(log: Path, others_are_newer: bool) -> None:
    """By removing the log what is older is left for a moment; by rotating it what is newer."""
    for number, path in enumerate((log, log.with_name("log.1"), log.with_name("log.2"))):
        second = 1000 + number if others_are_newer else 1000 - number
        os.utime(path, (second, second))

    async def work() -> list[int]:
        found: list[int] = []
        async for line in read_log(log, LogOptions(follow=True, tail=1), lambda: bool(found)):
            found.append(int(line.data))
            if len(found) == 1:
                log.unlink()
        return found

    assert asyncio.run(work()) == [5010, *(range(1, 5001) if others_are_newer else ())]
