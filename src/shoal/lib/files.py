"""Writing files so that a reader sees the old or the new content, never half of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path


def write_atomically(path: Path, content: bytes, mode: int = 0o600, sync: bool = True) -> None:
    """Put `content` at `path` by a temporary file and a rename; with `sync` it is on disk when this returns."""
    temporary = path.with_name(f".{path.name}.tmp")
    _write(temporary, (content,), mode, sync)
    temporary.replace(path)
    if sync:
        sync_directory(path.parent)


def write_stream(path: Path, pieces: Iterable[bytes], mode: int = 0o600, sync: bool = True) -> None:
    """Put what comes in pieces at `path` once all of it is there; if it never is, nothing of it stays."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        _write(partial, pieces, mode, sync)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, pieces: Iterable[bytes], mode: int, sync: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(pieces)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Make the names in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> None:
    """Remove a directory and all below it; absent is fine, symbolic links are removed and not followed."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if path.exists():  # somebody else removes it, too
            shutil.rmtree(path)


def size_of_tree(path: Path) -> int:
    """Return the bytes of all files below a directory, each counted once; none is none."""
    total, seen = 0, set()
    if not path.is_dir():
        return 0
    for _, _, files, descriptor in os.fwalk(path):
        for file in files:
            try:
                status = os.stat(file, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_size
    return total
