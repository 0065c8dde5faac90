"""A container's log file on disk, rotated by size, and who hears of its lines besides."""

from __future__ import annotations

import os

from shoal.engine.keeper.forwarding import Forwarder

_TAIL_BYTES = 64 * 1024


class LogFile:
    """Appends to `path`; from `max_bytes` on it is renamed to `path.1`, of which `max_files` - 1 are kept.

    `max_bytes` 0 never rotates; an empty `path` keeps nothing. `forwarder` is told of the lines, too.
    """

    def __init__(self, path: str, max_bytes: int, max_files: int, forwarder: Forwarder | None = None) -> None:
        self._forwarder = forwarder
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max(1, max_files)
        self._descriptor = -1
        self._size = 0
        if path:
            self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        self._cut_torn_line()

    def _cut_torn_line(self) -> None:
        """Take away a last line that was not written to its end: its output still waits and is written again."""
        if not self._size:
            return
        start = max(0, self._size - _TAIL_BYTES)
        tail = os.pread(self._descriptor, self._size - start, start)
        if not tail.endswith(b"\n"):
            self._size = start + tail.rfind(b"\n") + 1
            os.ftruncate(self._descriptor, self._size)

    @property
    def size(self) -> int:
        """Bytes in the newest file."""
        return self._size

    @property
    def file_number(self) -> int:
        """Which file is the newest now (its inode), 0 if nothing is kept."""
        return os.fstat(self._descriptor).st_ino if self._descriptor >= 0 else 0

    def cut(self, size: int) -> None:
        """Take back what stands after `size` bytes."""
        os.ftruncate(self._descriptor, size)
        self._size = size

    def forward(self, pieces: list[bytes], stream: str, at_ns: int) -> None:
        """Tell who hears of lines besides."""
        if self._forwarder is not None:
            self._forwarder.send(pieces, stream, at_ns)

    def write(self, lines: bytes) -> None:
        """Append whole lines. Raises OSError if the disk refuses; what was written in part is taken back."""
        if self._descriptor < 0:
            return
        position = 0
        while position < len(lines):
            if self._max_bytes and self._size >= self._max_bytes:
                self._rotate()
            end = len(lines)
            if self._max_bytes:
                # up to the line that fills the file
                end = lines.find(b"\n", min(position + self._max_bytes - self._size - 1, len(lines) - 1)) + 1
            self._append(lines[position:end])
            position = end

    def _append(self, lines: bytes) -> None:
        try:
            written = os.write(self._descriptor, lines)
            while written < len(lines):
                written += os.write(self._descriptor, lines[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(lines)

    def _rotate(self) -> None:
        os.close(self._descriptor)
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number}"
            newer = f"{self._path}.{number - 1}" if number > 1 else self._path
            if os.path.exists(newer):  # noqa: PTH110 - pathlib is a large import
                os.rename(newer, older)  # noqa: PTH104
        if self._max_files == 1:
            os.unlink(self._path)  # noqa: PTH108
        self._open()

    def close(self) -> None:
        """Close the file."""
        if self._forwarder is not None:
            self._forwarder.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
