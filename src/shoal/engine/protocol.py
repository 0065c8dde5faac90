"""What an engine is to the rest of Shoal: runc and overlayfs here, a fake for the simulation, others later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from shoal.engine.events import NodeEvents
from shoal.model.base import Struct
from shoal.model.container import (
    Amendment,
    CommitRequest,
    Container,
    ContainerConfig,
    ContainerSize,
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
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, Output, ProcessTable
from shoal.model.volume import Volume, VolumeRequest, VolumeUsage


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


class ImagesUsage(Struct):
    """What all layers of images take, each counted once, and how much of each image's (by id) are another's, too."""

    layers_bytes: int = 0
    shared_bytes: dict[str, int] = {}


class Images(Protocol):
    """The images of a node. A reference is `[registry/]name[:tag][@digest]`, an image id, or a unique prefix of one."""

    def list(self) -> tuple[ImageRecord, ...]:
        """Return all images, newest first."""

    def get(self, reference: str) -> ImageRecord:
        """Return an image. Raises NotFound (`No such image: …`), or InvalidArgument if a prefix is ambiguous."""

    def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, platform: str = ""
    ) -> AsyncIterator[PullProgress]:
        """Pull an image; the last step yielded says the digest. Raises NotFound, Unauthenticated, Unavailable.

        `platform`: `os/architecture/variant`, empty for this machine's.
        """

    def push(self, reference: str, credentials: RegistryCredentials | None = None) -> AsyncIterator[PullProgress]:
        """Send an image to the registry of its name; the last step says the digest. Raises as `pull`."""

    async def remote_tags(self, name: str, credentials: RegistryCredentials | None = None) -> tuple[str, ...]:
        """Return all tags that a registry has of a name. Raises NotFound, Unauthenticated, Unavailable."""

    async def check_login(self, registry: str, credentials: RegistryCredentials) -> None:
        """Ask a registry whether it takes credentials. Raises Unauthenticated, Unavailable."""

    def history(self, reference: str) -> tuple[HistoryStep, ...]:
        """Return how an image was made, newest step first. Raises NotFound."""

    def usage(self) -> ImagesUsage:
        """Return what images take on the disk."""

    async def prune(self, is_wanted: Callable[[ImageRecord], bool]) -> tuple[tuple[tuple[str, str], ...], int]:
        """Remove the images that no container uses and `is_wanted` holds for.

        Returns pairs as `remove`, and the bytes freed.
        """

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


class Volumes(Protocol):
    """The named volumes of a node."""

    async def create(self, request: VolumeRequest) -> Volume:
        """Make a volume; one of that name is returned as it is. Raises InvalidArgument, NotFound, NotBuilt."""

    def get(self, name: str) -> Volume:
        """Return a volume. Raises NotFound."""

    def list(self) -> tuple[Volume, ...]:
        """Return all volumes by name."""

    def directory(self, name: str) -> str:
        """Return where a volume's data is."""

    def used(self) -> frozenset[str]:
        """Return the names of the volumes that containers name, whether they run or not."""

    async def usage(self) -> tuple[VolumeUsage, ...]:
        """Return what each volume takes."""

    async def remove(self, name: str) -> None:
        """Remove a volume and its data. Raises NotFound, Conflict (containers name it), ShoalError."""

    async def prune(self, is_wanted: Callable[[Volume], bool]) -> tuple[tuple[str, ...], int]:
        """Remove the volumes that no container names and `is_wanted` holds for; returns their names and bytes."""


class ContainerStream(Protocol):
    """What a process in a container says and is told: of an exec, or of an attached client.

    Who does not read holds the process up; who is done must `close`. One reader and one writer at a time.
    """

    async def read(self) -> Output | None:
        """Return the next piece of output, None at the end."""

    async def write(self, data: bytes) -> None:
        """Give the process input; what it does not read (it has ended, its stdin is not attached) is dropped."""

    async def close_input(self) -> None:
        """Say that no more input comes. A terminal is left open, as Docker leaves it."""

    async def close(self) -> None:
        """Let go: the client has gone or detached. The process goes on, what it says is dropped."""


