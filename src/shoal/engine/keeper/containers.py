"""One container as the keeper sees it: its files, its streams, its process. No event loop here.

Files, in the container's directory under the data root:

    running.json   {"boot", "runc_pid", "runc_started", "pid", "started", "started_at_ns", "request"}; pid 0: starting
    exit.json      {"code" or null, "finished_at_ns", "oom_killed", "started_at_ns"}: on disk before it is told
"""

from __future__ import annotations

import os
import signal
import socket
import termios
import time
from typing import Any

from shoal.engine.keeper import processes
from shoal.engine.keeper.forwarding import Forwarder
from shoal.engine.keeper.listeners import Audience
from shoal.engine.keeper.logfile import LogFile
from shoal.engine.keeper.streams import FifoStream, ScratchPipe, TerminalStream

RUNNING_FILE = "running.json"
EXIT_FILE = "exit.json"
MOST_START_SECONDS = 60.0


class KeptContainer:
    """A container from the request to run it until its exit is on disk.

    `request` is what the engine sent: id, directory, bundle, runc_root, cgroup, log, terminal, open_stdin, stdin_once.
    """

    def __init__(self, request: dict[str, Any], scratch: ScratchPipe) -> None:
        self.request = request
        self.id: str = request["id"]
        self.directory: str = request["directory"]
        self.bundle: str = request["bundle"]
        self.pid = 0
        self.started = 0
        self.started_at_ns = 0
        self.runc_pid = 0
        self.runc_started = 0
        self.pidfd = -1
        self.deadline = 0.0
        self.waiting: list[tuple[int, int]] = []  # (client, seq) that asked for the start
        self.streams: list[FifoStream | TerminalStream] = []
        self.console: socket.socket | None = None
        self.audience = Audience()
        self._stdin_guard = -1  # keeps stdin open between its clients
        self._scratch = scratch
        self._log: LogFile | None = None

    @property
    def is_running(self) -> bool:
        """Whether its process is known."""
        return self.pid > 0

    def start_runc(self) -> int:
        """Make the FIFOs and start runc on the bundle; return runc's pid. Raises OSError."""
        inputs: list[int] = []
        try:
            if self.request.get("terminal"):
                self._listen_for_terminal()
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                inputs += [null, null, null]
            else:
                inputs.append(self._open_stdin())
                for name in ("stdout", "stderr"):
                    _make_fifo(f"{self.bundle}/{name}")
                    # O_RDWR: with no reader there is neither SIGPIPE for the container nor a byte lost
                    inputs.append(os.open(f"{self.bundle}/{name}", os.O_RDWR | os.O_CLOEXEC))
                # before the start: what a container says before it ends at once must have a reader, too
                self.open_streams()
            self.save()
            self.runc_pid = processes.spawn(self._runc_arguments(), *inputs)
        finally:
            for descriptor in set(inputs):
                os.close(descriptor)
        self.runc_started = processes.start_time(self.runc_pid)
        self.deadline = time.monotonic() + MOST_START_SECONDS
        self.save()
        return self.runc_pid

    def _open_stdin(self) -> int:
        if not self.request.get("open_stdin"):
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        path = f"{self.bundle}/stdin"
        _make_fifo(path)
        if not self.request.get("stdin_once"):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # only its reader: once the guard and the clients have closed theirs, it sees the end
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._stdin_guard = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(reading, True)
        return reading

    def close_stdin(self) -> None:
        """Let stdin end with its last client."""
        if self._stdin_guard >= 0:
            os.close(self._stdin_guard)
            self._stdin_guard = -1

    def _runc_arguments(self) -> list[str]:
        arguments = ["runc", "--root", self.request["runc_root"], "--log", f"{self.bundle}/runc.log"]
        arguments += ["--log-format", "json", "run", "--detach", "--bundle", self.bundle]
        arguments += ["--pid-file", f"{self.bundle}/pid"]
        if self.request.get("terminal"):
            arguments += ["--console-socket", self.request["console_socket"]]
        return [*arguments, self.id]

    def _listen_for_terminal(self) -> None:
        path = self.request["console_socket"]
        _unlink(path)
        self.console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.console.bind(path)
        self.console.listen(1)

    def take_terminal(self) -> None:
        """Take the master of the terminal that runc has sent by now."""
        if self.console is None:
            return
        self.console.settimeout(1.0)
        connection, _ = self.console.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        self.close_console()
        self.streams.append(TerminalStream(descriptors[0], self.open_log(), self.audience))

    @property
    def terminal(self) -> TerminalStream | None:
        """The container's terminal, if it has one and this keeper holds its master."""
        return next((stream for stream in self.streams if isinstance(stream, TerminalStream)), None)

    def resize(self, height: int, width: int) -> bool:
        """Give the terminal a size in characters; False if there is none. Raises OSError."""
        if self.terminal is None:
            return False
        termios.tcsetwinsize(self.terminal.descriptor, (height, width))
        return True

    def close_console(self) -> None:
        """Stop waiting for a terminal."""
        if self.console is not None:
            self.console.close()
            self.console = None
            _unlink(self.request["console_socket"])

    def open_log(self) -> LogFile:
        """Open the log once."""
        if self._log is None:
            log = self.request.get("log") or {}
            forwarder = Forwarder(log["forward"]) if log.get("forward") else None
            self._log = LogFile(log.get("path", ""), log.get("max_bytes", 0), log.get("max_files", 1), forwarder)
        return self._log

    def open_streams(self) -> None:
        """Open the reading ends of the FIFOs, those that exist."""
        if self.request.get("terminal"):
            return
        for name in ("stdout", "stderr"):
            if os.path.exists(f"{self.bundle}/{name}"):  # noqa: PTH110
                path = f"{self.bundle}/{name}"
                self.streams.append(FifoStream(name, path, self.open_log(), self._scratch, self.audience))

    def save(self) -> None:
        """Write down what a later keeper needs to take this container over."""
        content = {
            "boot": processes.boot_id(),
            "runc_pid": self.runc_pid,
            "runc_started": self.runc_started,
            "pid": self.pid,
            "started": self.started,
            "started_at_ns": self.started_at_ns,
            "request": self.request,
        }
        processes.write_json(f"{self.directory}/{RUNNING_FILE}", content, sync=False)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what an earlier keeper has saved."""
        self.runc_pid, self.runc_started = saved["runc_pid"], saved["runc_started"]
        self.pid, self.started, self.started_at_ns = saved["pid"], saved["started"], saved["started_at_ns"]

    def finish(self, code: int | None) -> dict[str, Any]:
        """Log what is left, put the exit on disk, and return it. Closes all descriptors."""
        finished_at_ns = time.time_ns()
        self.drain_and_close()
        content = {
            "code": code,
            "finished_at_ns": finished_at_ns,
            "oom_killed": processes.was_oom_killed(self.request.get("memory_cgroup", "")),
            "started_at_ns": self.started_at_ns,
        }
        processes.write_json(f"{self.directory}/{EXIT_FILE}", content, sync=True)
        return content

    def drain_and_close(self) -> None:
        """Log what is left and close all descriptors."""
        for stream in self.streams:
            stream.drain()
        self.audience.end()
        self.close()

    def close(self) -> None:
        """Close all descriptors; what no log holds stays in the FIFOs."""
        self.audience.drop()
        for stream in self.streams:
            stream.close()
        self.streams.clear()
        if self._log is not None:
            self._log.close()
            self._log = None
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.close_stdin()
        self.close_console()

    def send_signal(self, number: int) -> bool:
        """Send a signal to the first process; False if it is gone."""
        if self.pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return False
        return True


def _make_fifo(path: str) -> None:
    try:
        os.mkfifo(path, 0o600)
    except FileExistsError:
        return  # the engine has made it, and holds it open: should this process die, its content lives on


def _unlink(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
