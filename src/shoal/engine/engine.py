"""RuncEngine: the containers of a node, as `engine/protocol.py` says.

Decides what happens when; how is in the modules beside: `records` (disk), `rootfs` (mounts, files), `oci` (the spec),
`keeper_client` (the process that is the containers' parent), `images`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from shoal.core.health import merged
from shoal.core.volume import with_names
from shoal.engine import records, rootfs
from shoal.engine.events import NodeEvents
from shoal.engine.execs import Execs
from shoal.engine.freezer import freeze, is_frozen
from shoal.engine.health import HealthChecks
from shoal.engine.host import Host, read_host
from shoal.engine.images.images import LocalImages
from shoal.engine.inside import InsideContainers
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.limits import apply_limits, limit_arguments
from shoal.engine.live import Live, LiveContainers, amended_container, wait_for
from shoal.engine.log_forward import check_forward
from shoal.engine.log_options import log_settings
from shoal.engine.log_reader import read_log
from shoal.engine.node_volumes import NodeVolumes
from shoal.engine.oci import arguments_of, check_config
from shoal.engine.preparation import load_containers, prepare_run, run_request
from shoal.engine.probes import Probes
from shoal.engine.protocol import Images
from shoal.engine.records import FailedStart
from shoal.engine.signals import parse_signal
from shoal.engine.start_errors import start_error_code, start_error_text
from shoal.engine.volumes import LocalVolumes
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.lib.clock import Clock, SystemClock
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import (
    Amendment,
    Container,
    ContainerConfig,
    ContainerState,
    ExitStatus,
    Health,
    HealthStatus,
    LogLine,
    LogOptions,
    WaitCondition,
)

_log = structlog.get_logger(__name__)
T = TypeVar("T")

DEFAULT_STOP_SECONDS = 10.0
KILL_WAIT_SECONDS = 30.0
SIGKILL = 9


class RuncEngine(InsideContainers):
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

    events: NodeEvents
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
        self._live = LiveContainers()
        self.events = NodeEvents(self._clock)
        self.local_images = LocalImages(
            image_root.resolve(),
            daemon_id,
            self.host.machine,
            self._clock,
            self._live.using,
            self.events,
            insecure_registries,
        )
        self.images = self.local_images
        self._layout = rootfs.Layout(
            data_root.resolve(), exec_root.resolve(), self.local_images.content.layers, daemon_id, self.host
        )
        self.volumes = NodeVolumes(LocalVolumes(self._layout.volumes, self._clock), self.list, self.events)
        self._keeper = KeeperClient(
            exec_root.resolve(), data_root.resolve(), self._layout.keeper_cgroup, self._on_event, self._on_hello
        )
        self._leased: frozenset[str] = frozenset()
        self._lease_lock = asyncio.Lock()
        # One thread: this work is many short system calls, and more threads spend their time on the interpreter's lock.
        self._files = ThreadPoolExecutor(max_workers=1, thread_name_prefix="container files")
        self._tasks: set[asyncio.Task[Any]] = set()
        self._execs = Execs(self._layout, self._keeper, self._clock, self._ids, self._in_thread)
        self._probes = Probes(self._layout, self._keeper, self._ids)
        self._health = HealthChecks(self._probes, self._clock, self._in_thread, self.events)

    # life of the engine

    async def start_up(self) -> None:
        """Read the records, take up running containers again, clean what was half-made, connect to the keeper."""
        for part in (
            self._layout.make,
            self.local_images.start_up,
            self.volumes.local.start_up,
            self._execs.start_up,
            self._probes.start_up,
        ):
            await asyncio.to_thread(part)
        for container in await asyncio.to_thread(load_containers, self._layout):
            live = self._live.add(container)
            if container.state.status == "running":
                paused = await asyncio.to_thread(is_frozen, self.host, self._layout.cgroup(container.id))
                live.container = replace(container, state=replace(container.state, paused=paused))
                live.guard(self._layout.bundle(live.container.id))
            elif container.state.status == "exited":
                live.status = await asyncio.to_thread(records.exit_status_of, self._layout.directory(container.id))
                self._finish(live)
            elif container.state.error:
                live.ended.set()
        await self._renew_lease()
        await self._keeper.start_up()
        for live in list(self._live.by_id.values()):
            await self._catch_up(live)
            if live.container.state.status == "running":
                self._health.begin(live, is_adopted=True)

    async def close(self, stop_keeper: bool = False) -> None:
        """Let go of the containers; they run on. With `stop_keeper` end the keeper, too, if it has none."""
        await self._health.close()
        await self._execs.close()
        for task in list(self._tasks):
            await asyncio.gather(task, return_exceptions=True)
        running = any(live.container.state.status == "running" for live in self._live.by_id.values())
        if stop_keeper and not running and await self._keeper.stop_keeper():
            await asyncio.to_thread(self._layout.unmake)
        await self._keeper.close()
        if not running:
            await asyncio.to_thread(self._layout.remove_cgroups)
        for live in self._live.by_id.values():
            live.unguard()
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
        name = self._live.checked_name(config.name, container_id)
        check_config(config, self.host)
        log_settings(config, "")
        check_forward(config)
        if config.stop_signal:
            parse_signal(config.stop_signal)
        arguments = arguments_of(config, image)
        config = replace(config, name=name, healthcheck=merged(config.healthcheck, image.healthcheck))
        config = with_names(config, image.volumes, self._ids.new_hex)
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
        live = self._live.add(container)

        def make() -> None:
            rootfs.check_binds(config)
            directory.mkdir(mode=0o710)
            rootfs.put_files(self._layout, container_id, config)
            records.save_container(directory, container)

        async with live.lock:
            try:
                await self._renew_lease()
                await self.volumes.create_for(config)
                await self._in_thread(make)
            except BaseException:
                self._live.forget(container)
                await self.volumes.remove_anonymous(config)
                await asyncio.shield(asyncio.to_thread(rootfs.discard, self._layout, container_id))
                raise
        self.events.tell(container, "create")
        _log.info("container created", container_id=container_id, name=name, image=config.image)
        return container

    async def start(self, container: str) -> Container:
        """Start a created container; returns it with its pid. Raises InvalidArgument with runc's reason."""
        return await self._to_the_end(self._start(self._live.find(container)))

    async def _start(self, live: Live) -> Container:
        async with live.lock:
            if live.container.state.status == "running":
                return live.container
            if live.release is not None:
                await asyncio.shield(live.release)
            container_id = live.container.id
            live.status = None
            live.ended.clear()
            try:
                asked = await self._in_thread(lambda: self._prepare_run(live.container))
                live.guard(self._layout.bundle(live.container.id))
                answer = await self._keeper.request("run", **asked)
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
                self._health.begin(live)
            self.events.tell(live.container, "start")
            self.volumes.tell(live.container, "mount")
            _log.info("container started", container_id=container_id, pid=answer["pid"])
            return live.container

    async def wait(self, container: str, condition: WaitCondition = WaitCondition.ENDED) -> ExitStatus:
        """Wait until a container has ended (at once if it has), or for another condition. Raises NotFound."""
        return await wait_for(self._live.find(container), condition)

    async def wait_for_health(self, container: str, wanted: frozenset[HealthStatus]) -> Health | None:
        """Wait until what checks say of a container is one of `wanted`; None if it is not checked or has ended."""
        live = self._live.find(container)
        while True:
            health = live.container.state.health
            if health is None or live.container.state.status != "running":
                return None
            if health.status in wanted:
                return health
            await live.news.wait()

    async def stop(self, container: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """Send the stop signal, after `timeout_seconds` (None: the container's own, else 10) KILL; wait for the end."""
        live = self._live.find(container)
        if live.container.state.status != "running":
            return
        config = live.container.config
        number = parse_signal(signal or config.stop_signal or self._image_stop_signal(live.container) or "SIGTERM")
        patience = timeout_seconds if timeout_seconds is not None else config.stop_timeout_seconds
        patience = DEFAULT_STOP_SECONDS if patience is None else patience
        if number == SIGKILL:
            await self._kill_and_wait(live)
            return
        await self._send_signal(live, number)
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
        live = self._live.find(container)
        if live.container.state.status != "running" or not await self._send_signal(live, number):
            raise Conflict(f"cannot kill container: {container}: container {live.container.id} is not running")

    async def remove(self, container: str, force: bool = False) -> None:
        """Remove an ended container (with `force` a running one, too) and all it left. Raises Conflict if running."""
        await self._to_the_end(self._remove(self._live.find(container), force))

    async def _remove(self, live: Live, force: bool) -> None:
        while True:
            if live.container.state.status == "running":
                if not force:
                    raise Conflict(
                        f'cannot remove container "/{live.container.config.name}": container is running: '
                        "stop the container before removing or force remove"
                    )
                await self._kill_and_wait(live)
            async with live.lock:
                if live.container.id not in self._live.by_id:
                    return
                if live.container.state.status == "running":
                    continue  # it was started while the lock was waited for
                if live.release is not None:
                    await asyncio.shield(live.release)
                await asyncio.to_thread(rootfs.discard, self._layout, live.container.id)
                live.unguard()
                self._live.forget(live.container)
                self._execs.forget_container(live.container.id)
                live.removed.set()
                break
        if live.is_awaited:
            # who is attached waits for a start that will never be
            await self._keeper.request("expect-none", id=live.container.id)
        await self._renew_lease()
        await self.volumes.remove_anonymous(live.container.config)
        self.events.tell(live.container, "destroy")
        _log.info("container removed", container_id=live.container.id)

    async def pause(self, container: str) -> None:
        """Freeze the processes of a container. Raises Conflict if it does not run or is paused."""
        await self._set_paused(self._live.find(container), True)

    async def unpause(self, container: str) -> None:
        """Let the processes of a container go on. Raises Conflict if it is not paused."""
        await self._set_paused(self._live.find(container), False)

    async def _set_paused(self, live: Live, paused: bool) -> None:
        async with live.lock:
            container = live.container
            if container.state.status != "running":
                raise Conflict(f"container {container.id} is not running")
            if container.state.paused == paused:
                raise Conflict(f"Container {container.id} is {'already' if paused else 'not'} paused")
            await asyncio.to_thread(freeze, self.host, self._layout.cgroup(container.id), paused)
            if live.container.state.status == "running":
                live.container = replace(live.container, state=replace(live.container.state, paused=paused))
            self.events.tell(live.container, "pause" if paused else "unpause")
            _log.info("container paused" if paused else "container unpaused", container_id=container.id)

    async def rename(self, container: str, name: str) -> None:
        """Give a container another name. Raises NameConflict, InvalidArgument."""
        live = self._live.find(container)
        async with live.lock:
            old = live.container
            if not name.removeprefix("/"):
                raise InvalidArgument("Neither old nor new names may be empty")
            if name.removeprefix("/") == old.config.name:
                raise InvalidArgument("Renaming a container with the same name as its current name")
            checked = self._live.checked_name(name, old.id)
            self._live.name(checked, old.id)
            renamed = replace(old, config=replace(old.config, name=checked))
            try:
                await self._in_thread(lambda: records.save_container(self._layout.directory(old.id), renamed))
            except OSError:
                self._live.unname(checked)
                raise
            self._live.unname(old.config.name)
            live.container = replace(live.container, config=renamed.config)
        self.events.tell(live.container, "rename", oldName=f"/{old.config.name}")

    async def update(self, container: str, config: ContainerConfig) -> None:
        """Give a container other limits, at once if it runs. Raises InvalidArgument: the host or kernel refuses."""
        check_config(config, self.host)
        live = self._live.find(container)
        arguments = limit_arguments(live.container.config, config, self.host)
        async with live.lock:
            if arguments and live.container.state.status == "running":
                await asyncio.to_thread(apply_limits, self._layout.runc_root, live.container.id, arguments)
        self.events.tell(await self.amend(live.container.id, Amendment(config=config)), "update")

    async def amend(self, container: str, change: Amendment) -> Container:
        """Change what is known of a container: for its next start, and for who inspects it. On disk when it returns."""
        live = self._live.find(container)
        async with live.lock:
            amended = amended_container(live.container, change)
            if replace(amended, state=live.container.state) != live.container:
                directory = self._layout.directory(amended.id)
                await self._in_thread(lambda: records.save_container(directory, amended))
            # it may have ended meanwhile
            live.container = amended_container(live.container, change)
            if change.config is not None and live.container.state.status == "running":
                await self._in_thread(lambda: rootfs.rewrite_etc_files(self._layout, amended.id, amended.config))
            return live.container

    def get(self, container: str) -> Container:
        """Return a container. Raises NotFound (`No such container: …`)."""
        return self._live.find(container).container

    def list(self) -> tuple[Container, ...]:
        """Return all containers, newest first."""
        found = (live.container for live in self._live.by_id.values())
        return tuple(sorted(found, key=lambda container: -container.created_at_ns))

    async def logs(self, container: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield lines of output, oldest first; with `follow` until the container has ended."""
        live = self._live.find(container)
        if live.container.config.log_driver == "none":
            raise NotFound("configured logging driver does not support reading")
        lines = read_log(
            Path(live.container.log_path), options, lambda: live.container.state.status != "running", self._clock.now_ns
        )
        async for line in lines:
            yield line

    # within

    def _image_stop_signal(self, container: Container) -> str:
        try:
            return self.images.get(container.image_id).stop_signal
        except NotFound:
            return ""

    async def _renew_lease(self) -> None:
        async with self._lease_lock:
            wanted = frozenset(live.container.image_id for live in self._live.by_id.values())
            if wanted != self._leased:
                await asyncio.to_thread(self.local_images.write_lease, wanted)
                self._leased = wanted

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._files, work)

    async def _fail_start(self, live: Live, reason: str) -> None:
        failure = FailedStart(code=start_error_code(reason), error=reason, at_ns=self._clock.now_ns())
        container_id = live.container.id
        live.container = replace(live.container, state=records.failed_state(failure))
        live.ended.set()
        live.unguard()

        def clean() -> None:
            records.save_failure(self._layout.directory(container_id), failure)
            self._release(container_id)

        await self._in_thread(clean)
        _log.info("container did not start", container_id=container_id, reason=reason)

    async def _send_signal(self, live: Live, number: int) -> bool:
        """Send a signal to the first process; a paused container goes on, since it could not end otherwise."""
        # told first: the end that it brings about may be told before the keeper's answer is here
        self.events.tell(live.container, "kill", signal=str(number))
        answer = await self._keeper.request("kill", id=live.container.id, signal=number)
        if live.container.state.paused:
            with contextlib.suppress(Conflict):
                await self._set_paused(live, False)
        return bool(answer.get("sent"))

    async def _kill_and_wait(self, live: Live) -> None:
        await self._send_signal(live, SIGKILL)
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

    def _prepare_run(self, container: Container) -> dict[str, Any]:
        """Make what a run needs, and return what the keeper is asked: in one go, as others wait for the thread."""
        prepare_run(self._layout, self.local_images, self.volumes.local, container)
        return run_request(self._layout, container)

    def _release(self, container_id: str) -> None:
        rootfs.release(self._layout, container_id)
        self.volumes.let_go()

    def _on_event(self, event: dict[str, Any]) -> None:
        """Take what the keeper tells unasked: exits, and how starts ended that an earlier engine asked for."""
        if event["event"] == "exec-exit":
            if not self._probes.on_exit(event["id"], event["code"]):
                self._take_exec_end(event["id"], event["code"])
            return
        live = self._live.by_id.get(str(event.get("id")))
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

    def _on_exit(self, live: Live, event: dict[str, Any]) -> None:
        live.status = ExitStatus(
            code=event["code"], finished_at_ns=event["finished_at_ns"], oom_killed=event["oom_killed"]
        )
        state = records.ended_state(live.status, int(event["started_at_ns"]))
        live.container = replace(live.container, state=replace(state, health=live.container.state.health))
        _log.info("container ended", container_id=live.container.id, code=event["code"], oom=event["oom_killed"])
        self._finish(live)

    def _on_hello(self, hello: dict[str, Any]) -> None:
        """Compare with what the keeper has: what it does not have any more has ended while nobody listened."""
        running: dict[str, int] = hello["running"]
        self._execs.on_hello(hello.get("execs", []))
        self._probes.on_hello(hello.get("execs", []))
        for live in list(self._live.by_id.values()):
            pid = running.get(live.container.id)
            if live.container.state.status == "created" and pid is not None and not live.lock.locked():
                # a daemon that was killed asked for this start; it was not on disk yet when the records were read
                live.container = replace(live.container, state=ContainerState(status="running", pid=pid))
                live.guard(self._layout.bundle(live.container.id))
            if live.container.state.status != "running":
                continue
            if pid is None:
                self._spawn(self._take_missed_end(live))
            elif pid and pid != live.container.state.pid:
                live.container = replace(live.container, state=replace(live.container.state, pid=pid))

    async def _catch_up(self, live: Live) -> None:
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

    async def _take_missed_end(self, live: Live) -> None:
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

    def _finish(self, live: Live) -> None:
        """Say that a run has ended, and take away what it needed, off the way of who waits."""
        self._health.end(live.container.id)
        if live.container.state.oom_killed:
            self.events.tell(live.container, "oom")
        self.events.tell(live.container, "die", exitCode=str(live.container.state.exit_code))
        self.volumes.tell(live.container, "unmount")
        live.end()
        live.unguard()
        live.release = self._spawn(self._in_thread(lambda: self._release(live.container.id)))

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)
        return task