class Engine(Protocol):
    """The containers of a node. Containers are named by full id, unique id prefix or name (with or without `/`)."""

    @property
    def images(self) -> Images:
        """The images of this node."""

    @property
    def volumes(self) -> Volumes:
        """The named volumes of this node."""

    @property
    def events(self) -> NodeEvents:
        """What happens to the containers of this node."""

    async def create(self, config: ContainerConfig) -> Container:
        """Create a container. Raises NotFound (image), NameConflict, InvalidArgument (the host refuses)."""

    async def start(self, container: str) -> Container:
        """Start a container, one that has ended over what it left; returns it with its pid.

        Raises InvalidArgument with runc's reason.
        """

    async def wait(self, container: str, condition: WaitCondition = WaitCondition.ENDED) -> ExitStatus:
        """Wait until a container has ended (at once if it has), or for another condition.

        Survives restarts of the daemon and the keeper.
        """

    async def wait_for_health(self, container: str, wanted: frozenset[HealthStatus]) -> Health | None:
        """Wait until what checks say of a container is one of `wanted`; None if it is not checked or has ended."""

    async def stop(self, container: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """Send the stop signal, after `timeout_seconds` (None: the container's own, else 10) KILL; wait for the end."""

    async def kill(self, container: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the container's first process."""

    async def remove(self, container: str, force: bool = False) -> None:
        """Remove an ended container (with `force` a running one, too) and all it left. Raises Conflict if running."""

    async def update(self, container: str, config: ContainerConfig) -> None:
        """Give a container other limits (memory, processors, processes), at once if it runs, and keep the config.

        Raises InvalidArgument: the host or the kernel refuses.
        """

    async def amend(self, container: str, change: Amendment) -> Container:
        """Change what is known of a container: for its next start, and for who inspects it. On disk when it returns."""

    def get(self, container: str) -> Container:
        """Return a container. Raises NotFound (`No such container: …`)."""

    def list(self) -> tuple[Container, ...]:
        """Return all containers, newest first."""

    async def size(self, container: str) -> ContainerSize:
        """Return what a container takes on the disk; reads all that it has written."""

    def logs(self, container: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield lines of output, oldest first; with `follow` until the container has ended."""

    async def pause(self, container: str) -> None:
        """Freeze the processes of a container. Raises Conflict if it does not run or is paused."""

    async def unpause(self, container: str) -> None:
        """Let the processes of a container go on. Raises Conflict if it is not paused."""

    async def rename(self, container: str, name: str) -> None:
        """Give a container another name. Raises NameConflict, InvalidArgument."""

    async def attach(self, container: str, options: AttachOptions) -> ContainerStream:
        """Attach to a container; the stream ends with it.

        At once if it does not run; of a plain container that does not, it begins with its next start.
        """

    async def stat_path(self, container: str, path: str) -> PathStat:
        """Return what a path in a container is. Raises NotFound, NotBuilt (in a volume of one that does not run)."""

    def read_archive(self, container: str, path: str) -> AsyncIterator[bytes]:
        """Yield a tar of a path in a container. Raises as `stat_path`."""

    async def write_archive(self, container: str, path: str, archive: AsyncIterator[bytes], keeps_kinds: bool) -> None:
        """Unpack a tar, plain or compressed, into a directory of a container.

        `keeps_kinds`: a directory is not replaced by something else, and nothing else by a directory.
        Raises as `stat_path`; InvalidArgument, Forbidden (read-only).
        """

    async def changes(self, container: str) -> tuple[FileChange, ...]:
        """Return what a container has changed in its image's files, by path."""

    def export(self, container: str) -> AsyncIterator[bytes]:
        """Yield a tar of a container's root filesystem, without its volumes and binds."""

    async def commit(self, container: str, request: CommitRequest) -> ImageRecord:
        """Make an image of a container. Raises InvalidArgument."""

    async def resize(self, container: str, height: int, width: int) -> None:
        """Give a container's terminal a size in characters. Raises Conflict if it does not run."""

    async def stats(self, container: str) -> ContainerStats:
        """Return what a container uses now; `at_ns` 0 if it does not run."""

    async def top(self, container: str, ps_arguments: str = "-ef") -> ProcessTable:
        """Return a container's processes as `ps` shows them. Raises Conflict (not running), ShoalError (no `ps`)."""

    def exec_create(self, container: str, config: ExecConfig) -> ExecRecord:
        """Prepare a command in a container. Raises Conflict if it does not run or is paused, InvalidArgument."""

    async def exec_start(
        self, exec_id: str, detach: bool = False, console_size: tuple[int, int] | None = None
    ) -> ContainerStream | None:
        """Start a command; None with `detach`, and then all of its stdio is /dev/null.

        Raises NotFound, Conflict (started before, container not running), InvalidArgument with runc's reason.
        """

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Give a command's terminal a size in characters. Raises NotFound if there is none."""

    def exec_inspect(self, exec_id: str) -> ExecRecord:
        """Return a command. Raises NotFound (`No such exec instance: …`)."""
