"""Entry of the keeper: `python -m shoal.engine.keeper --exec-root DIRECTORY --data-root DIRECTORY --name NAME`.

The engine starts it when none answers. A lock held for life makes it the only one of its exec root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys

from shoal.engine.keeper.keeper import Keeper

LOCK_FILE = "keeper.lock"
SOCKET_FILE = "keeper.sock"
_OWN_CGROUP_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")


def _arguments(words: list[str]) -> dict[str, str]:
    values = dict(zip(words[0::2], words[1::2], strict=False))
    if len(words) % 2 or set(values) != {"--exec-root", "--data-root", "--name"}:
        sys.exit("usage: python -m shoal.engine.keeper --exec-root DIRECTORY --data-root DIRECTORY --name NAME")
    return values


def _is_cgroup(mount: str) -> bool:
    # with version 1 /sys/fs/cgroup is a tmpfs that holds the hierarchies: a file written there would be a mere file
    return any(os.path.exists(f"{mount}/{name}") for name in ("cgroup.controllers", "tasks"))  # noqa: PTH110


def _move_to(cgroup: str) -> None:
    descriptor = os.open(f"{cgroup}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, b"%d" % os.getpid())
    finally:
        os.close(descriptor)


def _leave_the_daemons_cgroup(name: str) -> None:
    """Move to a cgroup of its own where a service manager tracks processes: it must not end us with the daemon."""
    for mount in _OWN_CGROUP_MOUNTS:
        if not _is_cgroup(mount):
            continue
        with contextlib.suppress(OSError):
            os.makedirs(f"{mount}/{name}", exist_ok=True)  # noqa: PTH103
            _move_to(f"{mount}/{name}")


def _remove_own_cgroup(name: str) -> None:
    for mount in _OWN_CGROUP_MOUNTS:
        if not _is_cgroup(mount):
            continue
        with contextlib.suppress(OSError):
            _move_to(mount)
            os.rmdir(f"{mount}/{name}")  # noqa: PTH106


def main() -> None:
    """Run the keeper until it is told to stop."""
    values = _arguments(sys.argv[1:])
    exec_root, data_root = values["--exec-root"], values["--data-root"]
    os.chdir("/")
    lock = os.open(f"{exec_root}/{LOCK_FILE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another keeper serves this exec root")
    _leave_the_daemons_cgroup(values["--name"])
    Keeper(f"{exec_root}/{SOCKET_FILE}", f"{data_root}/containers").run()
    _remove_own_cgroup(values["--name"])


if __name__ == "__main__":
    main()
