"""The volumes of a node as the API asks for them: `volumes.py` off the loop, and which containers use what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from shoal.core.volume import is_anonymous, users_of, volumes_of
from shoal.engine.events import NodeEvents
from shoal.engine.volumes import LocalVolumes
from shoal.errors import Conflict, NotFound, ShoalError
from shoal.model.container import Container, ContainerConfig
from shoal.model.container_spec import Driver, VolumeOptions
from shoal.model.volume import Volume, VolumeRequest, VolumeUsage

_log = structlog.get_logger(__name__)


class NodeVolumes:
    """The named volumes of one node.

    Args:
        local: the volumes on disk.
        containers: returns the containers there are now.
        events: hears what becomes of volumes.
    """

    def __init__(self, local: LocalVolumes, containers: Callable[[], Iterable[Container]], events: NodeEvents) -> None:
        self.local = local
        self._containers = containers
        self._events = events

    async def create(self, request: VolumeRequest) -> Volume:
        """Make a volume; one of that name is returned as it is. Raises InvalidArgument, NotFound, NotBuilt."""
        is_new = not self.local.has(request.name)
        volume = await asyncio.to_thread(
            self.local.create, request.name, request.driver, request.driver_opts, request.labels
        )
        if is_new:
            self._events.tell_of_volume("create", volume.name)
        return volume

    async def create_for(self, config: ContainerConfig) -> None:
        """Make the volumes of a container that is being made. Raises as `create`; nobody else's are left then."""
        mounts = [mount for mount in config.mounts if mount.type == "volume" and mount.source]
        try:
            for mount in mounts:
                options = mount.volume_options or VolumeOptions()
                driver = options.driver_config or Driver()
                await self.create(
                    VolumeRequest(
                        name=mount.source, driver=driver.name, driver_opts=driver.options, labels=options.labels
                    )
                )
        except BaseException:
            await self.remove_anonymous(config)
            raise

    async def remove_anonymous(self, config: ContainerConfig) -> None:
        """Remove the volumes that were made for a container alone, once it is no more."""
        used = self.used()
        for mount in config.mounts:
            if is_anonymous(mount) and mount.source not in used and self.local.has(mount.source):
                try:
                    await self.remove(mount.source)
                except (NotFound, Conflict):
                    continue
                except ShoalError as error:
                    _log.warning("a volume of a container stays", name=mount.source, reason=error.message)

    def tell(self, container: Container, action: str) -> None:
        """Say that a container's volumes are mounted (`mount`), or not any more (`unmount`)."""
        for mount in container.config.mounts:
            if mount.type != "volume" or not mount.source:
                continue
            more = {"container": container.id}
            if action == "mount":
                more |= {"destination": mount.target, "propagation": "", "read/write": str(not mount.read_only).lower()}
            self._events.tell_of_volume(action, mount.source, **more)

    def get(self, name: str) -> Volume:
        """Return a volume. Raises NotFound."""
        return self.local.get(name)

    def list(self) -> tuple[Volume, ...]:
        """Return all volumes by name."""
        return self.local.list()

    def directory(self, name: str) -> str:
        """Return where a volume's data is."""
        return str(self.local.path(name))

    def used(self) -> frozenset[str]:
        """Return the names of the volumes that containers name, whether they run or not."""
        return frozenset().union(*(volumes_of(container.config) for container in self._containers()))

    async def usage(self) -> tuple[VolumeUsage, ...]:
        """Return what each volume takes; reads all of their directories."""
        containers = [(container.id, container.config) for container in self._containers()]

        def measure() -> tuple[VolumeUsage, ...]:
            return tuple(
                VolumeUsage(
                    volume=volume,
                    size_bytes=self.local.size_bytes(volume.name),
                    containers=len(users_of(volume.name, containers)),
                )
                for volume in self.local.list()
            )

        return await asyncio.to_thread(measure)

    async def remove(self, name: str) -> None:
        """Remove a volume and its data. Raises NotFound, Conflict (containers name it), ShoalError."""
        self.local.get(name)
        users = users_of(name, ((container.id, container.config) for container in self._containers()))
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        await asyncio.to_thread(self.local.remove, name)
        self._events.tell_of_volume("destroy", name)

    async def prune(self, is_wanted: Callable[[Volume], bool]) -> tuple[tuple[str, ...], int]:
        """Remove the volumes that no container names and `is_wanted` holds for; returns their names and bytes."""
        removed, freed_bytes = [], 0
        for volume in self.local.list():
            if volume.name not in self.used() and is_wanted(volume):
                size_bytes = await asyncio.to_thread(self.local.size_bytes, volume.name)
                await self.remove(volume.name)
                removed.append(volume.name)
                freed_bytes += size_bytes
        return tuple(removed), freed_bytes

    def let_go(self) -> None:
        """Unmount what has options and no running container; in a thread."""
        if self.local.has_mounts:
            running = (each for each in self._containers() if each.state.status == "running")
            self.local.let_go(frozenset().union(*(volumes_of(container.config) for container in running)))
