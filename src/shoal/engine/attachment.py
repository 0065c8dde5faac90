"""The stream of a client that is attached to a container: what was said before, what is said now, and the way in.

Knows the keeper's listener, the log and the container's stdin; not who listens.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from shoal.engine.descriptors import Descriptor
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.keeper_listener import KeeperListener
from shoal.engine.log_reader import read_log
from shoal.engine.rootfs import Layout
from shoal.errors import Conflict
from shoal.model.container import Container, LogLine, LogOptions
from shoal.model.streams import AttachOptions, Output


class Attachment:
    """See `protocol.ContainerStream`.

    Args:
        options: what the client wants.
        lines: what was said before; None if that is not wanted.
        listener: what is said now; None if that is not wanted, or the container does not run.
        stdin: the FIFO of the container's stdin, None if it has none.
        accepts_input: whether the container's stdin is open at all: its FIFO, or the terminal of the listener.
    """

    def __init__(
        self,
        options: AttachOptions,
        lines: AsyncIterator[LogLine] | None,
        listener: KeeperListener | None,
        stdin: Path | None,
        accepts_input: bool,
    ) -> None:
        wanted = {"stdout": options.stdout, "stderr": options.stderr}
        self._wanted = {name for name, is_wanted in wanted.items() if is_wanted}
        self._lines = lines
        self._listener = listener
        self._input: Descriptor | None = None
        if listener is not None and options.stdin and accepts_input:
            self._input = listener.terminal
            if stdin is not None:
                with contextlib.suppress(OSError):  # nobody reads it: what is typed is dropped
                    self._input = Descriptor(os.open(stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    async def read(self) -> Output | None:
        """Return the next piece of output, None at the end of the container."""
        while self._lines is not None:
            try:
                line = await anext(self._lines)
            except StopAsyncIteration:
                self._lines = None
            else:
                return Output(stream=line.stream, data=line.data)
        while self._listener is not None and (piece := await self._listener.read()) is not None:
            if piece.stream in self._wanted:
                return piece
        return None

    async def write(self, data: bytes) -> None:
        """Give the container input; dropped if it does not read."""
        if self._input is not None and not await self._input.write(data):
            self._input = None

    async def close_input(self) -> None:
        """Write no more. The container's stdin stays open for the next client, as with Docker without StdinOnce."""
        self._close_input()

    async def close(self) -> None:
        """Let go of the container."""
        self._close_input()
        if self._listener is not None:
            self._listener.close()

    def _close_input(self) -> None:
        if self._input is not None and (self._listener is None or self._input is not self._listener.terminal):
            self._input.close()
        self._input = None


async def attach(layout: Layout, keeper: KeeperClient, container: Container, options: AttachOptions) -> Attachment:
    """Attach to a container. Raises Conflict if it is paused, Unavailable if the keeper does not answer."""
    config, listener, lines = container.config, None, None
    if container.state.paused:
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if options.stream and container.state.status == "running":
        listener = await keeper.listen(container.id, pending=options.logs)
    if options.logs and config.log_driver != "none":
        # up to where the listener begins: no line twice, none left out
        until_ns = listener.at_ns if listener is not None else 0
        wanted = LogOptions(stdout=options.stdout, stderr=options.stderr, until_ns=until_ns)
        lines = read_log(Path(container.log_path), wanted, lambda: True)
    stdin = layout.bundle(container.id) / "stdin" if config.open_stdin and not config.tty else None
    return Attachment(options, lines, listener, stdin, config.open_stdin)
