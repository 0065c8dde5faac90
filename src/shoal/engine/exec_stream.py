"""The streams of one command in a container: what it says, and the way in. Knows descriptors, not containers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from collections.abc import Iterable
from pathlib import Path

from shoal.engine.descriptors import Descriptor
from shoal.errors import InvalidArgument
from shoal.model.streams import Output

# pieces of output that wait for a slow client; then the command waits
QUEUE_PIECES = 16
# as Docker: how long a command's children may hold its output open after its end
GRACE_SECONDS = 2.0
_GRACE_CHECKS = 4


class ExecStream:
    """See `protocol.ContainerStream`. `ended` is set when the command has ended.

    Made empty; given FIFOs (before the start, which opens their other ends) or a terminal (after it), then begun.
    """

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended
        self._queue: asyncio.Queue[Output | None] = asyncio.Queue(QUEUE_PIECES)
        self._outputs: dict[str, Descriptor] = {}
        self._input: Descriptor | None = None
        self._input_guard = -1
        self._terminal: Descriptor | None = None
        self._is_let_go = False
        self._task: asyncio.Task[None] | None = None

    def open_fifos(self, directory: Path, names: Iterable[str]) -> None:
        """Open our ends of the FIFOs `names` (of stdin, stdout, stderr) in `directory`."""
        for name in names:
            path = directory / name
            if name == "stdin":
                # with a reader of ours it can be opened for writing before the command is there
                self._input_guard = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                self._input = Descriptor(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            else:
                self._outputs[name] = Descriptor(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def use_terminal(self, master: int, attach_stdin: bool) -> None:
        """Take the master of the command's terminal."""
        self._terminal = Descriptor(master)
        self._outputs["stdout"] = self._terminal
        self._input = self._terminal if attach_stdin else None

    def begin(self) -> None:
        """Read what the command says, from now until it has ended."""
        self._close_guard()
        self._task = asyncio.create_task(self._read_all(), name="exec output")

    def resize(self, height: int, width: int) -> bool:
        """Give the terminal a size in characters; False if there is none. Raises InvalidArgument."""
        if self._terminal is None or self._terminal.number < 0:
            return False
        try:
            termios.tcsetwinsize(self._terminal.number, (height, width))
        except (OverflowError, ValueError):
            raise InvalidArgument(f"invalid size of a terminal: {height} by {width}") from None
        except OSError:
            return False
        return True

    async def read(self) -> Output | None:
        """Return the next piece of output, None once the command has ended and all is read."""
        if self._is_let_go:
            return None
        return await self._queue.get()

    async def write(self, data: bytes) -> None:
        """Give the command input; dropped if it does not read any more."""
        if self._input is not None and not await self._input.write(data):
            await self.close_input()

    async def close_input(self) -> None:
        """End the command's stdin; a terminal stays open."""
        if self._input is not None and self._input is not self._terminal:
            self._input.close()

    async def close(self) -> None:
        """Let go: the command goes on, what it says is dropped."""
        self._is_let_go = True
        await self.close_input()
        self._empty()

    async def abort(self) -> None:
        """Close all at once; the command sees its streams break."""
        self._is_let_go = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._close_all()

    def _empty(self) -> None:
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                self._queue.get_nowait()

    async def _read_all(self) -> None:
        try:
            readers = [asyncio.create_task(self._pump(name, output)) for name, output in self._outputs.items()]
            ended = asyncio.create_task(self._ended.wait())
            try:
                await ended
                await self._wait_for_the_rest(readers)
            finally:
                for task in (*readers, ended):
                    task.cancel()
                await asyncio.gather(*readers, ended, return_exceptions=True)
            if not self._is_let_go:
                await self._queue.put(None)
        finally:
            self._close_all()

    async def _wait_for_the_rest(self, readers: list[asyncio.Task[None]]) -> None:
        """Wait until all is read that was said; a child of the command that holds its output open is not waited for."""
        idle = 0
        while readers and idle < _GRACE_CHECKS:
            _, pending = await asyncio.wait(readers, timeout=GRACE_SECONDS / _GRACE_CHECKS)
            if not pending:
                return
            # a full queue: the client is slow, the rest is still to come
            idle = 0 if self._queue.full() else idle + 1

    async def _pump(self, name: str, output: Descriptor) -> None:
        while data := await output.read():
            if not self._is_let_go:
                await self._queue.put(Output(stream=name, data=data))

    def _close_guard(self) -> None:
        if self._input_guard >= 0:
            os.close(self._input_guard)
            self._input_guard = -1

    def _close_all(self) -> None:
        self._close_guard()
        for descriptor in (*self._outputs.values(), self._input):
            if descriptor is not None:
                descriptor.close()
