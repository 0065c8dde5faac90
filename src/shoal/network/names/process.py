"""The resolver as a process of the daemon's making: spawn, reap, wait for its end, take its files away.

Knows nothing of what is said to it.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from pathlib import Path

import structlog

import shoal
from shoal.lib.cgroups import remove
from shoal.lib.files import remove_tree
from shoal.network.names import messages

_log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.01


class ResolverProcess:
    """See the module; `name` is its cgroup. `pid`: of the last one of our making, 0 after its end was seen."""

    def __init__(self, exec_root: Path, name: str, host_resolver_file: Path) -> None:
        self._exec_root = exec_root
        self._name = name
        self._host_resolver_file = host_resolver_file
        self.pid = 0

    def spawn(self) -> None:
        """Start one. It sends away whoever serves the exec root."""
        arguments = [sys.executable, "-m", "shoal.network.names", "--exec-root", str(self._exec_root)]
        arguments += ["--name", self._name, "--host-resolver-file", str(self._host_resolver_file)]
        source = str(Path(shoal.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"}
        self._exec_root.mkdir(parents=True, exist_ok=True, mode=0o711)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        # a session of its own: a signal to the daemon's terminal or group does not reach it
        self.pid = os.posix_spawn(
            sys.executable,
            arguments,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._exec_root / messages.LOG_FILE), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        _log.info("resolver started, as none of this version answered", pid=self.pid)

    def has_ended(self, options: int = os.WNOHANG) -> bool:
        """Whether none of our making lives; one that has ended must not stay a zombie."""
        if self.pid:
            try:
                ended, _ = os.waitpid(self.pid, options)
            except ChildProcessError:
                ended = self.pid
            self.pid = 0 if ended else self.pid
        return self.pid == 0

    def wait_for_end(self, seconds: float) -> None:
        """Wait until nobody serves the exec root: who does holds a lock for life. Then take its files away."""
        deadline = time.monotonic() + seconds
        path = self._exec_root / messages.LOCK_FILE
        if not path.exists():
            return
        with path.open("rb") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        _log.warning("the resolver does not end", exec_root=str(self._exec_root))
                        return
                    time.sleep(_POLL_SECONDS)
                else:
                    break
            self._remove_traces()
        self.has_ended(0)

    def _remove_traces(self) -> None:
        for name in (messages.SOCKET_FILE, messages.LOG_FILE, messages.LOCK_FILE):
            (self._exec_root / name).unlink(missing_ok=True)
        remove_tree(self._exec_root / messages.STATE_DIRECTORY)
        # a resolver that was killed could not take its cgroup away
        remove(self._name)
