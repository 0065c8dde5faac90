"""An engine of containers that exist in memory only: for tests of the API."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from shoal.engine.events import NodeEvents
from shoal.engine.fake import FakeVolumes
from shoal.engine.live import amended_container
from shoal.engine.protocol import ImagesUsage, PullProgress, RegistryCredentials
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.lib.clock import ManualClock
from shoal.model.base import replace
from shoal.model.container import (
    Amendment,
    Container,
    ContainerConfig,
    ContainerSize,
    ContainerState,
    ExitStatus,
    HistoryStep,
    ImageRecord,
    LogLine,
    LogOptions,
    WaitCondition,
)


class MemoryImages:
    def __init__(self) -> None:
        self.records: dict[str, ImageRecord] = {}
        self.registry: dict[str, ImageRecord] = {}
        self.credentials: list[RegistryCredentials | None] = []

    def add(self, name: str) -> ImageRecord:
        record = ImageRecord(
            id="sha256:" + hashlib.sha256(name.encode()).hexdigest(),
            tags=(name,),
            created_at_ns=1_700_000_000_000_000_000,
            size_bytes=1_984_164,
            architecture="x86_64",
            os="linux",
            command=("sh",),
            layers=("sha256:" + "1" * 64,),
        )
        self.records[record.id] = record
        return record

    def list(self) -> tuple[ImageRecord, ...]:
        return tuple(self.records.values())

    def get(self, reference: str) -> ImageRecord:
        for record in self.records.values():
            if reference in record.tags or f"{reference}:latest" in record.tags or record.id == reference:
                return record
        matches = [each for each in self.records.values() if each.id.removeprefix("sha256:").startswith(reference)]
        if len(matches) > 1:
            raise InvalidArgument(f"image {reference} is ambiguous")
        if not matches:
            raise NotFound(f"No such image: {reference}")
        return matches[0]

    def history(self, reference: str) -> tuple[HistoryStep, ...]:
        return (HistoryStep(comment=self.get(reference).comment),)

    def usage(self) -> ImagesUsage:
        return ImagesUsage()

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, platform: str = ""
    ) -> AsyncIterator[PullProgress]:
        self.credentials.append(credentials)
        if reference not in self.registry:
            raise NotFound(f"manifest for {reference} not found: manifest unknown: manifest unknown")
        yield PullProgress(status="Pulling from library/busybox", id="latest")
        yield PullProgress(status="Downloading", id="0123456789ab", current_bytes=1, total_bytes=2)
        self.records[self.registry[reference].id] = self.registry[reference]
        yield PullProgress(status="Digest: sha256:" + "2" * 64)

    async def import_root(
        self, archive: AsyncIterator[bytes], reference: str, changes: tuple[str, ...] = (), message: str = ""
    ) -> ImageRecord:
        size = 0
        async for chunk in archive:
            size += len(chunk)
        record = replace(self.add(reference), size_bytes=size, comment=message)
        self.records[record.id] = record
        return record

    async def load(self, archive: AsyncIterator[bytes]) -> tuple[str, ...]:
        async for _chunk in archive:
            pass
        return ("loaded:latest",)

    async def save(self, references: tuple[str, ...]) -> AsyncIterator[bytes]:
        for reference in references:
            yield self.get(reference).id.encode()

    def tag(self, reference: str, new_reference: str) -> None:
        record = self.get(reference)
        self.records[record.id] = replace(record, tags=(*record.tags, new_reference))

    async def remove(self, reference: str, force: bool = False) -> tuple[tuple[str, str], ...]:
        record = self.get(reference)
        del self.records[record.id]
        return (("Untagged", record.tags[0]), ("Deleted", record.id))


class MemoryEngine:
    def __init__(self) -> None:
        self.images = MemoryImages()
        self.volumes = FakeVolumes()
        self.events = NodeEvents(ManualClock())
        self.containers: dict[str, Container] = {}
        self.lines: dict[str, tuple[LogLine, ...]] = {}
        self.signals: list[tuple[str, str]] = []

    async def create(self, config: ContainerConfig) -> Container:
        id_ = hashlib.sha256(config.name.encode()).hexdigest()
        image = self.images.get(config.image)
        arguments = (*(config.entrypoint or ()), *(config.command or image.command or ()))
        self.containers[id_] = Container(
            id=id_,
            config=config,
            image_id=image.id,
            created_at_ns=1_700_000_000_000_000_000,
            state=ContainerState(status="created"),
            arguments=arguments,
        )
        return self.containers[id_]

    def _set(self, id_: str, state: ContainerState) -> Container:
        self.containers[id_] = replace(self.containers[id_], state=state)
        return self.containers[id_]

    async def start(self, container: str) -> Container:
        id_ = self.get(container).id
        return self._set(id_, ContainerState(status="running", pid=42, started_at_ns=1_700_000_001_000_000_000))

    async def wait(self, container: str, condition: WaitCondition = WaitCondition.ENDED) -> ExitStatus:
        state = self.get(container).state
        return ExitStatus(code=state.exit_code, finished_at_ns=state.finished_at_ns)

    async def stop(self, container: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        id_ = self.get(container).id
        self.signals.append((id_, f"stop {timeout_seconds} {signal}"))
        self._set(id_, ContainerState(status="exited", exit_code=137, finished_at_ns=1_700_000_002_000_000_000))

    async def kill(self, container: str, signal: str = "SIGKILL") -> None:
        self.signals.append((self.get(container).id, signal))

    async def remove(self, container: str, force: bool = False) -> None:
        found = self.get(container)
        if found.state.status == "running" and not force:
            raise Conflict(f"cannot remove container {container}: container is running: stop it or force removal")
        del self.containers[found.id]

    async def amend(self, container: str, change: Amendment) -> Container:
        found = amended_container(self.get(container), change)
        self.containers[found.id] = found
        return found

    def get(self, container: str) -> Container:
        for found in self.containers.values():
            if found.id == container or found.config.name == container.removeprefix("/"):
                return found
        matches = [found for found in self.containers.values() if found.id.startswith(container)]
        if len(matches) != 1:
            raise NotFound(f"No such container: {container}")
        return matches[0]

    def list(self) -> tuple[Container, ...]:
        return tuple(reversed(self.containers.values()))

    async def size(self, container: str) -> ContainerSize:
        self.get(container)
        return ContainerSize()

    async def logs(self, container: str, options: LogOptions) -> AsyncIterator[LogLine]:
        for line in self.lines.get(self.get(container).id, ()):
            if getattr(options, line.stream):
                yield line
