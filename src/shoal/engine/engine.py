"""RuncEngine: the containers of a node, as `engine/protocol.py` says.

Decides what happens when; how is in the modules beside: `records` (disk), `rootfs` (mounts, files), `oci` (the spec),
`keeper_client` (the process that is the containers' parent), `images`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from shoal.engine import records, rootfs, syscalls
from shoal.engine.host import Host, read_host
from shoal.engine.images.images import LocalImages
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.log_options import LogSettings, log_settings
from shoal.engine.log_reader import read_log
from shoal.engine.oci import Places, arguments_of, check_config, make_spec
from shoal.engine.protocol import Images
from shoal.engine.records import FailedStart
from shoal.engine.signals import parse_signal
from shoal.engine.users import resolve
from shoal.errors import Conflict, InvalidArgument, NameConflict, NotFound, ShoalError
from shoal.lib.clock import Clock, SystemClock
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import Container, ContainerConfig, ContainerState, ExitStatus, LogLine, LogOptions

_log = structlog.get_logger(__name__)
T = TypeVar("T")

DEFAULT_STOP_SECONDS = 10.0
KILL_WAIT_SECONDS = 30.0
_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class _Live:
    """A container in memory. `ended` is set when its last run has; `lock` orders what is done to it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.status: ExitStatus | None = None
        self.ended = asyncio.Event()
        self.lock = asyncio.Lock()
        self.guards: list[int] = []
        self.release: asyncio.Task[None] | None = None


