"""Processes as the keeper needs them: subreaper, start times (a pid is used again), runc as a child."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NAME = 15
_PF_EXITING = 0x4
_libc = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Be the parent of all orphans below this process: containers, once runc has gone. Raises OSError."""
    if _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "PR_SET_CHILD_SUBREAPER")
    _libc.prctl(_PR_SET_NAME, b"shoal-keeper", 0, 0, 0)


def start_time(pid: int) -> int:
    """Return when a process started (clock ticks since boot), or 0 if it is gone."""
    fields = _stat_fields(pid)
    return int(fields[19]) if fields else 0


def is_ending(pid: int) -> bool:
    """Whether a process is gone, or going: the kernel says so of a container's first one before it kills the others."""
    fields = _stat_fields(pid)
    return not fields or bool(int(fields[6]) & _PF_EXITING)


def _stat_fields(pid: int) -> list[bytes]:
    """Return what /proc/PID/stat says after the name (proc(5)), the state first; nothing if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - pathlib is a large import
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        return file.read().strip()


def open_pidfd(pid: int, started: int) -> int:
    """Return a descriptor of the process that has `pid` and started at `started`, or -1 if it is gone."""
    if pid <= 0:
        return -1
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return -1
    if not started or start_time(pid) != started:
        os.close(descriptor)
        return -1
    return descriptor


def spawn(arguments: list[str], standard_input: int, standard_output: int, standard_error: int) -> int:
    """Start a program with these descriptors as its stdio; return its pid. Raises OSError."""
    return os.posix_spawnp(
        arguments[0],
        arguments,
        {"PATH": os.environ.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, standard_input, 0),
            (os.POSIX_SPAWN_DUP2, standard_output, 1),
            (os.POSIX_SPAWN_DUP2, standard_error, 2),
        ],
        setsigmask=[],
        # Python ignores these two; a container must not inherit that
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


def exit_code(status: int) -> int:
    """Return the exit code of a wait status as Docker writes it: 128 + n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def read_json(path: str) -> dict[str, Any]:
    """Return the object in a file, or an empty one if there is none (or half of one: those were never acknowledged)."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            content = json.loads(file.read())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: str, content: dict[str, Any], sync: bool) -> None:
    """Put an object into a file, atomically; with `sync` it is on disk when this returns."""
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(content).encode())
        if sync:
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)  # noqa: PTH104
    if sync:
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)  # noqa: PTH120
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read_pid(path: str) -> int:
    """Return the pid that runc has written, or 0."""
    try:
        with open(path) as file:  # noqa: PTH123 - pathlib is a large import
            return int(file.read())
    except (OSError, ValueError):
        return 0


def runc_error(log_path: str) -> str:
    """Return the last error in a JSON log of runc."""
    try:
        with open(log_path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            lines = file.read().splitlines()
    except OSError:
        return ""
    for line in reversed(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("level") in {"error", "fatal"}:
            return str(record.get("msg", ""))
    return ""


def was_oom_killed(cgroup: str) -> bool:
    """Whether the kernel has killed a process of a memory cgroup for want of memory.

    Args:
        cgroup: the directory of the container's cgroup that holds the memory controller (v1 or v2).
    """
    for name in ("memory.oom_control", "memory.events"):
        try:
            with open(f"{cgroup}/{name}") as file:  # noqa: PTH123
                for line in file:
                    word, _, count = line.partition(" ")
                    if word == "oom_kill" and count.strip() != "0":
                        return True
        except OSError:
            continue
    return False
