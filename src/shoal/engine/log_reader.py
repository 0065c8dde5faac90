"""Reading containers' logs back: tail, since, until, and following through rotation. Blocking file work in threads."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from shoal.lib.units import parse_time_ns
from shoal.model.container import LogLine, LogOptions

POLL_SECONDS = 0.05
_BACK_FACTOR = 8
_READ_BYTES = 1 << 18


class _Entry(msgspec.Struct):
    log: str
    stream: str
    time: str


_decoder = msgspec.json.Decoder(_Entry)


def decode_line(text: bytes) -> LogLine | None:
    """Read one line of a json-file log; None for what is no such line."""
    try:
        entry = _decoder.decode(text)
        at_ns = parse_time_ns(entry.time)
    except (msgspec.MsgspecError, ValueError):
        return None
    return LogLine(
        stream=entry.stream,
        at_ns=at_ns,
        data=entry.log.encode("utf-8", "replace"),
        partial=not entry.log.endswith("\n"),
    )


def wanted(line: LogLine, options: LogOptions) -> bool:
    """Whether a line is asked for."""
    if not (options.stdout if line.stream == "stdout" else options.stderr):
        return False
    return line.at_ns >= options.since_ns and not (options.until_ns and line.at_ns > options.until_ns)


class _Cursor:
    """A place in the files of a log. The newest is `path`, older ones are `path.1`, `path.2`…"""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1
        self._inode = 0
        self._rest = b""
        files = self._existing()
        if files:
            self._open(files[-1])

    def _existing(self) -> list[Path]:
        """Newest first."""
        found = [self._path] if self._path.exists() else []
        number = 1
        while (older := self._path.with_name(f"{self._path.name}.{number}")).exists():
            found.append(older)
            number += 1
        return found

    def _open(self, path: Path) -> None:
        self.close()
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._inode = os.fstat(self._file).st_ino
        self._rest = b""

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def go_back(self, count: int) -> bool:
        """Go to where the last `count` lines begin; return whether that is the very beginning of the log."""
        files = self._existing()
        for path in files:
            self._open(path)
            offset, count = _offset_of_last(self._file, count)
            if count == 0:
                os.lseek(self._file, offset, os.SEEK_SET)
                return offset == 0 and path == files[-1]
        return True

    def read(self) -> list[LogLine]:
        """Return the next lines, an empty list if there are none now."""
        while True:
            if self._file < 0:
                files = self._existing()
                if not files:
                    return []
                self._open(files[-1])
            # asked before reading: what is found last in an old file is there before it became old
            newer = self._newer()
            data = os.read(self._file, _READ_BYTES)
            if data:
                parts = (self._rest + data).split(b"\n")
                self._rest = parts.pop()
                lines = [line for line in map(decode_line, parts) if line is not None]
                if lines:
                    return lines
            elif newer is None:
                return []
            else:
                self._open(newer)

    def _newer(self) -> Path | None:
        files = self._existing()
        for position, path in enumerate(files):
            try:
                if path.stat().st_ino == self._inode:
                    return files[position - 1] if position else None
            except FileNotFoundError:
                return None  # rotated this moment: look again
        # our file has been dropped: go on with the oldest that was written to after it. One that was not is older, and
        # has been read: then the whole log is being removed.
        ours_ns = os.fstat(self._file).st_mtime_ns
        try:
            newer = [path for path in files if path.stat().st_mtime_ns >= ours_ns]
        except FileNotFoundError:
            return None
        return newer[-1] if newer else None


def _read_tail(cursor: _Cursor, options: LogOptions, count: int) -> deque[LogLine]:
    """Return the last `count` lines that are asked for; the cursor stands after them.

    Goes back further, by a factor, as long as lines that are not asked for make the find too small.
    """
    back = max(count, 1)
    while True:
        from_the_beginning = cursor.go_back(back)
        last: deque[LogLine] = deque(maxlen=count)
        while lines := cursor.read():
            last.extend(line for line in lines if wanted(line, options))
        if from_the_beginning or len(last) == count:
            return last
        back *= _BACK_FACTOR


def _offset_of_last(descriptor: int, count: int) -> tuple[int, int]:
    """Return where the last `count` lines of a file begin, and how many of them it lacks."""
    end = os.fstat(descriptor).st_size
    # the newline that ends the last line begins none
    wanted_newlines, position = count + 1, end
    while position > 0:
        start = max(0, position - _READ_BYTES)
        block = os.pread(descriptor, position - start, start)
        found = block.count(b"\n")
        if found < wanted_newlines:
            wanted_newlines -= found
            position = start
            continue
        place = len(block)
        for _ in range(wanted_newlines):
            place = block.rfind(b"\n", 0, place)
        return start + place + 1, 0
    return 0, max(wanted_newlines - 1, 0)


async def read_log(
    path: Path, options: LogOptions, has_ended: Callable[[], bool], now_ns: Callable[[], int] = time.time_ns
) -> AsyncIterator[LogLine]:
    """Yield the lines of a log, oldest first.

    Args:
        path: the newest file of the log.
        options: which lines.
        has_ended: whether the container has ended, and with it what `follow` waits for.
        now_ns: the time: past `until` nothing more is waited for.
    """
    cursor = await asyncio.to_thread(_Cursor, path)
    try:
        if options.tail is not None:
            last = await asyncio.to_thread(_read_tail, cursor, options, options.tail)
            for line in last:
                yield line
        while True:
            ended = has_ended() or bool(options.until_ns and now_ns() > options.until_ns)
            lines = await asyncio.to_thread(cursor.read)
            for line in lines:
                if options.until_ns and line.at_ns > options.until_ns:
                    return
                if wanted(line, options):
                    yield line
            if not lines:
                if ended or not options.follow:
                    return
                await asyncio.sleep(POLL_SECONDS)
    finally:
        cursor.close()
