"""The node's side of streams from anywhere: answers what managers ask of the containers of this swarm's tasks.

Who opens streams, and ends them, is the agent; containers that are of no task of this node are nobody else's business.
"""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from shoal.core.container import NODE_ID_LABEL, TASK_ID_LABEL
from shoal.engine.handles import LocalContainer, LocalExec
from shoal.engine.protocol import ContainerStream, Engine
from shoal.errors import InvalidArgument, NotFound, ShoalError
from shoal.lib.supervise import cancel_and_wait
from shoal.model.base import replace
from shoal.model.container import Container
from shoal.model.relay import (
    INPUT_FRAMES_MOST,
    AttachContainer,
    AwaitExit,
    ContainerCall,
    ContainerFound,
    CreateExec,
    Done,
    ExecCall,
    ExecFound,
    Exited,
    Failed,
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
    StillThere,
    ToNode,
    UsageSampled,
)
from shoal.rpc.link import Frames, LinkClosed
from shoal.rpc.relay import BEAT_SECONDS, NodeEnd

_log = structlog.get_logger(__name__)

# a manager that sends more than it may is cut off
_INBOX_FRAMES_MOST = INPUT_FRAMES_MOST + 2

_Inbox = asyncio.Queue[ToNode | ShoalError]


class StreamServer:
    """Answers managers.

    Args:
        engine: has the containers.
        node_id: this node, in whose name they were made.
    """

    def __init__(self, engine: Engine, node_id: str) -> None:
        self._engine = engine
        self._node_id = node_id

    async def serve(self, frames: Frames) -> None:
        """Answer one call after another until the manager ends the stream: it alone knows when all has been read."""
        end = NodeEnd(frames)
        inbox: _Inbox = asyncio.Queue(_INBOX_FRAMES_MOST)
        tasks = [
            asyncio.create_task(_read(end, inbox), name="stream input"),
            asyncio.create_task(self._answer_all(end, inbox), name="stream calls"),
            asyncio.create_task(_beat(end), name="stream beat"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*tasks)
            frames.close()
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, LinkClosed):
                _log.warning("a stream to a manager failed", reason=str(error))

    async def _answer_all(self, end: NodeEnd, inbox: _Inbox) -> NoReturn:
        while True:
            call = await inbox.get()
            try:
                if isinstance(call, ShoalError):
                    raise call
                await self._answer(end, inbox, call)
            except LinkClosed:
                raise
            except ShoalError as error:
                await end.send(Failed(status=error.status, message=error.message))
            except Exception as error:
                _log.exception("a manager's call failed", call=type(call).__name__)
                await end.send(Failed(status=500, message=f"{type(error).__name__}: {error}"))

    async def _answer(self, end: NodeEnd, inbox: _Inbox, call: ToNode) -> None:
        match call:
            case AttachContainer():
                stream = await self._container(call.task_id).attach(call.options)
                await _carry(end, inbox, stream)
                await end.send(Done())
            case StartExec():
                opened = await self._exec(call.exec_id).start(call.detach, call.console_size)
                if opened is not None:
                    await _carry(end, inbox, opened)
                await end.send(Done())
            case InspectExec() | ResizeExec():
                await self._answer_of_exec(end, call)
            case Input() | InputEnded():
                # typed when the process had ended, and nobody knew yet
                return
            case _:
                await self._answer_of_container(end, call)

    async def _answer_of_container(self, end: NodeEnd, call: ContainerCall) -> None:
        found = self._container(call.task_id)
        match call:
            case InspectContainer():
                await end.send(ContainerFound(container=_without_files(found.container)))
            case ReadLogs():
                async for line in found.logs(call.options):
                    await end.send(LineSaid(line=line))
                await end.send(Done())
            case ResizeContainer():
                await found.resize(call.height, call.width)
                await end.send(Done())
            case SampleUsage():
                await end.send(UsageSampled(stats=await found.stats()))
            case ListProcesses():
                await end.send(ProcessesListed(table=await found.top(call.ps_arguments)))
            case SendSignal():
                await found.kill(call.signal)
                await end.send(Done())
            case AwaitExit():
                await end.send(Exited(status=await found.wait()))
            case CreateExec():
                record = await found.exec_create(call.config)
                await end.send(ExecFound(record=record, container=_without_files(found.container)))
            case AttachContainer():
                raise AssertionError("streams are opened elsewhere")

    async def _answer_of_exec(self, end: NodeEnd, call: ExecCall) -> None:
        found = self._exec(call.exec_id)
        if isinstance(call, ResizeExec):
            await found.resize(call.height, call.width)
            await end.send(Done())
        else:
            await end.send(ExecFound(record=found.record, container=_without_files(found.container)))

    def _container(self, task_id: str) -> LocalContainer:
        for container in self._engine.list():
            if self._is_ours(container) and container.config.labels[TASK_ID_LABEL] == task_id:
                return LocalContainer(self._engine, container.id)
        raise NotFound(f"No such container: task {task_id} has none on this node")

    def _exec(self, exec_id: str) -> LocalExec:
        found = LocalExec(self._engine, exec_id)
        if not self._is_ours(found.container):
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def _is_ours(self, container: Container) -> bool:
        labels = container.config.labels
        return labels.get(NODE_ID_LABEL) == self._node_id and TASK_ID_LABEL in labels


def _without_files(container: Container) -> Container:
    """What is shown of a container; the contents of its files (secrets) stay where they are."""
    return replace(container, config=replace(container.config, files=()))


async def _read(end: NodeEnd, inbox: _Inbox) -> NoReturn:
    """Read always, so that the end is seen at once: what the manager may send without being answered is bounded."""
    while True:
        frame: ToNode | ShoalError
        try:
            frame = await end.receive()
        except LinkClosed:
            raise
        except ShoalError as error:
            frame = error
        try:
            inbox.put_nowait(frame)
        except asyncio.QueueFull:
            raise InvalidArgument("the manager sends more than was taken") from None


async def _beat(end: NodeEnd) -> NoReturn:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        await end.send(StillThere())


async def _carry(end: NodeEnd, inbox: _Inbox, stream: ContainerStream) -> None:
    """Carry output and input until the process says no more."""

    async def carry_output() -> None:
        while (piece := await stream.read()) is not None:
            await end.send(Said(stream=piece.stream, data=piece.data))

    async def carry_input() -> None:
        while True:
            frame = await inbox.get()
            match frame:
                case Input():
                    await stream.write(frame.data)
                    await end.send(InputTaken())
                case InputEnded():
                    await stream.close_input()
                case ShoalError():
                    raise frame
                case _:
                    raise InvalidArgument("the stream of a process takes input only")

    output: asyncio.Task[None] | None = None
    typed: asyncio.Task[None] | None = None
    try:
        await end.send(Opened())
        output = asyncio.create_task(carry_output(), name="stream output")
        typed = asyncio.create_task(carry_input(), name="stream typed")
        done, _ = await asyncio.wait({output, typed}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        try:
            await cancel_and_wait(output, typed)
        finally:
            # also if it is cancelled in the middle of that: the process would be held up for ever
            await stream.close()
