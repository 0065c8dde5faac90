"""Containers of other nodes, as this manager holds them for its clients: calls over streams that their nodes open."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shoal.engine.protocol import ContainerStream
from shoal.errors import NotFound, ShoalError
from shoal.model.container import Container, ExitStatus, LogLine, LogOptions, WaitCondition
from shoal.model.relay import (
    INPUT_FRAMES_MOST,
    AttachContainer,
    AwaitExit,
    ContainerFound,
    CreateExec,
    Done,
    ExecFound,
    Exited,
    Input,
    InputEnded,
    InputTaken,
    InspectContainer,
    InspectExec,
    LineSaid,
    ListProcesses,
    Opened,
    ProcessesListed,
    ReadLogs,
    ResizeContainer,
    ResizeExec,
    Said,
    SampleUsage,
    SendSignal,
    StartExec,
    UsageSampled,
)
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, Output, ProcessTable
from shoal.rpc.link import LinkClosed
from shoal.rpc.relay import ManagerEnd

# commands of other nodes that were created here and can be started, asked about and resized here; then the oldest go
EXECS_KNOWN_MOST = 10_000

# opens a stream to a node, wherever the leader is. Raises Unavailable.
OpenStream = Callable[[str], Awaitable[ManagerEnd]]


class RemoteStream:
    """See `protocol.ContainerStream`: of a process on another node."""

    def __init__(self, end: ManagerEnd) -> None:
        self._end = end
        self._may_send = asyncio.Semaphore(INPUT_FRAMES_MOST)

    async def read(self) -> Output | None:
        """Return the next piece of output, None at the end. Raises Unavailable: the node has gone or hangs."""
        while True:
            match await self._end.receive():
                case Said(stream=stream, data=data):
                    return Output(stream=stream, data=data)
                case InputTaken():
                    self._may_send.release()
                case Done():
                    return None
                case other:
                    raise ShoalError(f"the node sent {type(other).__name__} in the stream of a process")

    async def write(self, data: bytes) -> None:
        """Give the process input; waits while it takes none. Dropped if the stream has ended."""
        if data:
            await self._may_send.acquire()
            await self._send(Input(data=data))

    async def close_input(self) -> None:
        """Say that no more input comes."""
        await self._send(InputEnded())

    async def _send(self, frame: Input | InputEnded) -> None:
        try:
            await self._end.send(frame)
        except LinkClosed:
            # whoever reads learns why
            return

    async def close(self) -> None:
        """Let go."""
        self._end.close()


class RemoteContainer:
    """See `handles.ContainerHandle`: over one stream, one call at a time."""

    def __init__(
        self, end: ManagerEnd, task_id: str, container: Container, note_exec: Callable[[ExecRecord], None]
    ) -> None:
        self._end = end
        self._task_id = task_id
        self.container = container
        self._note_exec = note_exec

    async def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield lines of output, oldest first; with `follow` until the container has ended."""
        await self._end.send(ReadLogs(task_id=self._task_id, options=options))
        while True:
            match await self._end.receive():
                case LineSaid(line=line):
                    yield line
                case Done():
                    return
                case other:
                    raise ShoalError(f"the node sent {type(other).__name__} instead of a line")

    async def attach(self, options: AttachOptions) -> ContainerStream:
        """Attach to it; the stream ends with it."""
        await self._end.ask(AttachContainer(task_id=self._task_id, options=options), Opened)
        return RemoteStream(self._end)

    async def resize(self, height: int, width: int) -> None:
        """Give its terminal a size in characters."""
        await self._end.ask(ResizeContainer(task_id=self._task_id, height=height, width=width), Done)

    async def stats(self) -> ContainerStats:
        """Return what it uses now."""
        return (await self._end.ask(SampleUsage(task_id=self._task_id), UsageSampled)).stats

    async def top(self, ps_arguments: str) -> ProcessTable:
        """Return its processes as `ps` shows them."""
        call = ListProcesses(task_id=self._task_id, ps_arguments=ps_arguments)
        return (await self._end.ask(call, ProcessesListed)).table

    async def kill(self, signal: str) -> None:
        """Send a signal to its first process."""
        await self._end.ask(SendSignal(task_id=self._task_id, signal=signal), Done)

    async def wait(self, condition: WaitCondition = WaitCondition.ENDED) -> ExitStatus:
        """Wait until it has ended: a task's container runs once, so all conditions are that."""
        del condition
        return (await self._end.ask(AwaitExit(task_id=self._task_id), Exited)).status

    async def exec_create(self, config: ExecConfig) -> ExecRecord:
        """Prepare a command in it."""
        record = (await self._end.ask(CreateExec(task_id=self._task_id, config=config), ExecFound)).record
        self._note_exec(record)
        return record


class RemoteExec:
    """See `handles.ExecHandle`."""

    def __init__(self, end: ManagerEnd, found: ExecFound) -> None:
        self._end = end
        self.record = found.record
        self.container = found.container

    async def start(self, detach: bool = False, console_size: tuple[int, int] | None = None) -> ContainerStream | None:
        """Start it; None with `detach`."""
        call = StartExec(exec_id=self.record.id, detach=detach, console_size=console_size)
        if detach:
            await self._end.ask(call, Done)
            return None
        await self._end.ask(call, Opened)
        return RemoteStream(self._end)

    async def resize(self, height: int, width: int) -> None:
        """Give its terminal a size in characters."""
        await self._end.ask(ResizeExec(exec_id=self.record.id, height=height, width=width), Done)


class RemoteContainers:
    """The way to the containers of other nodes."""

    def __init__(self, open_stream: OpenStream) -> None:
        self._open_stream = open_stream
        self._nodes_of_execs: OrderedDict[str, str] = OrderedDict()

    @asynccontextmanager
    async def container(self, node_id: str, task_id: str) -> AsyncIterator[RemoteContainer]:
        """Hold the container of a task on a node. Raises Unavailable (the node does not answer), NotFound."""
        async with self._end_of(node_id) as end:
            found = await end.ask(InspectContainer(task_id=task_id), ContainerFound)
            yield RemoteContainer(end, task_id, found.container, lambda record: self._note_exec(record.id, node_id))

    @asynccontextmanager
    async def command(self, exec_id: str) -> AsyncIterator[RemoteExec]:
        """Hold a command that was created through this manager. Raises Unavailable, NotFound."""
        node_id = self._nodes_of_execs.get(exec_id)
        if node_id is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        async with self._end_of(node_id) as end:
            yield RemoteExec(end, await end.ask(InspectExec(exec_id=exec_id), ExecFound))

    @asynccontextmanager
    async def _end_of(self, node_id: str) -> AsyncIterator[ManagerEnd]:
        end = await self._open_stream(node_id)
        try:
            yield end
        finally:
            end.close()

    def _note_exec(self, exec_id: str, node_id: str) -> None:
        self._nodes_of_execs[exec_id] = node_id
        while len(self._nodes_of_execs) > EXECS_KNOWN_MOST:
            self._nodes_of_execs.popitem(last=False)
