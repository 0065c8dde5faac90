"""Streams without processes, for the fake engine: a command says back what it is told, and ends with its input.

It keeps the contract of `protocol.ContainerStream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import Container, LogLine
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, Output, ProcessTable


class FakeStream:
    """A stream that says what it was told. `size` is the last size of its terminal."""

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        self._pieces: asyncio.Queue[Output | None] = asyncio.Queue()
        self._on_end = on_end
        self.size = (0, 0)
        self.is_closed = False

    def say(self, data: bytes, stream: str = "stdout") -> None:
        """Say something of itself."""
        self._pieces.put_nowait(Output(stream=stream, data=data))

    def end(self) -> None:
        """Come to the end."""
        self._on_end()
        self._pieces.put_nowait(None)

    async def read(self) -> Output | None:
        """Return what was said or told next, None at the end."""
        return await self._pieces.get()

    async def write(self, data: bytes) -> None:
        """Say it back."""
        self.say(data)

    async def close_input(self) -> None:
        """End."""
        self.end()

    async def close(self) -> None:
        """Be let go of."""
        self.is_closed = True


class FakeStreams:
    """Commands and attached clients of containers that are only records. `streams` are those made, newest last."""

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._execs: dict[str, ExecRecord] = {}
        self._streams_of_execs: dict[str, FakeStream] = {}
        self.streams: list[FakeStream] = []

    def exec_create(self, container: Container, config: ExecConfig) -> ExecRecord:
        """Prepare a command."""
        if not config.arguments:
            raise InvalidArgument("No exec command specified")
        _check_runs(container)
        record = ExecRecord(id=self._ids.new_hex(), container_id=container.id, config=config)
        self._execs[record.id] = record
        return record

    def exec_start(self, exec_id: str, detach: bool) -> FakeStream | None:
        """Start a command: it says back what it is told, and ends with code 0; detached it ends at once."""
        record = self.exec_inspect(exec_id)
        if record.running or record.exit_code is not None:
            raise Conflict(f"Error: Exec command {exec_id} has already run")
        self._execs[exec_id] = replace(record, running=not detach, exit_code=0 if detach else None)
        if detach:
            return None
        stream = FakeStream(lambda: self._end(exec_id))
        self._streams_of_execs[exec_id] = stream
        self.streams.append(stream)
        return stream

    def _end(self, exec_id: str) -> None:
        self._execs[exec_id] = replace(self._execs[exec_id], running=False, exit_code=0)

    def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Remember the size."""
        if not self.exec_inspect(exec_id).running:
            raise NotFound(f"process does not exist {exec_id}: not found")
        self._streams_of_execs[exec_id].size = (height, width)

    def exec_inspect(self, exec_id: str) -> ExecRecord:
        """Return a command."""
        if exec_id not in self._execs:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self._execs[exec_id]

    def attach(self, options: AttachOptions, lines: list[LogLine]) -> FakeStream:
        """Return a stream that has said the lines, if logs are asked for."""
        stream = FakeStream()
        for line in lines if options.logs else ():
            stream.say(line.data, line.stream)
        if not options.stream:
            stream.end()
        self.streams.append(stream)
        return stream

    def stats(self, container: Container) -> ContainerStats:
        """Return a sample that uses nothing."""
        is_running = container.state.status == "running"
        return ContainerStats(at_ns=self._clock.now_ns(), process_count=1) if is_running else ContainerStats()

    def top(self, container: Container) -> ProcessTable:
        """Return the one process there would be."""
        _check_runs(container)
        command = " ".join(container.config.command or ("fake",))
        return ProcessTable(titles=("PID", "CMD"), processes=((str(container.state.pid), command),))


def _check_runs(container: Container) -> None:
    if container.state.status != "running":
        raise Conflict(f"container {container.id} is not running")
