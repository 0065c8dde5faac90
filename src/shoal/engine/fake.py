"""An engine without containers: for the simulation, for tests of what stands above, and for scale.

It keeps the contract of `engine.protocol`; a container's process is a future that a test ends with `finish`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from shoal.core.health import check_of
from shoal.core.volume import check_volume
from shoal.engine.events import NodeEvents
from shoal.engine.fake_streams import FakeStreams
from shoal.engine.live import amended_container
from shoal.engine.protocol import ContainerStream, ImagesUsage, PullProgress, RegistryCredentials
from shoal.engine.signals import SIGKILL_EXIT_CODE
from shoal.errors import Conflict, NameConflict, NotFound, Unavailable
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import (
    Amendment,
    CommitRequest,
    Container,
    ContainerConfig,
    ContainerSize,
    ContainerState,
    ExitStatus,
    FileChange,
    Health,
    HealthStatus,
    HistoryStep,
    ImageRecord,
    LogLine,
    LogOptions,
    PathStat,
    RemoteManifest,
    WaitCondition,
)
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, ProcessTable
from shoal.model.volume import Volume, VolumeRequest, VolumeUsage

FIRST_FAKE_PID = 100_000


class FakeImages:
    """Images that are only names."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self._records = {
            name: ImageRecord(id=f"sha256:{number:064x}", tags=(name,)) for number, name in enumerate(names)
        }

    def list(self) -> tuple[ImageRecord, ...]:
        """Return all images."""
        return tuple(self._records.values())

    def get(self, reference: str) -> ImageRecord:
        """Return an image by name, with or without `:latest`, or by id."""
        for record in self._records.values():
            if reference in (*record.tags, record.id) or f"{reference}:latest" in record.tags:
                return record
        raise NotFound(f"No such image: {reference}")

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, platform: str = ""
    ) -> AsyncIterator[PullProgress]:
        """Know no registry."""
        del credentials, platform
        if reference:
            raise NotFound(f"pull access denied for {reference}, repository does not exist")
        yield PullProgress(status="")

    async def inspect_remote(
        self, reference: str, credentials: RegistryCredentials | None = None, timeout_seconds: float = 1.0
    ) -> RemoteManifest:
        """Know no registry."""
        del credentials, timeout_seconds
        raise Unavailable(f"no registry answers for {reference}")

    async def push(self, reference: str, credentials: RegistryCredentials | None = None) -> AsyncIterator[PullProgress]:
        """Know no registry."""
        del credentials
        if reference:
            raise Unavailable(f"no registry answers for {reference}")
        yield PullProgress(status="")

    async def remote_tags(self, name: str, credentials: RegistryCredentials | None = None) -> tuple[str, ...]:
        """Know no registry."""
        del credentials
        raise Unavailable(f"no registry answers for {name}")

    async def check_login(self, registry: str, credentials: RegistryCredentials) -> None:
        """Know no registry."""
        del credentials
        raise Unavailable(f"registry {registry} cannot be reached")

    def history(self, reference: str) -> tuple[HistoryStep, ...]:
        """Know nothing of how an image was made."""
        self.get(reference)
        return ()

    def usage(self) -> ImagesUsage:
        """Take nothing."""
        return ImagesUsage()

    async def prune(self, is_wanted: Callable[[ImageRecord], bool]) -> tuple[tuple[tuple[str, str], ...], int]:
        """Forget images."""
        removed: list[tuple[str, str]] = []
        for record in self.list():
            if is_wanted(record):
                removed += await self.remove(record.id)
        return tuple(removed), 0

    async def import_root(
        self, archive: AsyncIterator[bytes], reference: str, changes: tuple[str, ...] = (), message: str = ""
    ) -> ImageRecord:
        """Read the archive and remember the name."""
        del changes, message
        async for _ in archive:
            pass
        record = ImageRecord(id=f"sha256:{len(self._records):064x}", tags=(reference,))
        self._records[reference] = record
        return record

    async def load(self, archive: AsyncIterator[bytes]) -> tuple[str, ...]:
        """Read the archive; it holds nothing."""
        async for _ in archive:
            pass
        return ()

    async def save(self, references: tuple[str, ...]) -> AsyncIterator[bytes]:
        """Yield an archive of nothing."""
        for reference in references:
            self.get(reference)
        yield b""

    def tag(self, reference: str, new_reference: str) -> None:
        """Give an image another name."""
        self._records[new_reference] = replace(self.get(reference), tags=(new_reference,))

    async def remove(self, reference: str, force: bool = False) -> tuple[tuple[str, str], ...]:
        """Forget an image."""
        del force
        record = self.get(reference)
        for name in record.tags:
            self._records.pop(name, None)
        return (("Untagged", reference), ("Deleted", record.id))


