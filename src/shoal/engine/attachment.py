"""The stream of a client that is attached to a container: what was said before, what is said now, and the way in.

Knows the keeper's listener, the log and the container's stdin; not who listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

from shoal.engine.descriptors import Descriptor
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.keeper_listener import KeeperListener
from shoal.engine.log_reader import read_log
from shoal.engine.rootfs import Layout
from shoal.errors import Conflict, Unavailable
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
        end_input: called when this client's input has ended and the container's stdin is to end with it.
    """

    def __init__(
        self,
        options: AttachOptions,
        lines: AsyncIterator[LogLine] | None,
        listener: KeeperListener | None,
        stdin: Path | None,
        accepts_input: bool,
        end_input: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        wanted = {"stdout": options.stdout, "stderr": options.stderr}
        self._wanted = {name for name, is_wanted in wanted.items() if is_wanted}
        self._lines = lines
        self._listener = listener
        self._input: Descriptor | None = None
        self._stdin = stdin
        self._takes_input = listener is not None and options.stdin and accepts_input
        self._end_input = end_input if self._takes_input else None
        self._begun = asyncio.Event()
        if listener is None or not listener.waits:
            self._open_input()

    def _open_input(self) -> None:
        """Open the way in; the container runs by now."""
        if self._takes_input and self._listener is not None:
            self._input = self._listener.terminal
            if self._stdin is not None:
                with contextlib.suppress(OSError):  # nobody reads it: what is typed is dropped
                    self._input = Descriptor(os.open(self._stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        self._begun.set()

    async def read(self) -> Output | None:
        """Return the next piece of output, None at the end of the container."""
        while self._lines is not None:
            try:
                line = await anext(self._lines)
            except StopAsyncIteration:
                self._lines = None
            else:
                return Output(stream=line.stream, data=line.data)
        if not self._begun.is_set() and self._listener is not None:
            has_started = await self._listener.start()
            self._open_input()
            if not has_started:
                return None
        while self._listener is not None and (piece := await self._listener.read()) is not None:
            if piece.stream in self._wanted:
                return piece
        return None

    async def write(self, data: bytes) -> None:
        """Give the container input; dropped if it does not read."""
        await self._begun.wait()
        if self._input is not None and not await self._input.write(data):
            self._input = None

    async def close_input(self) -> None:
        """Write no more. Without StdinOnce the container's stdin stays open for the next client, as with Docker."""
        await self._begun.wait()
        await self._leave_input()

    async def close(self) -> None:
        """Let go of the container."""
        await self._leave_input()
        if self._listener is not None:
            self._listener.close()

    async def _leave_input(self) -> None:
        self._close_input()
        end_input, self._end_input = self._end_input, None
        if end_input is not None and self._begun.is_set():
            with contextlib.suppress(Unavailable):
                await end_input()

    def _close_input(self) -> None:
        if self._input is not None and (self._listener is None or self._input is not self._listener.terminal):
            self._input.close()
        self._input = None


async def attach(layout: Layout, keeper: KeeperClient, container: Container, options: AttachOptions) -> Attachment:
    """Attach to a container. Raises Conflict if it is paused, Unavailable if the keeper does not answer."""
    config, listener, lines = container.config, None, None
    if container.state.paused:
        raise Conflict(f"container {container.id} is paused, unpause the container before attach")
    if options.stream and (config.plain is not None or container.state.status == "running"):
        listener = await keeper.listen(container.id, pending=options.logs, wait=config.plain is not None)
    if options.logs and config.log_driver != "none":
        # up to where the listener begins: no line twice, none left out
        until_ns = listener.at_ns if listener is not None else 0
        wanted = LogOptions(stdout=options.stdout, stderr=options.stderr, until_ns=until_ns)
        lines = read_log(Path(container.log_path), wanted, lambda: True)
    stdin = layout.bundle(container.id) / "stdin" if config.open_stdin and not config.tty else None
    end_input = None
    if stdin is not None and config.plain is not None and config.plain.stdin_once:
        end_input = partial(keeper.request, "close-stdin", id=container.id)
    return Attachment(options, lines, listener, stdin, config.open_stdin, end_input)
