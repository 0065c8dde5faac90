"""A cgroup of its own for a process that must outlive the daemon that started it. Standard library only."""

from __future__ import annotations

import contextlib
import os

_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")


def _is_cgroup(mount: str) -> bool:
    # with version 1 /sys/fs/cgroup is a tmpfs that holds the hierarchies: a file written there would be a mere file
    return any(os.path.exists(f"{mount}/{name}") for name in ("cgroup.controllers", "tasks"))  # noqa: PTH110


def _move_to(cgroup: str) -> None:
    descriptor = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"%d" % os.getpid())
    finally:
        os.close(descriptor)


def move_to_own(name: str) -> None:
    """Move this process to a cgroup where a service manager tracks processes: it must not end us with the daemon."""
    for mount in _MOUNTS:
        if not _is_cgroup(mount):
            continue
        with contextlib.suppress(OSError):
            os.makedirs(f"{mount}/{name}", exist_ok=True)  # noqa: PTH103
            _move_to(f"{mount}/{name}")


def remove_own(name: str) -> None:
    """Move this process out of it again, and take it away."""
    for mount in _MOUNTS:
        if not _is_cgroup(mount):
            continue
        with contextlib.suppress(OSError):
            _move_to(mount)
            os.rmdir(f"{mount}/{name}")  # noqa: PTH106


def remove(name: str) -> None:
    """Take it away after the process that made it was killed."""
    for mount in _MOUNTS:
        with contextlib.suppress(OSError):
            os.rmdir(f"{mount}/{name}")  # noqa: PTH106
