"""The processes of a node: started, found, signalled and waited for, each known by pid and start time. Blocking."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shoal.errors import ShoalError
from shoal.lab.kernel import cgroups_of, is_mounted, namespace_path
from shoal.lab.plan import Process

KILL_SECONDS = 20.0
POLL_SECONDS = 0.02
_ENDED = ("Z", "X")
_STOPPED = ("T", "t")


def _read_stat(pid: int) -> tuple[str, int] | None:
    """Return the state letter of a process and when it started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return fields[0].decode(), int(fields[19])


def identify(pid: int) -> Process | None:
    """Return who has this number now, None if nobody has."""
    stat = _read_stat(pid)
    return Process(pid=pid, started=stat[1]) if stat is not None and stat[0] not in _ENDED else None


def is_running(process: Process | None) -> bool:
    """Whether a process has not ended; takes note of the end of one that was started here."""
    if process is None:
        return False
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)
    return identify(process.pid) == process


def is_frozen(process: Process) -> bool:
    """Whether it is stopped by a signal."""
    stat = _read_stat(process.pid)
    return stat is not None and stat[1] == process.started and stat[0] in _STOPPED


def spawn(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> Process:
    """Start a program in a session of its own, so that it outlives the caller; its output goes to the end of `log`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawnp(
        command[0],
        list(command),
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    process = identify(pid)
    if process is None:
        os.waitpid(pid, 0)
        raise ShoalError(f"{command[0]} ended at once: see {log}")
    return process


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to this process and to no other that has got its number; returns whether it was there."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if identify(process.pid) != process:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def wait_for_end(process: Process, seconds: float) -> bool:
    """Wait until a process has ended; returns whether it has."""
    deadline = time.monotonic() + seconds
    while is_running(process):
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:
            select.select([handle], [], [], left)
        finally:
            os.close(handle)
    return True


def wait_until(look: Callable[[], bool], seconds: float) -> bool:
    """Look again and again until it is so or the time is over; returns whether it is so."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


class Host:
    """The processes of one node, as the kernel shows them: nothing here depends on what a lab remembers.

    Args:
        lab: name of the lab.
        node: name of the node.
        root: directory of the node: its data and its sockets are below it.
        uts: where its uts namespace is mounted.
    """

    def __init__(self, lab: str, node: str, root: Path, uts: Path) -> None:
        self._namespace = namespace_path(lab, node)
        self._uts = uts
        self._root = root

    def find_daemon(self) -> Process | None:
        """Return the shoald of this node."""
        return next((process for process, words in self._served() if "shoal.daemon.main" in words), None)

    def _served(self) -> list[tuple[Process, list[str]]]:
        """Return the processes that were given a directory of this node: daemon, keeper, resolver."""
        found = []
        for pid in _pids():
            words = _command_line(pid)
            is_ours = any(word.startswith("shoal.") for word in words)
            if is_ours and any(word.startswith(f"{self._root}/") for word in words):
                process = identify(pid)
                if process is not None:
                    found.append((process, words))
        return found

    def kill(self, daemon_id: str) -> None:
        """SIGKILL everything that runs on this node: the daemon and its keeper first, so that they tell nobody.

        Args:
            daemon_id: names the cgroups of its containers; empty if it has never started.

        Raises:
            ShoalError: something does not end.
        """
        served = [process for process, _ in self._served()]
        for process in served:
            send(process, signal.SIGKILL)
        for process in served:
            wait_for_end(process, KILL_SECONDS)
        if not wait_until(lambda: not self._kill_rest(daemon_id), KILL_SECONDS):
            raise ShoalError(f"these do not end: {self._kill_rest(daemon_id)}")

    def _kill_rest(self, daemon_id: str) -> list[Process]:
        """SIGKILL what is there, and return it: empty once all have ended."""
        pids = set(self._members())
        for cgroup in cgroups_of(daemon_id) if daemon_id else ():
            for listing in cgroup.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    pids |= {int(line) for line in listing.read_text().split()}
        rest = [process for process in (*map(identify, pids), *(p for p, _ in self._served())) if process is not None]
        for process in rest:
            send(process, signal.SIGKILL)
            is_running(process)
        return rest

    def _members(self) -> list[int]:
        """Return the processes in the node's namespaces."""
        own = {kind: _inode(path) for kind, path in (("net", self._namespace), ("uts", self._uts)) if is_mounted(path)}
        return [
            pid
            for pid in _pids()
            if pid != os.getpid()
            and any(
                inode is not None and inode == _inode(Path(f"/proc/{pid}/ns/{kind}")) for kind, inode in own.items()
            )
        ]


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]  # noqa: PTH208


def _command_line(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
