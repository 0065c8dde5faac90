from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.engine.keeper import wire
from shoal.engine.keeper.lines import PIECE_BYTES, encode_lines, split_pieces
from shoal.engine.keeper.logfile import LogFile
from shoal.engine.keeper.processes import is_ending, start_time
from shoal.engine.keeper.streams import FifoStream, ScratchPipe
from shoal.engine.log_options import log_settings
from shoal.engine.log_reader import decode_line
from shoal.errors import InvalidArgument
from shoal.lib import cgroups
from shoal.model.container import ContainerConfig


def test_pieces_of_a_long_line() -> None:
    data = b"x" * (PIECE_BYTES + 5) + b"\nend\nrest"
    pieces, length = split_pieces(data, at_end=False)
    assert [len(piece) for piece in pieces] == [PIECE_BYTES, 6, 4]
    assert data[length:] == b"rest"
    assert split_pieces(b"rest", at_end=True) == ([b"rest"], 4)


@given(st.lists(st.one_of(st.binary(max_size=40), st.just(b"\n"), st.just(b"y" * 9000)), max_size=20), st.booleans())
def test_pieces_lose_and_add_nothing(chunks: list[bytes], at_end: bool) -> None:
    data = b"".join(chunks)
    pieces, length = split_pieces(data, at_end)
    assert b"".join(pieces) == data[:length]
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    assert len(data) - length < PIECE_BYTES
    assert not at_end or length == len(data)


def test_lines_are_read_back() -> None:
    text = encode_lines([b'a "quoted"\tline\n', "ä\x00<".encode()], "stderr", 1_700_000_000_000_000_012)
    first, second = [decode_line(line) for line in text.splitlines()]
    assert first is not None
    assert second is not None
    assert (first.data, first.stream, first.at_ns, first.partial) == (
        b'a "quoted"\tline\n',
        "stderr",
        1_700_000_000_000_000_012,
        False,
    )
    assert (second.data, second.partial) == ("ä\x00<".encode(), True)
    assert b'"time":"2023-11-14T22:13:20.000000012Z"' in text


def test_a_process_that_has_exited_is_ending_though_its_pid_is_there_still() -> None:
    assert not is_ending(os.getpid())
    child = os.posix_spawnp("true", ["true"], os.environ)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert start_time(child) > 0
    assert is_ending(child)
    os.waitpid(child, 0)
    assert (is_ending(child), start_time(child)) == (True, 0)


def test_log_rotates_and_cuts_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(str(path), 10, 3)
    for number in range(4):
        log.write(b"%d23456789\n" % number)
    log.close()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["log", "log.1", "log.2"]
    assert (tmp_path / "log.2").read_bytes() == b"123456789\n"
    path.write_bytes(b"whole\ntorn")
    LogFile(str(path), 0, 1).close()
    assert path.read_bytes() == b"whole\n"


def test_what_is_no_line_yet_stays_in_the_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    scratch = ScratchPipe()
    log = LogFile(str(tmp_path / "log"), 0, 1)
    stream = FifoStream("stdout", str(tmp_path / "fifo"), log, scratch)
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, b"one\ntw")
    stream.turn()
    assert not stream.turn()
    stream.close()  # the keeper dies here
    os.write(writer, b"o\nthree")
    stream = FifoStream("stdout", str(tmp_path / "fifo"), log, scratch)
    stream.turn()
    stream.drain()
    os.close(writer)
    stream.close()
    log.close()
    lines = [decode_line(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    assert [line.data for line in lines if line] == [b"one\n", b"two\n", b"three"]


def test_frames_in_any_cut() -> None:
    data = wire.encode({"a": 1}) + wire.encode({"b": "ä"})
    decoder = wire.Decoder()
    found = [message for position in range(len(data)) for message in decoder.feed(data[position : position + 1])]
    assert found == [{"a": 1}, {"b": "ä"}]
    with pytest.raises(ValueError, match="above the bound"):
        wire.Decoder().feed(b"\xff\xff\xff\xff")


def test_log_options() -> None:
    config = ContainerConfig(name="n", image="i", log_options={"max-size": "10m", "max-file": "3"})
    settings = log_settings(config, "/p")
    assert (settings.max_bytes, settings.max_files) == (10 << 20, 3)
    for options in ({"max-size": "x"}, {"max-file": "2"}, {"unknown": "1"}):
        with pytest.raises(InvalidArgument):
            log_settings(ContainerConfig(name="n", image="i", log_options=options), "/p")
    with pytest.raises(InvalidArgument, match="no log driver named 'fluentd'"):
        log_settings(ContainerConfig(name="n", image="i", log_driver="fluentd"), "/p")


@pytest.mark.parametrize("died", ["in the log's write", "before taking", "before clearing the mark"])
def test_a_write_that_was_under_way_is_neither_lost_nor_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, died: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    os.mkfifo(tmp_path / "fifo")
    scratch, path = ScratchPipe(), tmp_path / "log"
    log = LogFile(str(path), 0, 1)
    stream = FifoStream("stdout", str(tmp_path / "fifo"), log, scratch)
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, b"same\n")
    stream.turn()
    os.write(writer, b"same\nother\n")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        if died == "in the log's write":
            write = log.write

            def write_in_part(lines: bytes) -> None:
                write(lines[:-10])
                raise Killed

            patch.setattr(log, "write", write_in_part)
        elif died == "before taking":
            patch.setattr(stream, "_take", kill)
        else:
            take = stream._take

            def take_and_die(length: int) -> None:
                take(length)
                raise Killed

            patch.setattr(stream, "_take", take_and_die)
        stream.turn()
    stream.close()
    log.close()
    os.write(writer, b"same\n")
    log = LogFile(str(path), 0, 1)
    stream = FifoStream("stdout", str(tmp_path / "fifo"), log, scratch)
    stream.drain()
    stream.close()
    log.close()
    os.close(writer)
    lines = [decode_line(line) for line in path.read_bytes().splitlines()]
    assert [line.data for line in lines if line] == [b"same\n", b"same\n", b"other\n", b"same\n"]


def test_a_directory_of_hierarchies_is_no_cgroup(tmp_path, monkeypatch):
    hierarchy = tmp_path / "systemd"
    hierarchy.mkdir()
    (hierarchy / "tasks").touch()
    (hierarchy / "cgroup.procs").touch()
    monkeypatch.setattr(cgroups, "_MOUNTS", (str(tmp_path), str(hierarchy)))
    cgroups.move_to_own("keeper")
    cgroups.remove_own("keeper")
    assert [path.name for path in tmp_path.iterdir()] == ["systemd"]
    assert (hierarchy / "cgroup.procs").read_text() == str(os.getpid())
