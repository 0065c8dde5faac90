"""Output of one container, from its FIFO or terminal into its log.

The FIFO itself is the buffer: data is *looked at* (tee), its lines are written to the log, and only then is it taken
out. So a keeper that is killed at any point has lost nothing; the next one finds in the FIFO what no log holds. A mark
beside the FIFO says which write is under way, so that what is in both is not logged twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import time
import zlib

from shoal.engine.keeper.lines import encode_lines, split_pieces
from shoal.engine.keeper.listeners import Audience
from shoal.engine.keeper.logfile import LogFile

TURN_BYTES = 64 * 1024  # what one container may have written to its log before another gets its turn
_SPLICE_F_NONBLOCK = 2
# log file's number, its size before and after the write, bytes of the FIFO that the write is of, their checksum
_MARK = struct.Struct("<QQQQI")
_NO_MARK = bytes(_MARK.size)

_libc = ctypes.CDLL(None, use_errno=True)


def _complain(error: OSError, log: str) -> None:
    sys.stderr.write(f"keeper: output is dropped, the log {log} cannot be written: {error}\n")


class ScratchPipe:
    """A pipe that a look at a FIFO goes through; one serves all streams."""

    def __init__(self) -> None:
        self._read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def look(self, fifo: int) -> bytes:
        """Return what `fifo` holds, leaving it there; nothing if it is empty."""
        count = _libc.tee(fifo, self._write_end, ctypes.c_size_t(TURN_BYTES), _SPLICE_F_NONBLOCK)
        if count <= 0:
            return b""
        data = os.read(self._read_end, count)
        while len(data) < count:
            data += os.read(self._read_end, count - len(data))
        return data


class FifoStream:
    """stdout or stderr of a container, as a FIFO."""

    def __init__(
        self, name: str, path: str, log: LogFile, scratch: ScratchPipe, audience: Audience | None = None
    ) -> None:
        self.name = name
        self.audience = Audience() if audience is None else audience
        self._shown = 0  # bytes at the head of the FIFO that the audience has heard
        self._log = log
        self._scratch = scratch
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._mark = os.open(f"{path}.mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._settle()

    def _settle(self) -> None:
        """Finish the write that an earlier keeper was killed in, or take back what there is of it."""
        mark = os.pread(self._mark, _MARK.size, 0)
        if len(mark) < _MARK.size:
            return
        file_number, size_before, size_after, length, checksum = _MARK.unpack(mark)
        if length and file_number == self._log.file_number and self._log.size > size_before:
            if self._log.size < size_after:
                self._log.cut(size_before)
            else:
                head = self._scratch.look(self.descriptor)[:length]
                if len(head) == length and zlib.crc32(head) == checksum:
                    self._take(length)
        os.pwrite(self._mark, _NO_MARK, 0)

    def turn(self, at_end: bool = False) -> bool:
        """Log what is there, at most `TURN_BYTES`; return whether there may be more. With `at_end` take all."""
        data = self._scratch.look(self.descriptor)
        if not data:
            return False
        # at once, also what is no line yet: a prompt has no newline
        self.audience.show(self.name, data[self._shown :])
        self._shown = max(self._shown, len(data))
        pieces, length = split_pieces(data, at_end)
        if not length:
            return False
        now_ns = time.time_ns()
        lines = encode_lines(pieces, self.name, now_ns)
        try:
            size, checksum = self._log.size, zlib.crc32(data[:length])
            os.pwrite(self._mark, _MARK.pack(self._log.file_number, size, size + len(lines), length, checksum), 0)
            self._log.write(lines)
        except OSError as error:
            # a full disk must not stop the container: Docker drops, too
            _complain(error, self.name)
        self._log.forward(pieces, self.name, now_ns)
        self._take(length)
        with contextlib.suppress(OSError):
            os.pwrite(self._mark, _NO_MARK, 0)
        return True

    def pending(self) -> bytes:
        """Return what the audience has heard and no log holds: the beginning of a line."""
        return self._scratch.look(self.descriptor)[: self._shown]

    def _take(self, length: int) -> None:
        self._shown = max(0, self._shown - length)
        while length > 0:
            length -= len(os.read(self.descriptor, length))

    def drain(self) -> None:
        """Log what is left when the container has ended: at most one full FIFO, so this is bounded."""
        while self.turn(at_end=True):
            pass

    def close(self) -> None:
        """Close the reading end."""
        os.close(self.descriptor)
        os.close(self._mark)


class TerminalStream:
    """The master side of a container's terminal; what it says is stdout."""

    name = "stdout"

    def __init__(self, descriptor: int, log: LogFile, audience: Audience | None = None) -> None:
        self.descriptor = descriptor
        self.audience = Audience() if audience is None else audience
        self._log = log
        self._rest = b""
        os.set_blocking(descriptor, False)

    def turn(self, at_end: bool = False) -> bool:
        """Log what is there, at most `TURN_BYTES`; return whether there may be more."""
        try:
            data = os.read(self.descriptor, TURN_BYTES)
        except OSError:  # EIO: the last process with this terminal has gone; EAGAIN: nothing there
            data = b""
        if not data and not (at_end and self._rest):
            return False
        self.audience.show(self.name, data)
        pieces, length = split_pieces(self._rest + data, at_end)
        self._rest = (self._rest + data)[length:]
        now_ns = time.time_ns()
        try:
            self._log.write(encode_lines(pieces, self.name, now_ns))
        except OSError as error:
            _complain(error, self.name)
        self._log.forward(pieces, self.name, now_ns)
        return bool(data)

    def pending(self) -> bytes:
        """Return what the audience has heard and no log holds: the beginning of a line."""
        return self._rest

    def drain(self) -> None:
        """Log what is left when the container has ended."""
        while self.turn(at_end=True):
            pass

    def close(self) -> None:
        """Close the master."""
        os.close(self.descriptor)