class FakeVolumes:
    """Volumes that are only records."""

    def __init__(self) -> None:
        self._records: dict[str, Volume] = {}

    async def create(self, request: VolumeRequest) -> Volume:
        """Keep a record."""
        check_volume(request.name, request.driver, request.driver_opts)
        volume = Volume(name=request.name, labels=request.labels, options=request.driver_opts)
        return self._records.setdefault(request.name, volume)

    def get(self, name: str) -> Volume:
        """Return a record."""
        if name not in self._records:
            raise NotFound(f"get {name}: no such volume")
        return self._records[name]

    def list(self) -> tuple[Volume, ...]:
        """Return all records."""
        return tuple(self._records.values())

    def directory(self, name: str) -> str:
        """Name a directory."""
        return f"/volumes/{name}/_data"

    def used(self) -> frozenset[str]:
        """Know no use."""
        return frozenset()

    async def usage(self) -> tuple[VolumeUsage, ...]:
        """Know no size."""
        return tuple(VolumeUsage(volume=volume) for volume in self.list())

    async def remove(self, name: str) -> None:
        """Forget a record."""
        self.get(name)
        del self._records[name]

    async def prune(self, is_wanted: Callable[[Volume], bool]) -> tuple[tuple[str, ...], int]:
        """Forget the records that are wanted gone."""
        gone = tuple(volume.name for volume in self.list() if is_wanted(volume))
        for name in gone:
            del self._records[name]
        return gone, 0


