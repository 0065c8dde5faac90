"""The volumes of a node as the API asks for them: `volumes.py` off the loop, and which containers use what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from shoal.core.volume import users_of, volumes_of
from shoal.engine.volumes import LocalVolumes
from shoal.errors import Conflict
from shoal.model.container import Container
from shoal.model.volume import Volume, VolumeRequest, VolumeUsage


class NodeVolumes:
    """The named volumes of one node.

    Args:
        local: the volumes on disk.
        containers: returns the containers there are now.
    """

    def __init__(self, local: LocalVolumes, containers: Callable[[], Iterable[Container]]) -> None:
        self.local = local
        self._containers = containers

    async def create(self, request: VolumeRequest) -> Volume:
        """Make a volume; one of that name is returned as it is. Raises InvalidArgument, NotFound, NotBuilt."""
        return await asyncio.to_thread(
            self.local.create, request.name, request.driver, request.driver_opts, request.labels
        )

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
