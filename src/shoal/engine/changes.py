"""What a container has changed in its image's files (`docker diff`): its own layer beside those of the image. Blocking.

The container may change its layer meanwhile: it is walked by descriptors, and no symbolic link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shoal.engine.copying import is_opaque, is_whiteout
from shoal.model.container import ChangeKind, FileChange

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def changes_of(upper: Path, layers: tuple[Path, ...]) -> tuple[FileChange, ...]:
    """Return what was changed, by path.

    Args:
        upper: the container's own layer.
        layers: directories of its image's layers, highest first.
    """
    if not upper.is_dir():
        return ()
    descriptor = os.open(upper, _DIRECTORY)
    try:
        return tuple(_walk(descriptor, layers, ""))
    finally:
        os.close(descriptor)


def _walk(descriptor: int, layers: tuple[Path, ...], prefix: str) -> Iterator[FileChange]:
    for name in sorted(os.listdir(descriptor)):
        path = f"{prefix}/{name}"
        try:
            found = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue
        was_there = _is_in(layers, name)
        if is_whiteout(found):
            if was_there:
                yield FileChange(path=path, kind=ChangeKind.DELETED)
            continue
        yield FileChange(path=path, kind=ChangeKind.MODIFIED if was_there else ChangeKind.ADDED)
        if stat.S_ISDIR(found.st_mode):
            yield from _walk_below(descriptor, name, _directories(layers, name), path)


def _walk_below(parent: int, name: str, layers: tuple[Path, ...], path: str) -> Iterator[FileChange]:
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError:
        return  # it is something else by now
    try:
        if is_opaque(f"/proc/self/fd/{descriptor}"):
            # made anew: what was in it is gone, all but what there is again
            there = {entry.name for entry in os.scandir(descriptor)}
            for hidden in sorted({entry.name for layer in layers for entry in layer.iterdir()} - there):
                if _is_in(layers, hidden):
                    yield FileChange(path=f"{path}/{hidden}", kind=ChangeKind.DELETED)
        yield from _walk(descriptor, layers, path)
    finally:
        os.close(descriptor)


def _is_in(layers: tuple[Path, ...], name: str) -> bool:
    """Tell whether merged directories, highest first, have an entry."""
    for layer in layers:
        try:
            return not is_whiteout((layer / name).lstat())
        except FileNotFoundError:
            continue
    return False


def _directories(layers: tuple[Path, ...], name: str) -> tuple[Path, ...]:
    """Return the directories that merge into one of merged directories, highest first."""
    found = []
    for layer in layers:
        below = layer / name
        try:
            status = below.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            break
        found.append(below)
        if is_opaque(below):
            break
    return tuple(found)