class FakeEngine:
    """Containers that are only records."""

    def __init__(self, clock: Clock, ids: Ids, images: tuple[str, ...] = ("busybox:latest",)) -> None:
        self._clock = clock
        self._ids = ids
        self.images = FakeImages(images)
        self.volumes = FakeVolumes()
        self.events = NodeEvents(clock)
        self._containers: dict[str, Container] = {}
        self._ends: dict[str, asyncio.Future[ExitStatus]] = {}
        self._logs: dict[str, list[LogLine]] = {}
        self.refuse_start = ""
        self._news = asyncio.Event()
        self.streams = FakeStreams(clock, ids)

    async def create(self, config: ContainerConfig) -> Container:
        """Create a record."""
        if any(other.config.name == config.name for other in self._containers.values()):
            raise NameConflict(f'Conflict. The container name "/{config.name}" is already in use')
        image = self.images.get(config.image_id or config.image)
        container = Container(
            id=self._ids.new_hex(),
            config=config,
            image_id=image.id,
            created_at_ns=self._clock.now_ns(),
            state=ContainerState(status="created"),
        )
        self._containers[container.id] = container
        return container

    async def start(self, container: str) -> Container:
        """Let a record run."""
        record = self.get(container)
        if self.refuse_start:
            raise NotFound(self.refuse_start)
        self._ends[record.id] = asyncio.get_running_loop().create_future()
        pid = FIRST_FAKE_PID + len(self._ends)
        health = Health() if check_of(record.config.healthcheck) is not None else None
        state = ContainerState(status="running", pid=pid, started_at_ns=self._clock.now_ns(), health=health)
        record = self._containers[record.id] = replace(record, state=state)
        return record

    def finish(self, container: str, code: int) -> None:
        """End a container's process, as if it had exited."""
        record = self.get(container)
        now_ns = self._clock.now_ns()
        state = replace(record.state, status="exited", pid=0, exit_code=code, finished_at_ns=now_ns)
        self._containers[record.id] = replace(record, state=state)
        end = self._ends[record.id]
        if not end.done():
            end.set_result(ExitStatus(code=code, finished_at_ns=now_ns))

    def write(self, container: str, data: bytes, stream: str = "stdout") -> None:
        """Add a line of output."""
        line = LogLine(stream=stream, at_ns=self._clock.now_ns(), data=data)
        self._logs.setdefault(self.get(container).id, []).append(line)

    async def wait(self, container: str, condition: WaitCondition = WaitCondition.ENDED) -> ExitStatus:
        """Wait for the end; all conditions are that."""
        del condition
        record = self.get(container)
        if record.state.status == "created":
            raise Conflict("the container was never started")
        return await asyncio.shield(self._ends[record.id])

    async def wait_for_health(self, container: str, wanted: frozenset[HealthStatus]) -> Health | None:
        """Wait until `set_health` was told one of `wanted`, or the end."""
        record = self.get(container)
        end = self._ends[record.id]
        while True:
            health = self.get(record.id).state.health
            if health is None or end.done():
                return None
            if health.status in wanted:
                return health
            news = asyncio.create_task(self._news.wait())
            waiting: set[asyncio.Future[Any]] = {news, end}
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()

    def set_health(self, container: str, health: Health) -> None:
        """Say what checks have said, as if there were some."""
        record = self.get(container)
        self._containers[record.id] = replace(record, state=replace(record.state, health=health))
        self._news.set()
        self._news = asyncio.Event()

    async def stop(self, container: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """End a container at once."""
        del timeout_seconds, signal
        if self.get(container).state.status == "running":
            self.finish(container, 0)

    async def kill(self, container: str, signal: str = "SIGKILL") -> None:
        """End a container at once."""
        del signal
        self.finish(container, SIGKILL_EXIT_CODE)

    async def remove(self, container: str, force: bool = False) -> None:
        """Forget a container."""
        record = self.get(container)
        if record.state.status == "running":
            if not force:
                raise Conflict(f"cannot remove container {record.id}: container is running")
            self.finish(container, SIGKILL_EXIT_CODE)
        del self._containers[record.id]

    async def update(self, container: str, config: ContainerConfig) -> None:
        """Change a record."""
        await self.amend(container, Amendment(config=config))

    async def amend(self, container: str, change: Amendment) -> Container:
        """Change a record."""
        record = self._containers[self.get(container).id] = amended_container(self.get(container), change)
        return record

    def get(self, container: str) -> Container:
        """Return a container by id, prefix or name."""
        name = container.removeprefix("/")
        for record in self._containers.values():
            if record.config.name == name or record.id.startswith(container):
                return record
        raise NotFound(f"No such container: {container}")

    def list(self) -> tuple[Container, ...]:
        """Return all containers, newest first."""
        return tuple(reversed(self._containers.values()))

    async def size(self, container: str) -> ContainerSize:
        """Take nothing."""
        self.get(container)
        return ContainerSize()

    async def logs(self, container: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield what `write` was given."""
        lines = self._logs.get(self.get(container).id, [])
        for line in lines if options.tail is None else lines[len(lines) - options.tail :]:
            yield line

    async def pause(self, container: str) -> None:
        """Mark a record as paused."""
        self._set_paused(self.get(container), True)

    async def unpause(self, container: str) -> None:
        """Mark a record as running."""
        self._set_paused(self.get(container), False)

    def _set_paused(self, record: Container, paused: bool) -> None:
        if record.state.status != "running":
            raise Conflict(f"container {record.id} is not running")
        self._containers[record.id] = replace(record, state=replace(record.state, paused=paused))

    async def rename(self, container: str, name: str) -> None:
        """Give a record another name."""
        record = self.get(container)
        self._containers[record.id] = replace(record, config=replace(record.config, name=name))

    async def attach(self, container: str, options: AttachOptions) -> ContainerStream:
        """Return a stream that says what it is told."""
        return self.streams.attach(options, self._logs.get(self.get(container).id, []))

    async def stat_path(self, container: str, path: str) -> PathStat:
        """Have no files."""
        raise NotFound(f"Could not find the file {path} in container {container}")

    async def read_archive(self, container: str, path: str) -> AsyncIterator[bytes]:
        """Have no files."""
        await self.stat_path(container, path)
        yield b""

    async def write_archive(self, container: str, path: str, archive: AsyncIterator[bytes], keeps_kinds: bool) -> None:
        """Have no directory."""
        del archive, keeps_kinds
        await self.stat_path(container, path)

    async def changes(self, container: str) -> tuple[FileChange, ...]:
        """Have no files."""
        self.get(container)
        return ()

    async def export(self, container: str) -> AsyncIterator[bytes]:
        """Have no files."""
        self.get(container)
        yield b""

    async def commit(self, container: str, request: CommitRequest) -> ImageRecord:
        """Give the container's image another name."""
        image = self.images.get(self.get(container).image_id)
        self.images.tag(image.id, request.reference)
        return image

    async def resize(self, container: str, height: int, width: int) -> None:
        """Check that it runs."""
        del height, width
        if self.get(container).state.status != "running":
            raise Conflict(f"container {container} is not running")

    async def stats(self, container: str) -> ContainerStats:
        """Return a sample that uses nothing."""
        return self.streams.stats(self.get(container))

    async def top(self, container: str, ps_arguments: str = "-ef") -> ProcessTable:
        """Return the one process there would be."""
        del ps_arguments
        return self.streams.top(self.get(container))

    def exec_create(self, container: str, config: ExecConfig) -> ExecRecord:
        """Prepare a command."""
        return self.streams.exec_create(self.get(container), config)

    async def exec_start(
        self, exec_id: str, detach: bool = False, console_size: tuple[int, int] | None = None
    ) -> ContainerStream | None:
        """Start a command that says back what it is told."""
        del console_size
        return self.streams.exec_start(exec_id, detach)

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Remember the size."""
        self.streams.exec_resize(exec_id, height, width)

    def exec_inspect(self, exec_id: str) -> ExecRecord:
        """Return a command."""
        return self.streams.exec_inspect(exec_id)
