"""What an engine is to the rest of Shoal: runc and overlayfs here, a fake for the simulation, others later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from shoal.model.base import Struct
from shoal.model.container import (
    Container,
    ContainerConfig,
    ExitStatus,
    ImageRecord,
    LogLine,
    LogOptions,
    RemoteManifest,
)


class RegistryCredentials(Struct):
    """Credentials for one registry; they travel by file (0600), never by argument."""

    username: str = ""
    password: str = ""
    identity_token: str = ""


class PullProgress(Struct):
    """One step of a pull, as Docker streams it: `id` is a short layer id or empty."""

    status: str
    id: str = ""
    current_bytes: int = 0
    total_bytes: int = 0


class Images(Protocol):
    """The images of a node. A reference is `[registry/]name[:tag][@digest]`, an image id, or a unique prefix of one."""

    def list(self) -> tuple[ImageRecord, ...]:
        """Return all images, newest first."""

    def get(self, reference: str) -> ImageRecord:
        """Return an image. Raises NotFound (`No such image: …`), or InvalidArgument if a prefix is ambiguous."""

    def pull(self, reference: str, credentials: RegistryCredentials | None = None) -> AsyncIterator[PullProgress]:
        """Pull an image; the last step yielded says the digest. Raises NotFound, Unauthenticated, Unavailable."""

    async def inspect_remote(
        self, reference: str, credentials: RegistryCredentials | None = None, timeout_seconds: float = 1.0
    ) -> RemoteManifest:
        """Ask a registry what a reference stands for. Raises Unavailable (no answer in time), NotFound, …"""

    async def import_root(
        self, archive: AsyncIterator[bytes], reference: str, changes: tuple[str, ...] = (), message: str = ""
    ) -> ImageRecord:
        """Make an image of one layer from a tar of a root filesystem (plain, gzip or zstd), as `docker import`."""

    async def load(self, archive: AsyncIterator[bytes]) -> tuple[str, ...]:
        """Load a `docker save` or OCI archive; returns the references or ids loaded."""

    def save(self, references: tuple[str, ...]) -> AsyncIterator[bytes]:
        """Stream a `docker save` archive of the images."""

    def tag(self, reference: str, new_reference: str) -> None:
        """Give an image another name."""

    async def remove(self, reference: str, force: bool = False) -> tuple[tuple[str, str], ...]:
        """Untag, and delete when no name is left.

        Returns pairs ("Untagged" or "Deleted", what). Raises Conflict if a container uses it.
        """


class Engine(Protocol):
    """The containers of a node. Containers are named by full id, unique id prefix or name (with or without `/`)."""

    @property
    def images(self) -> Images:
        """The images of this node."""

    async def create(self, config: ContainerConfig) -> Container:
        """Create a container. Raises NotFound (image), NameConflict, InvalidArgument (the host refuses)."""

    async def start(self, container: str) -> Container:
        """Start a created container; returns it with its pid. Raises InvalidArgument with runc's reason."""

    async def wait(self, container: str) -> ExitStatus:
        """Wait until a container has ended (at once if it has); survives restarts of the daemon and the keeper."""

    async def stop(self, container: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """Send the stop signal, after `timeout_seconds` (None: the container's own, else 10) KILL; wait for the end."""

    async def kill(self, container: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the container's first process."""

    async def remove(self, container: str, force: bool = False) -> None:
        """Remove an ended container (with `force` a running one, too) and all it left. Raises Conflict if running."""

    def get(self, container: str) -> Container:
        """Return a container. Raises NotFound (`No such container: …`)."""

    def list(self) -> tuple[Container, ...]:
        """Return all containers, newest first."""

    def logs(self, container: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield lines of output, oldest first; with `follow` until the container has ended."""
