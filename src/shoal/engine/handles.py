"""One container, or one command in it, as whoever serves a client holds it: the same on this node and on another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from shoal.engine.protocol import ContainerStream, Engine
from shoal.model.container import Container, ExitStatus, LogLine, LogOptions, WaitCondition
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, ProcessTable


class ContainerHandle(Protocol):
    """A container. What the engine raises is raised here, too; of another node also Unavailable: it does not answer."""

    @property
    def container(self) -> Container:
        """The container as it was when it was found."""

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield lines of output, oldest first; with `follow` until the container has ended."""

    async def attach(self, options: AttachOptions) -> ContainerStream:
        """Attach to it; the stream ends with it."""

    async def resize(self, height: int, width: int) -> None:
        """Give its terminal a size in characters."""

    async def stats(self) -> ContainerStats:
        """Return what it uses now."""

    async def top(self, ps_arguments: str) -> ProcessTable:
        """Return its processes as `ps` shows them."""

    async def kill(self, signal: str) -> None:
        """Send a signal to its first process."""

    async def wait(self, condition: WaitCondition = WaitCondition.ENDED) -> ExitStatus:
        """Wait until it has ended, or for another condition."""

    async def exec_create(self, config: ExecConfig) -> ExecRecord:
        """Prepare a command in it."""


class ExecHandle(Protocol):
    """A command in a container. Raises as `ContainerHandle`."""

    @property
    def record(self) -> ExecRecord:
        """The command as it was when it was found."""

    @property
    def container(self) -> Container:
        """Its container, as it was then."""

    async def start(self, detach: bool = False, console_size: tuple[int, int] | None = None) -> ContainerStream | None:
        """Start it; None with `detach`."""

    async def resize(self, height: int, width: int) -> None:
        """Give its terminal a size in characters."""


class LocalContainer:
    """A container of this node's engine, by id or name. Raises NotFound."""

    def __init__(self, engine: Engine, container: str) -> None:
        self._engine = engine
        self.container = engine.get(container)

    def logs(self, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield lines of output, oldest first; with `follow` until the container has ended."""
        return self._engine.logs(self.container.id, options)

    async def attach(self, options: AttachOptions) -> ContainerStream:
        """Attach to it; the stream ends with it."""
        return await self._engine.attach(self.container.id, options)

    async def resize(self, height: int, width: int) -> None:
        """Give its terminal a size in characters."""
        await self._engine.resize(self.container.id, height, width)

    async def stats(self) -> ContainerStats:
        """Return what it uses now."""
        return await self._engine.stats(self.container.id)

    async def top(self, ps_arguments: str) -> ProcessTable:
        """Return its processes as `ps` shows them."""
        return await self._engine.top(self.container.id, ps_arguments)

    async def kill(self, signal: str) -> None:
        """Send a signal to its first process."""
        await self._engine.kill(self.container.id, signal)

    async def wait(self, condition: WaitCondition = WaitCondition.ENDED) -> ExitStatus:
        """Wait until it has ended, or for another condition."""
        return await self._engine.wait(self.container.id, condition)

    async def exec_create(self, config: ExecConfig) -> ExecRecord:
        """Prepare a command in it."""
        return self._engine.exec_create(self.container.id, config)


class LocalExec:
    """A command in a container of this node's engine. Raises NotFound."""

    def __init__(self, engine: Engine, exec_id: str) -> None:
        self._engine = engine
        self.record = engine.exec_inspect(exec_id)
        self.container = engine.get(self.record.container_id)

    async def start(self, detach: bool = False, console_size: tuple[int, int] | None = None) -> ContainerStream | None:
        """Start it; None with `detach`."""
        return await self._engine.exec_start(self.record.id, detach, console_size)

    async def resize(self, height: int, width: int) -> None:
        """Give its terminal a size in characters."""
        await self._engine.exec_resize(self.record.id, height, width)
