"""Published ports on IPv6: `[::]` and `[::1]` answer through a process of its own (docs/adr/0006), started when needed.

It outlives this daemon, so that its connections do. Blocking, for moments only: runs in the network's worker thread.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import structlog

import shoal
from shoal.lib.files import write_atomically
from shoal.network.proxy_process import DIRECTORY, LOCK_FILE, LOCK_RETRY_SECONDS, SOCKET_FILE, WANTED_FILE
from shoal.network.state import KernelState

_log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0
PROXIED = ("tcp", "udp")

Forward = tuple[str, int, str, int]


def proxied(state: KernelState, sandbox_end: str) -> tuple[Forward, ...]:
    """Return what the proxy is to pass on: protocol, port, address and port there. Host ports win, as in the kernel.

    What is published on one address of IPv4 is none of its business.
    """
    made = {
        port.key: (port.protocol, port.published_port, sandbox_end, port.published_port)
        for port in state.balanced
        if port.protocol in PROXIED
    }
    made |= {
        (port.protocol, port.published_port): (port.protocol, port.published_port, port.address, port.target_port)
        for port in state.forwarded
        if port.protocol in PROXIED and not port.host_address
    }
    return tuple(made[key] for key in sorted(made))


def host_has_ipv6() -> bool:
    """Tell whether the kernel has IPv6 at all."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


class ProxySide:
    """What the proxy is to do. Its files are among the records of the network, and go with them."""

    def __init__(self, exec_root: Path) -> None:
        self._exec_root = exec_root
        self._directory = exec_root / DIRECTORY
        self._child_pid = 0
        self._wanted: tuple[Forward, ...] = ()

    def lead_to(self, wanted: tuple[Forward, ...]) -> None:
        """Have these passed on, and nothing else. Does not wait until the process has done so."""
        before, self._wanted = self._wanted, wanted
        path = self._directory / WANTED_FILE
        if (wanted or before or path.exists()) and host_has_ipv6():
            value = json.dumps({"version": shoal.__version__, "forwards": wanted}).encode()
            try:
                is_new = path.read_bytes() != value
            except FileNotFoundError:
                is_new = True
            if is_new:
                write_atomically(path, value, sync=False)
            if is_new or wanted:
                self.ensure(poke=is_new)

    def ensure(self, poke: bool = False) -> None:
        """Start the process if none serves, or one of another version; tell it of a change."""
        self._reap()
        holder = self._holder()
        try:
            if holder is not None and poke:
                self._poke()
            if self._wanted and not self._child_pid and (holder is None or holder != shoal.__version__):
                self._spawn()
        except OSError as error:
            _log.warning("published ports do not answer on IPv6", reason=str(error))

    def stop(self) -> None:
        """End the process, and wait for that."""
        (self._directory / WANTED_FILE).unlink(missing_ok=True)
        self._wanted = ()
        deadline = time.monotonic() + STOP_SECONDS
        while self._holder() is not None and time.monotonic() < deadline:
            self._poke()
            time.sleep(LOCK_RETRY_SECONDS)
        self._reap()
        if self._child_pid and self._holder() is None:
            # it has only just been started and serves nothing: nobody could tell it, and it would make its lock anew
            os.kill(self._child_pid, signal.SIGKILL)
            os.waitpid(self._child_pid, 0)
            self._child_pid = 0

    def _holder(self) -> str | None:
        """Return the version of the process that serves, None if none does."""
        try:
            descriptor = os.open(self._directory / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.pread(descriptor, 200, 0).decode().partition(" ")[2]
        else:
            return None
        finally:
            os.close(descriptor)

    def _poke(self) -> None:
        place = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        poking = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            poking.sendto(b"!", f"/proc/self/fd/{place}/{SOCKET_FILE}")
        except OSError as error:
            # not there yet, or full: it reads the file anyway
            _log.debug("the proxy was not told", reason=str(error))
        finally:
            poking.close()
            os.close(place)

    def _spawn(self) -> None:
        source = str(Path(shoal.__file__).parent.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        # a session of its own: a signal to the daemon's terminal or group does not reach it
        self._child_pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "shoal.network.proxy_process", str(self._exec_root)],
            {**os.environ, "PYTHONPATH": source},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._directory / "proxy.log"), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        _log.info("started the proxy for published ports on IPv6", pid=self._child_pid)

    def _reap(self) -> None:
        """Notice that a process of this daemon's making has ended; it must not stay a zombie."""
        if self._child_pid:
            try:
                ended, _ = os.waitpid(self._child_pid, os.WNOHANG)
            except ChildProcessError:
                ended = self._child_pid
            self._child_pid = 0 if ended else self._child_pid
