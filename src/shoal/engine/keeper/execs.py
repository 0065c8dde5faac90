"""One command that the keeper runs in a container (`runc exec`): its start and its end. No event loop here.

The keeper is its parent, as runc leaves at once; its streams are the engine's business: FIFOs whose other ends the
engine holds, or a terminal whose master runc hands to the engine's own socket. They belong to one client, and go with
it. Nothing of it is on disk: an engine that starts anew knows no execs, as Docker's does not.
"""

from __future__ import annotations

import os
import time
from typing import Any

from shoal.engine.keeper import processes

MOST_START_SECONDS = 60.0


class KeptExec:
    """A command from the request to run it until its end is told.

    `request` is what the engine sent: id, container, directory, runc_root, terminal, console_socket, and of stdin,
    stdout, stderr whether each is a FIFO of that name in `directory` (else /dev/null).
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.id: str = request["id"]
        self.directory: str = request["directory"]
        self.pid = 0
        self.deadline = 0.0
        self.waiting: list[tuple[int, int]] = []  # (client, seq) that asked for the start

    def start_runc(self) -> int:
        """Start runc; return runc's pid. Raises OSError."""
        inputs: list[int] = []
        try:
            for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
                inputs.append(self._open(name, flags))
            runc_pid = processes.spawn(self._runc_arguments(), *inputs)
        finally:
            for descriptor in inputs:
                os.close(descriptor)
        self.deadline = time.monotonic() + MOST_START_SECONDS
        return runc_pid

    def _open(self, name: str, flags: int) -> int:
        if self.request.get("terminal") or not self.request.get(name):
            return os.open(os.devnull, flags | os.O_CLOEXEC)
        # not blocking: should the engine be gone this fails, and the keeper does not hang
        descriptor = os.open(f"{self.directory}/{name}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        return descriptor

    def _runc_arguments(self) -> list[str]:
        arguments = ["runc", "--root", self.request["runc_root"], "--log", f"{self.directory}/runc.log"]
        arguments += ["--log-format", "json", "exec", "--detach", "--pid-file", f"{self.directory}/pid"]
        arguments += ["--process", f"{self.directory}/process.json"]
        if self.request.get("terminal"):
            arguments += ["--console-socket", self.request["console_socket"]]
        return [*arguments, self.request["container"]]