class RuncEngine:
    """The containers of one node.

    Args:
        data_root: what lasts: containers' records, volumes.
        exec_root: what lasts as long as the machine is up: sockets, bundles, secrets (on a tmpfs).
        image_root: images; several daemons may share it.
        daemon_id: part of cgroup names, so that several daemons share a machine.
        clock: source of time.
        ids: source of ids.
        insecure_registries: registries that speak plain HTTP besides those on loopback.
    """

    images: Images
    local_images: LocalImages

    def __init__(
        self,
        data_root: Path,
        exec_root: Path,
        image_root: Path,
        daemon_id: str,
        clock: Clock | None = None,
        ids: Ids | None = None,
        insecure_registries: tuple[str, ...] = (),
        host: Host | None = None,
    ) -> None:
        for path in (data_root, exec_root, image_root):
            path.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._clock = clock or SystemClock()
        self._ids = ids or Ids()
        self.host = host or read_host()
        self.local_images = LocalImages(
            image_root.resolve(), daemon_id, self.host.machine, self._clock, self._using, insecure_registries
        )
        self.images = self.local_images
        layers = self.local_images.content.layers
        self._layout = rootfs.Layout(data_root.resolve(), exec_root.resolve(), layers, daemon_id, self.host)
        self._keeper = KeeperClient(
            exec_root.resolve(), data_root.resolve(), self._layout.keeper_cgroup, self._on_event, self._on_hello
        )
        self._live: dict[str, _Live] = {}
        self._names: dict[str, str] = {}
        self._leased: frozenset[str] = frozenset()
        self._lease_lock = asyncio.Lock()
        # One thread: this work is many short system calls, and more threads spend their time on the interpreter's lock.
        self._files = ThreadPoolExecutor(max_workers=1, thread_name_prefix="container files")
        self._tasks: set[asyncio.Task[Any]] = set()

    # life of the engine

    async def start_up(self) -> None:
        """Read the records, take up running containers again, clean what was half-made, connect to the keeper."""
        await asyncio.to_thread(self._layout.make)
        for container in await asyncio.to_thread(self._load_all):
            live = _Live(container)
            self._live[container.id] = live
            self._names[container.config.name] = container.id
            if container.state.status == "running":
                self._guard(live)
            elif container.state.status == "exited":
                live.status = await asyncio.to_thread(records.exit_status_of, self._layout.directory(container.id))
                self._finish(live)
            elif container.state.error:
                live.ended.set()
        await self._renew_lease()
        await self._keeper.start_up()
        for live in list(self._live.values()):
            await self._catch_up(live)

    def _load_all(self) -> list[Container]:
        found = []
        for directory in sorted(self._layout.containers.iterdir()):
            container = records.load_container(directory)
            if container is None:
                _log.info(
                    "removing what is left of a container", container_id=directory.name, reason="it has no record"
                )
                rootfs.discard(self._layout, directory.name)
            else:
                found.append(container)
        known = {container.id for container in found}
        for leftover in [*self._layout.bundles.iterdir(), *self._layout.secrets.iterdir()]:
            if leftover.name not in known:
                rootfs.discard(self._layout, leftover.name)
        return found

    async def close(self, stop_keeper: bool = False) -> None:
        """Let go of the containers; they run on. With `stop_keeper` end the keeper, too, if it has none."""
        for task in list(self._tasks):
            await asyncio.gather(task, return_exceptions=True)
        running = any(live.container.state.status == "running" for live in self._live.values())
        if stop_keeper and not running and await self._keeper.stop_keeper():
            await asyncio.to_thread(self._layout.unmake)
        await self._keeper.close()
        if not running:
            await asyncio.to_thread(self._layout.remove_cgroups)
        for live in self._live.values():
            self._unguard(live)
        self._files.shutdown()
        self.local_images.close()

    @property
    def keeper_pid(self) -> int:
        """The keeper this engine is connected to, 0 while it is not."""
        return self._keeper.pid

    # the protocol

    async def create(self, config: ContainerConfig) -> Container:
        """Create a container. Raises NotFound (image), NameConflict, InvalidArgument (the host refuses)."""
        return await self._to_the_end(self._create(config))

    async def _create(self, config: ContainerConfig) -> Container:
        image = self.images.get(config.image_id or config.image)
        container_id = self._ids.new_hex()
        name = self._checked_name(config.name, container_id)
        check_config(config, self.host)
        log_settings(config, "")
        if config.stop_signal:
            parse_signal(config.stop_signal)
        arguments = arguments_of(config, image)
        config = replace(config, name=name)
        directory = self._layout.directory(container_id)
        container = Container(
            id=container_id,
            config=replace(config, files=tuple(replace(file, content=b"") for file in config.files)),
            image_id=image.id,
            created_at_ns=self._clock.now_ns(),
            state=ContainerState(status="created"),
            arguments=arguments,
            run_directory=str(self._layout.bundle(container_id)),
            log_path="" if config.log_driver == "none" else str(directory / f"{container_id}-json.log"),
        )
        live = _Live(container)
        self._names[name] = container_id
        self._live[container_id] = live

        def make() -> None:
            rootfs.check_binds(config)
            directory.mkdir(mode=0o710)
            rootfs.put_files(self._layout, container_id, config)
            records.save_container(directory, container)

        async with live.lock:
            try:
                await self._renew_lease()
                await self._in_thread(make)
            except BaseException:
                self._forget(container)
                await asyncio.shield(asyncio.to_thread(rootfs.discard, self._layout, container_id))
                raise
        _log.info("container created", container_id=container_id, name=name, image=config.image)
        return container

    async def start(self, container: str) -> Container:
        """Start a created container; returns it with its pid. Raises InvalidArgument with runc's reason."""
        return await self._to_the_end(self._start(self._find(container)))

    async def _start(self, live: _Live) -> Container:
        async with live.lock:
            if live.container.state.status == "running":
                return live.container
            if live.release is not None:
                await asyncio.shield(live.release)
            container_id = live.container.id
            live.status = None
            live.ended.clear()
            try:
                await self._in_thread(lambda: self._prepare(live))
                self._guard(live)
                answer = await self._keeper.request("run", **self._run_request(live.container))
            except ShoalError as error:
                await self._fail_start(live, error.message)
                raise
            except OSError as error:
                await self._fail_start(live, str(error))
                raise ShoalError(f"cannot start container {container_id}: {error}") from error
            if "error" in answer:
                reason = start_error_text(str(answer["error"]))
                await self._fail_start(live, reason)
                raise InvalidArgument(reason)
            if live.status is None:
                state = ContainerState(status="running", pid=answer["pid"], started_at_ns=answer["started_at_ns"])
                live.container = replace(live.container, state=state)
            _log.info("container started", container_id=container_id, pid=answer["pid"])
            return live.container

    async def wait(self, container: str) -> ExitStatus:
        """Wait until a container has ended (at once if it has)."""
        live = self._find(container)
        await live.ended.wait()
        if live.status is not None:
            return live.status
        state = live.container.state
        return ExitStatus(code=state.exit_code, finished_at_ns=state.finished_at_ns)

    async def stop(self, container: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """Send the stop signal, after `timeout_seconds` (None: the container's own, else 10) KILL; wait for the end."""
        live = self._find(container)
        if live.container.state.status != "running":
            return
        config = live.container.config
        number = parse_signal(signal or config.stop_signal or self._image_stop_signal(live.container) or "SIGTERM")
        patience = timeout_seconds if timeout_seconds is not None else config.stop_timeout_seconds
        patience = DEFAULT_STOP_SECONDS if patience is None else patience
        await self._keeper.request("kill", id=live.container.id, signal=number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if patience < 0 else patience):
                await live.ended.wait()
            return
        _log.info(
            "container killed", container_id=live.container.id, reason=f"still running {patience:g} s after signal"
        )
        await self._kill_and_wait(live)

    async def kill(self, container: str, signal: str = "SIGKILL") -> None:
        """Send a signal to the container's first process. Raises Conflict if it does not run."""
        number = parse_signal(signal)
        live = self._find(container)
        sent = live.container.state.status == "running" and (
            await self._keeper.request("kill", id=live.container.id, signal=number)
        )
        if not sent or not sent.get("sent"):
            raise Conflict(f"cannot kill container: {container}: container {live.container.id} is not running")

    async def remove(self, container: str, force: bool = False) -> None:
        """Remove an ended container (with `force` a running one, too) and all it left. Raises Conflict if running."""
        await self._to_the_end(self._remove(self._find(container), force))

    async def _remove(self, live: _Live, force: bool) -> None:
        if live.container.state.status == "running":
            if not force:
                raise Conflict(
                    f'cannot remove container "/{live.container.config.name}": container is running: '
                    "stop the container before removing or force remove"
                )
            await self._kill_and_wait(live)
        async with live.lock:
            if live.container.id not in self._live:
                return
            if live.release is not None:
                await asyncio.shield(live.release)
            await asyncio.to_thread(rootfs.discard, self._layout, live.container.id)
            self._unguard(live)
            self._forget(live.container)
        await self._renew_lease()
        _log.info("container removed", container_id=live.container.id)

    def get(self, container: str) -> Container:
        """Return a container. Raises NotFound (`No such container: …`)."""
        return self._find(container).container

    def list(self) -> tuple[Container, ...]:
        """Return all containers, newest first."""
        found = (live.container for live in self._live.values())
        return tuple(sorted(found, key=lambda container: -container.created_at_ns))

    async def logs(self, container: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield lines of output, oldest first; with `follow` until the container has ended."""
        live = self._find(container)
        if live.container.config.log_driver == "none":
            raise NotFound("configured logging driver does not support reading")
        lines = read_log(Path(live.container.log_path), options, lambda: live.container.state.status != "running")
        async for line in lines:
            yield line

    # within

    def _find(self, container: str) -> _Live:
        key = container.removeprefix("/")
        if key in self._live:
            return self._live[key]
        if key in self._names:
            return self._live[self._names[key]]
        found = [container_id for container_id in self._live if key and container_id.startswith(key)]
        if len(found) == 1:
            return self._live[found[0]]
        if found:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {container}")
        raise NotFound(f"No such container: {container}")

    def _checked_name(self, name: str, container_id: str) -> str:
        name = name.removeprefix("/") or container_id[:12]
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if name in self._names:
            raise NameConflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._names[name]}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        return name

    def _forget(self, container: Container) -> None:
        self._live.pop(container.id, None)
        if self._names.get(container.config.name) == container.id:
            del self._names[container.config.name]

    def _using(self, image_id: str) -> tuple[tuple[str, bool], ...]:
        using = [live.container for live in self._live.values() if live.container.image_id == image_id]
        return tuple((container.id, container.state.status == "running") for container in using)

    def _image_stop_signal(self, container: Container) -> str:
        try:
            return self.images.get(container.image_id).stop_signal
        except NotFound:
            return ""

    async def _renew_lease(self) -> None:
        async with self._lease_lock:
            wanted = frozenset(live.container.image_id for live in self._live.values())
            if wanted != self._leased:
                await asyncio.to_thread(self.local_images.write_lease, wanted)
                self._leased = wanted

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    def _prepare(self, live: _Live) -> None:
        """Make what a run needs: root filesystem, files, spec, FIFOs. Blocking."""
        container, layout = live.container, self._layout
        config, container_id = container.config, container.id
        rootfs.release(layout, container_id)
        records.forget_run(layout.directory(container_id))
        image = self.images.get(container.image_id)
        layers = [self.local_images.content.index.layer(diff_id) for diff_id in reversed(image.layers)]
        if None in layers:
            raise ShoalError(f"the layers of image {container.image_id} are gone; pull it again")
        rootfs.check_binds(config)
        root = rootfs.mount_root(layout, container_id, tuple(layer.directory for layer in layers if layer is not None))
        passwd, group = (syscalls.read_in_root(root, f"/etc/{name}") for name in ("passwd", "group"))
        identity = resolve(config.user or image.user, config.groups, passwd, group)
        binds = rootfs.write_etc_files(layout, container_id, config) + rootfs.file_binds(layout, container_id, config)
        volumes = rootfs.make_volumes(layout, container_id, config, image, root)
        places = Places(root=str(root), cgroup=layout.cgroup(container_id), binds=binds, volumes=volumes)
        spec = make_spec(config, image, container_id, container.arguments, identity, places, self.host)
        bundle = layout.bundle(container_id)
        (bundle / "config.json").write_text(json.dumps(spec))
        if not config.tty:
            for name in ("stdout", "stderr"):
                os.mkfifo(bundle / name, 0o600)

    def _run_request(self, container: Container) -> dict[str, Any]:
        layout = self._layout
        settings: LogSettings = log_settings(container.config, container.log_path)
        return {
            "id": container.id,
            "directory": str(layout.directory(container.id)),
            "bundle": str(layout.bundle(container.id)),
            "runc_root": str(layout.runc_root),
            "memory_cgroup": layout.memory_cgroup(container.id),
            "terminal": container.config.tty,
            "open_stdin": container.config.open_stdin,
            "console_socket": str(layout.consoles / container.id[:12]),
            "log": {"path": settings.path, "max_bytes": settings.max_bytes, "max_files": settings.max_files},
        }

    def _guard(self, live: _Live) -> None:
        """Hold the FIFOs open: should the keeper and the container both die, what was written is still there."""
        bundle = self._layout.bundle(live.container.id)
        for name in ("stdout", "stderr"):
            with contextlib.suppress(FileNotFoundError):
                live.guards.append(os.open(bundle / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    @staticmethod
    def _unguard(live: _Live) -> None:
        while live.guards:
            os.close(live.guards.pop())

    async def _fail_start(self, live: _Live, reason: str) -> None:
        failure = FailedStart(code=start_error_code(reason), error=reason, at_ns=self._clock.now_ns())
        container_id = live.container.id
        live.container = replace(live.container, state=records.failed_state(failure))
        live.ended.set()
        self._unguard(live)

        def clean() -> None:
            records.save_failure(self._layout.directory(container_id), failure)
            rootfs.release(self._layout, container_id)

        await self._in_thread(clean)
        _log.info("container did not start", container_id=container_id, reason=reason)

    async def _kill_and_wait(self, live: _Live) -> None:
        await self._keeper.request("kill", id=live.container.id, signal=9)
        try:
            async with asyncio.timeout(KILL_WAIT_SECONDS):
                await live.ended.wait()
        except TimeoutError:
            raise ShoalError(
                f"container {live.container.id} does not end {KILL_WAIT_SECONDS:g} s after SIGKILL: "
                "it waits in the kernel, for a disk or a network filesystem"
            ) from None

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even if who waits for it is cancelled: half a start is neither state nor record."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)
        return await asyncio.shield(task)

    def _forget_task(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ShoalError):
            _log.error("work on a container failed", reason=repr(error))

    def _on_event(self, event: dict[str, Any]) -> None:
        """Take what the keeper tells unasked: exits, and how starts ended that an earlier engine asked for."""
        live = self._live.get(str(event.get("id")))
        if live is None or live.status is not None:
            return
        if event["event"] == "exit":
            self._on_exit(live, event)
        elif live.container.state.status != "running":
            return  # a start of our own, which is answered
        elif event["event"] == "started":
            state = replace(live.container.state, pid=event["pid"], started_at_ns=event["started_at_ns"])
            live.container = replace(live.container, state=state)
        elif event["event"] == "start-failed":
            self._spawn(self._fail_start(live, start_error_text(str(event["error"]))))

    def _on_exit(self, live: _Live, event: dict[str, Any]) -> None:
        live.status = ExitStatus(
            code=event["code"], finished_at_ns=event["finished_at_ns"], oom_killed=event["oom_killed"]
        )
        state = records.ended_state(live.status, int(event["started_at_ns"]))
        live.container = replace(live.container, state=state)
        _log.info("container ended", container_id=live.container.id, code=event["code"], oom=event["oom_killed"])
        self._finish(live)

    def _on_hello(self, running: dict[str, int]) -> None:
        """Compare with what the keeper has: what it does not have any more has ended while nobody listened."""
        for live in list(self._live.values()):
            pid = running.get(live.container.id)
            if live.container.state.status == "created" and pid is not None and not live.lock.locked():
                # a daemon that was killed asked for this start; it was not on disk yet when the records were read
                live.container = replace(live.container, state=ContainerState(status="running", pid=pid))
                self._guard(live)
            if live.container.state.status != "running":
                continue
            if pid is None:
                self._spawn(self._take_missed_end(live))
            elif pid and pid != live.container.state.pid:
                live.container = replace(live.container, state=replace(live.container.state, pid=pid))

    async def _catch_up(self, live: _Live) -> None:
        """Take in what the keeper wrote down between the reading of the records and its hello."""
        state = live.container.state
        is_known = state.error or state.started_at_ns or state.finished_at_ns
        if is_known or live.status is not None:
            return
        found = await asyncio.to_thread(records.load_container, self._layout.directory(live.container.id))
        if found is None or live.status is not None or live.container.state.started_at_ns:
            return
        if found.state.status == "exited":
            live.status = await asyncio.to_thread(records.exit_status_of, self._layout.directory(live.container.id))
            live.container = found
            self._finish(live)
        elif found.state.status == live.container.state.status:
            live.container = found

    async def _take_missed_end(self, live: _Live) -> None:
        directory = self._layout.directory(live.container.id)
        status = await asyncio.to_thread(records.exit_status_of, directory)
        status = status or ExitStatus(code=None, finished_at_ns=self._clock.now_ns())
        if live.status is None:
            live.status = status
            live.container = replace(
                live.container, state=records.ended_state(status, live.container.state.started_at_ns)
            )
            _log.info("container had ended unseen", container_id=live.container.id, code=status.code)
            self._finish(live)

    def _finish(self, live: _Live) -> None:
        """Say that a run has ended, and take away what it needed, off the way of who waits."""
        live.ended.set()
        self._unguard(live)
        work = self._in_thread(lambda: rootfs.release(self._layout, live.container.id))
        live.release = self._spawn(work)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)
        return task


def start_error_text(reason: str) -> str:
    """Return Docker's text for a start that runc refused with `reason`."""
    reason = reason.removeprefix("runc run failed: ").removeprefix("runc create failed: ")
    return (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"runc create failed: {reason}: unknown"
    )


def start_error_code(reason: str) -> int:
    """Return the exit code Docker gives a container that did not start: 127 not found, 126 not allowed, else 128."""
    low = reason.lower()
    if "executable file not found" in low or ("no such file or directory" in low and "exec" in low):
        return 127
    if "permission denied" in low or "is a directory" in low or "exec format error" in low:
        return 126
    return 128
