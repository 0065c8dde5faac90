"""Snapshot files: sealed chunks with their lengths, written under another name, synced, renamed."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from shoal.raft.sealing import BrokenSeal, Sealer

LENGTH = struct.Struct(">I")
SUFFIX = ".snapshot"
# The last chunk says that there are no more: a file that was cut is then no shorter snapshot.
END_PLACE = b"end"


class SnapshotFiles:
    """The folder `raft/snapshots`."""

    def __init__(self, folder: Path, sealer: Sealer) -> None:
        self._folder = folder
        self._sealer = sealer
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in folder.glob("*.new"):
            leftover.unlink()

    def path(self, index: int) -> Path:
        """Return the file of the snapshot that reaches `index`."""
        return self._folder / f"{index:020d}{SUFFIX}"

    def begin(self, index: int, name: str = "own") -> SnapshotWriter:
        """Return a writer of a new file, named apart until it is whole; it touches the disk from its `open` on."""
        return SnapshotWriter(self.path(index), self._sealer, index, name)

    def read(self, index: int) -> Iterator[bytes]:
        """Yield the chunks of a snapshot. Raises BrokenSeal, FileNotFoundError."""
        with self.path(index).open("rb") as file:
            number = 0
            while True:
                head = file.read(LENGTH.size)
                if len(head) < LENGTH.size:
                    raise BrokenSeal(f"{self.path(index)} ends before its end")
                sealed = file.read(LENGTH.unpack(head)[0])
                try:
                    chunk = self._sealer.open(sealed, _place(index, number))
                except BrokenSeal:
                    self._sealer.open(sealed, _end_place(index, number))
                    return
                yield chunk
                number += 1

    def seal_anew(self) -> None:
        """Write every file again, under the sealer's present key."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            index = int(path.stem)
            writer = self.begin(index, "anew")
            try:
                writer.open()
                for chunk in self.read(index):
                    writer.write(chunk)
                writer.finish()
            except BaseException:
                writer.abandon()
                raise

    def remove_before(self, index: int, kept: int) -> None:
        """Remove files before that of `index`, but for the newest `kept`."""
        older = sorted(path for path in self._folder.glob(f"*{SUFFIX}") if path < self.path(index))
        for path in older[: len(older) - kept] if kept else older:
            path.unlink()


class SnapshotWriter:
    """A snapshot file being written."""

    def __init__(self, path: Path, sealer: Sealer, index: int, name: str) -> None:
        self._path = path
        self._temporary = path.with_suffix(f".{name}.new")
        self._sealer = sealer
        self._index = index
        self._number = 0
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Make the file."""
        self._file = self._temporary.open("wb")

    def write(self, chunk: bytes) -> None:
        """Add a chunk."""
        self._put(self._sealer.seal(chunk, _place(self._index, self._number)))
        self._number += 1

    def finish(self) -> None:
        """End the file; once this returns it is on the disk."""
        self._put(self._sealer.seal(b"", _end_place(self._index, self._number)))
        assert self._file is not None, "the writer was opened"
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abandon(self) -> None:
        """Take back what was written."""
        if self._file is not None:
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _put(self, sealed: bytes) -> None:
        assert self._file is not None, "the writer was opened"
        self._file.write(LENGTH.pack(len(sealed)) + sealed)


def _place(index: int, number: int) -> bytes:
    return struct.pack(">QQ", index, number)


def _end_place(index: int, number: int) -> bytes:
    return _place(index, number) + END_PLACE
