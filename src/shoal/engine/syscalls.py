"""System calls that Python has no function for: mount, umount2, openat2, syncfs.

Called from threads: libc is loaded so that calls release the interpreter lock. Knows nothing of containers.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MNT_DETACH = 2
TMPFS_MAGIC = 0x01021994
_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_NO_MAGICLINKS = 0x02

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: Path, filesystem: str, flags: int, options: str) -> None:
    """Mount `filesystem` on `target`. Raises OSError with the kernel's errno."""
    result = _libc.mount(
        source.encode(), os.fsencode(target), filesystem.encode(), ctypes.c_ulong(flags), options.encode()
    )
    _check(result, str(target))


def unmount(target: Path) -> None:
    """Take the mount on `target` away, later if it is busy; a target that is no mount is no failure."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH) < 0 and ctypes.get_errno() not in {2, 22}:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def syncfs(directory: Path) -> None:
    """Write what the filesystem of `directory` holds in memory to its disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(_libc.syncfs(descriptor), str(directory))
    finally:
        os.close(descriptor)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in_root(root: Path, path: str, flags: int = os.O_RDONLY) -> int:
    """Open `path` as if `root` were the root directory: symbolic links never lead out of it. Raises OSError."""
    root_descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
        result = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(root_descriptor),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        return _check(result, path)
    finally:
        os.close(root_descriptor)


def read_in_root(root: Path, path: str, most_bytes: int = 1 << 20) -> str:
    """Return the text of `path` inside `root`, or nothing if there is no such regular file."""
    try:
        descriptor = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most_bytes).decode("utf-8", "replace")


class _StatFs(ctypes.Structure):
    _fields_ = [("type", ctypes.c_long), ("rest", ctypes.c_byte * 248)]


def is_tmpfs(path: Path) -> bool:
    """Whether `path` lies on a tmpfs (or ramfs' cousin): memory that is never written to a disk but swap."""
    buffer = _StatFs()
    _check(_libc.statfs(os.fsencode(path), ctypes.byref(buffer)), str(path))
    return bool(buffer.type == TMPFS_MAGIC)
