"""What is done inside an engine's containers while they run: attach, sizes of terminals, usage, processes, execs.

The part of `RuncEngine` that changes no container; how execs are kept is `execs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from shoal.engine import copying, rootfs
from shoal.engine.attachment import attach
from shoal.engine.changes import changes_of
from shoal.engine.events import NodeEvents
from shoal.engine.execs import Execs, check_runs
from shoal.engine.host import Host
from shoal.engine.images.images import LocalImages, receive
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.live import Live, LiveContainers
from shoal.engine.preparation import layer_directories, mount_root
from shoal.engine.process_table import pids_of, run_ps
from shoal.engine.protocol import ContainerStream
from shoal.engine.rootfs import Layout, release
from shoal.engine.usage import read_usage
from shoal.errors import Conflict, Forbidden, InvalidArgument, NotBuilt, NotFound
from shoal.lib.clock import Clock
from shoal.lib.files import size_of_tree
from shoal.model.base import replace
from shoal.model.container import CommitRequest, Container, ContainerSize, FileChange, ImageRecord, PathStat
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, ProcessTable

T = TypeVar("T")
_PIPE_BYTES = 64 * 1024


class InsideContainers:
    """See the module; `RuncEngine` sets these and says how work is carried to its end."""

    host: Host
    _live: LiveContainers
    _layout: Layout
    _keeper: KeeperClient
    _clock: Clock
    _execs: Execs

    events: NodeEvents
    local_images: LocalImages

    async def pause(self, container: str) -> None:
        """Freeze the processes of a container."""
        raise NotImplementedError

    async def unpause(self, container: str) -> None:
        """Let the processes of a container go on."""
        raise NotImplementedError

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        raise NotImplementedError

    # files

    async def size(self, container: str) -> ContainerSize:
        """Return what a container takes on the disk; reads all that it has written."""
        found = self._live.find(container).container
        try:
            image_bytes = self.local_images.get(found.image_id).size_bytes
        except NotFound:
            image_bytes = 0
        written_bytes = await asyncio.to_thread(size_of_tree, self._layout.directory(found.id) / "upper")
        return ContainerSize(written_bytes=written_bytes, root_bytes=image_bytes + written_bytes)

    async def stat_path(self, container: str, path: str) -> PathStat:
        """Return what a path in a container is. Raises NotFound, NotBuilt (in a volume of one that does not run)."""
        async with self._root_of(self._live.find(container), path) as root:
            return await asyncio.to_thread(copying.stat_path, root, path)

    async def read_archive(self, container: str, path: str) -> AsyncIterator[bytes]:
        """Yield a tar of a path in a container. Raises as `stat_path`."""
        live = self._live.find(container)
        async with self._root_of(live, path) as root:
            self._refuse_mounted(live.container, path, also_below=True)
            self.events.tell(live.container, "archive-path", path=path)
            async for data in _packed(lambda output: copying.pack(root, path, output)):
                yield data

    async def export(self, container: str) -> AsyncIterator[bytes]:
        """Yield a tar of a container's root filesystem, without its volumes and binds."""
        live = self._live.find(container)
        self.events.tell(live.container, "export")
        async with (
            self._bare_root_of(live) as root,
            aclosing(_packed(lambda output: copying.pack_tree(root, output))) as pieces,
        ):
            async for data in pieces:
                yield data

    async def changes(self, container: str) -> tuple[FileChange, ...]:
        """Return what a container has changed in its image's files, by path."""
        found = self._live.find(container).container
        layers = tuple(
            self._layout.layer_root / name
            for name in (*layer_directories(self.local_images, found), rootfs.MOUNTPOINTS)
        )
        return await asyncio.to_thread(changes_of, self._layout.directory(found.id) / "upper", layers)

    async def commit(self, container: str, request: CommitRequest) -> ImageRecord:
        """Make an image of a container. Raises InvalidArgument."""
        live = self._live.find(container)
        upper = self._layout.directory(live.container.id) / "upper"

        def write_layer(path: Path) -> None:
            upper.mkdir(exist_ok=True, mode=0o755)
            with path.open("wb") as output:
                copying.pack_tree(upper, output, is_layer=True)

        pauses = request.pauses and live.container.state.status == "running" and not live.container.state.paused
        if pauses:
            await self.pause(live.container.id)
        try:
            image = await self.local_images.commit(live.container, request, write_layer)
        finally:
            if pauses:
                with contextlib.suppress(Conflict, NotFound):
                    await self.unpause(live.container.id)
        self.events.tell(live.container, "commit", imageID=image.id, imageRef=request.reference)
        return image

    async def write_archive(self, container: str, path: str, archive: AsyncIterator[bytes], keeps_kinds: bool) -> None:
        """Unpack a tar, plain or compressed, into a directory of a container. Raises as `stat_path`; Forbidden."""
        live = self._live.find(container)
        if live.container.config.read_only and live.container.state.status != "running":
            raise Forbidden("container rootfs is marked read-only")
        with self.local_images.content.scratch() as directory:
            # all of it first: a client that breaks off half-way changes nothing
            await receive(archive, directory / "archive")
            async with self._root_of(live, path) as root:
                work = asyncio.to_thread(
                    copying.put,
                    root,
                    path,
                    directory / "archive",
                    keeps_kinds,
                    lambda place: self._refuse_mounted(live.container, place),
                )
                await self._to_the_end(work)
        self.events.tell(live.container, "extract-to-dir", path=path)

    def _refuse_mounted(self, container: Container, path: str, also_below: bool = False) -> None:
        """Refuse what lies in a mount of a container that does not run: only its own layer is there.

        `also_below`: also what has a mount below it.
        """
        if container.state.status == "running":
            return
        wanted = posixpath.normpath(posixpath.join("/", path))
        targets = (mount.target for mount in container.config.mounts)
        for target in map(posixpath.normpath, (*targets, *self.local_images.get(container.image_id).volumes)):
            is_below = also_below and target.startswith(f"{wanted.rstrip('/')}/")
            if wanted == target or wanted.startswith(f"{target}/") or is_below:
                raise NotBuilt(
                    f"copying to or from {target}, a mount of a container that does not run, is not built: start it"
                )

    @asynccontextmanager
    async def _bare_root_of(self, live: Live) -> AsyncIterator[Path]:
        """Hold a container's root filesystem as the host sees it: nothing else is mounted there."""
        if live.container.state.status == "running":
            yield self._layout.bundle(live.container.id) / "rootfs"
            return
        async with self._root_of(live, "/") as root:
            yield root

    @asynccontextmanager
    async def _root_of(self, live: Live, path: str) -> AsyncIterator[Path]:
        """Hold a container's root as it sees it; of one that does not run without its volumes and binds."""
        if live.container.state.status == "running":
            yield Path(f"/proc/{live.container.state.pid}/root")
            return
        async with live.lock:
            container = live.container
            if container.state.status == "running":
                yield Path(f"/proc/{container.state.pid}/root")
                return
            self._refuse_mounted(container, path)
            if live.release is not None:
                await asyncio.shield(live.release)
            try:
                yield await asyncio.to_thread(mount_root, self._layout, self.local_images, container)
            finally:
                await asyncio.shield(asyncio.to_thread(release, self._layout, container.id))

    async def attach(self, container: str, options: AttachOptions) -> ContainerStream:
        """Attach to a container; the stream ends with it.

        At once if it does not run; of a plain container that does not, it begins with its next start.
        """
        live = self._live.find(container)
        live.is_awaited |= live.container.state.status != "running"
        self.events.tell(live.container, "attach")
        return await attach(self._layout, self._keeper, live.container, options)

    async def resize(self, container: str, height: int, width: int) -> None:
        """Give a container's terminal a size in characters. Raises Conflict if it does not run."""
        found = self._live.find(container).container
        check_runs(replace(found, state=replace(found.state, paused=False)))
        answer = await self._keeper.request("resize", id=found.id, height=height, width=width)
        if "error" in answer:
            raise InvalidArgument(f"invalid size of a terminal: {height} by {width}: {answer['error']}")
        self.events.tell(found, "resize", height=str(height), width=str(width))

    async def stats(self, container: str) -> ContainerStats:
        """Return what a container uses now; `at_ns` 0 if it does not run."""
        found = self._live.find(container).container
        if found.state.status != "running":
            return ContainerStats()
        cgroup, now_ns = self._layout.cgroup(found.id), self._clock.now_ns()
        return await asyncio.to_thread(read_usage, self.host, cgroup, found.state.pid, now_ns)

    async def top(self, container: str, ps_arguments: str = "-ef") -> ProcessTable:
        """Return a container's processes as `ps` shows them. Raises Conflict (not running), ShoalError (no `ps`)."""
        found = self._live.find(container).container
        if found.state.status != "running":
            raise Conflict(f"container {found.id} is not running")
        self.events.tell(found, "top")
        pids = await asyncio.to_thread(pids_of, self.host, self._layout.cgroup(found.id))
        return await asyncio.to_thread(run_ps, ps_arguments, pids)

    def exec_create(self, container: str, config: ExecConfig) -> ExecRecord:
        """Prepare a command in a container. Raises Conflict if it does not run or is paused, InvalidArgument."""
        found = self._live.find(container).container
        made = self._execs.create(found, config)
        self.events.tell(found, f"exec_create: {' '.join(config.arguments)}", execID=made.id)
        return made

    async def exec_start(
        self, exec_id: str, detach: bool = False, console_size: tuple[int, int] | None = None
    ) -> ContainerStream | None:
        """Start a command; None with `detach`. Raises NotFound, Conflict, InvalidArgument with runc's reason."""
        record = self._execs.get(exec_id)
        live = self._live.find(record.container_id)
        if not record.running and record.exit_code is None:
            self.events.tell(live.container, f"exec_start: {' '.join(record.config.arguments)}", execID=exec_id)
        return await self._to_the_end(self._execs.start(live.container, exec_id, detach, console_size))

    def _take_exec_end(self, exec_id: str, code: int) -> None:
        """Take the end of a command from the keeper."""
        self._execs.on_exit(exec_id, code)
        with contextlib.suppress(NotFound):
            live = self._live.find(self._execs.get(exec_id).container_id)
            self.events.tell(live.container, "exec_die", execID=exec_id, exitCode=str(code))

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Give a command's terminal a size in characters. Raises NotFound if there is none."""
        await self._execs.resize(exec_id, height, width)

    def exec_inspect(self, exec_id: str) -> ExecRecord:
        """Return a command. Raises NotFound (`No such exec instance: …`)."""
        return self._execs.get(exec_id)


async def _packed(pack: Callable[[BinaryIO], None]) -> AsyncGenerator[bytes]:
    """Yield what `pack` writes; it runs in a thread."""

    def write(descriptor: int) -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as output:
            pack(output)

    reading, writing = os.pipe2(os.O_CLOEXEC)
    packing = asyncio.create_task(asyncio.to_thread(write, writing))
    try:
        while data := await asyncio.to_thread(os.read, reading, _PIPE_BYTES):
            yield data
    finally:
        # one that still packs sees that nobody reads
        os.close(reading)
        await asyncio.gather(packing, return_exceptions=True)
    packing.result()
