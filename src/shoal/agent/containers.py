"""The plain containers of this node (`docker run`): started, followed to their end, started again, taken away.

What is decided is `core/plain_life.py`; how a container gets its network is `container_network.py`. It works in and out
of a swarm, and takes up what runs when the daemon starts again. Containers of tasks are passed on to the engine as
they are: their life is the worker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

import structlog

from shoal.agent.container_network import ContainerNetwork
from shoal.core.plain_life import after_end, at_start_up, ends_restarts
from shoal.core.random_names import random_name
from shoal.core.validate.plain_mounts import mounts_with, parse_volumes_from
from shoal.engine.protocol import Engine
from shoal.errors import Conflict, Forbidden, NotFound, ShoalError, Unavailable
from shoal.lib.clock import NANOSECONDS_PER_SECOND
from shoal.lib.supervise import cancel_and_wait
from shoal.model.base import replace
from shoal.model.container import Amendment, Container, ContainerConfig
from shoal.model.plain import CONTAINER_PREFIX, EndpointRequest, PlainConfig

_log = structlog.get_logger(__name__)


class _Life:
    """What is under way with one container."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()  # one start or stop at a time
        self.following: asyncio.Task[None] | None = None
        self.interrupt = asyncio.Event()  # set: it is not to be started again
        self.is_kept = False  # not removed at its end: it is removed by who ended it, or about to be started again

    async def wait_until_settled(self) -> None:
        """Wait until the end of the last run was dealt with; at once if there was none."""
        if self.following is not None:
            await asyncio.wait({self.following})


class PlainContainers:
    """See the module.

    Args:
        engine: has the containers.
        network: of the containers.
        below: gives a random number below its argument, for names; None: chance does.
    """

    def __init__(self, engine: Engine, network: ContainerNetwork, below: Callable[[int], int] | None = None) -> None:
        self._engine = engine
        self._network = network
        self._below = below or random.SystemRandom().randrange
        self._lives: dict[str, _Life] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def start_up(self) -> None:
        """Take up what runs, and start what is to be started with the daemon."""
        containers = [container for container in self._engine.list() if container.config.plain is not None]
        for container in containers:
            life = self._life(container.id)
            if container.state.status == "running":
                self._follow(container.id, life)
                continue
            verdict = at_start_up(container)
            if verdict.restart_after_ns is not None:
                _log.info("a container is started with the daemon", container=container.id, reason=verdict.why)
                self._follow(container.id, life, begins=True)
            elif verdict.removes:
                await self.remove(container.id)
            else:
                await self._network.detach(container.id)
        await self._network.remove_strays({container.id for container in containers})

    async def close(self) -> None:
        """Let go; containers run on."""
        await cancel_and_wait(self._sweeping, *(life.following for life in self._lives.values()))

    def session_began(self) -> None:
        """A manager is there: what could not be given back on networks of the swarm is given back now."""
        if self._sweeping is None or self._sweeping.done():
            self._sweeping = asyncio.create_task(self._network.sweep(), name="attachments")
            self._sweeping.add_done_callback(_log_failure)

    async def leave_swarm(self) -> None:
        """Take all containers off networks of the swarm; they run on."""
        for container in self._engine.list():
            await self._network.leave_swarm(container)

    async def create(self, config: ContainerConfig) -> Container:
        """Create a container, under a random name if it has none.

        Raises:
            NotFound: its image, or the container whose network it is to share.
            NameConflict, InvalidArgument, NotBuilt: as the engine.
        """
        plain = config.plain or PlainConfig()
        if plain.network_mode.startswith(CONTAINER_PREFIX):
            other = self._engine.get(plain.network_mode.removeprefix(CONTAINER_PREFIX))
            config = replace(config, plain=replace(plain, network_mode=f"{CONTAINER_PREFIX}{other.id}"))
        if plain.pid_mode.startswith(CONTAINER_PREFIX):
            other = self._engine.get(plain.pid_mode.removeprefix(CONTAINER_PREFIX))
            plain = replace(plain, pid_mode=f"{CONTAINER_PREFIX}{other.id}")
            config = replace(config, plain=replace(config.plain or plain, pid_mode=plain.pid_mode))
        for text in plain.volumes_from:
            name, read_only = parse_volumes_from(text)
            others = self._engine.get(name).config.mounts
            config = replace(config, mounts=mounts_with(config.mounts, others, read_only))
        if not config.name:
            taken = {container.config.name for container in self._engine.list()}
            config = replace(config, name=random_name(self._below, taken.__contains__))
        return await self._engine.create(config)

    async def start(self, reference: str) -> bool:
        """Start a container, one that has ended over what it left; False if it runs or is about to.

        Raises as the engine; Unavailable, NotFound, Forbidden for its networks.
        """
        container = self._engine.get(reference)
        if container.config.plain is None:
            if container.state.status == "running":
                return False
            await self._engine.start(container.id)
            return True
        life = self._life(container.id)
        while not _is_up(container):
            await life.wait_until_settled()
            async with life.lock:
                container = self._engine.get(container.id)
                if _is_up(container) or (life.following is not None and not life.following.done()):
                    continue
                life.interrupt.clear()
                await self._first_start(container, life)
                self._follow(container.id, life)
                return True
        return False

    async def stop(self, reference: str, timeout_seconds: float | None = None, signal: str | None = None) -> bool:
        """Stop a container for good, as far as its restart policy goes; False if it does not run."""
        container = self._engine.get(reference)
        if not _is_up(container):
            return False
        if container.config.plain is None:
            await self._engine.stop(container.id, timeout_seconds, signal)
            return True
        life = self._life(container.id)
        await self._note_hand(container.id)
        life.interrupt.set()
        await self._stop(container.id, life, timeout_seconds, signal)
        return True

    async def restart(self, reference: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        """Stop a container if it runs, and start it; one that is removed at its end stays."""
        container = self._engine.get(reference)
        life = self._life(container.id)
        if container.config.plain is None:
            await self._engine.stop(container.id, timeout_seconds, signal)
        elif _is_up(container):
            life.is_kept = True
            try:
                life.interrupt.set()
                await self._stop(container.id, life, timeout_seconds, signal)
            finally:
                life.is_kept = False
        await self.start(container.id)
        self._engine.events.tell(self._engine.get(container.id), "restart")

    async def note_signal(self, reference: str, signal: str) -> None:
        """Take note, before a signal is sent by hand, that a container that ends by it is not started again."""
        container = self._engine.get(reference)
        if container.config.plain is not None and ends_restarts(signal, container.config.stop_signal):
            await self._note_hand(container.id)

    async def remove(self, reference: str, force: bool = False) -> None:
        """Remove a container that has ended (with `force` one that runs) and all it left. Raises Conflict."""
        container = self._engine.get(reference)
        if container.config.plain is None:
            await self._engine.remove(container.id, force)
            return
        if _is_up(container) and not force:
            word = "restarting" if container.state.restarting else "running"
            raise Conflict(
                f'cannot remove container "/{container.config.name}": container is {word}: '
                "stop the container before removing or force remove"
            )
        life = self._life(container.id)
        life.is_kept = True
        life.interrupt.set()
        async with life.lock:
            if _is_up(container):
                await self._engine.stop(container.id, 0, "SIGKILL")
        await life.wait_until_settled()
        await self._take_away(container.id)

    async def update(self, reference: str, change: Callable[[ContainerConfig], ContainerConfig]) -> None:
        """Give a container other limits and another restart policy. Raises as `change`, and as the engine."""
        container = self._engine.get(reference)
        async with self._life(container.id).lock:
            await self._engine.update(container.id, change(self._engine.get(container.id).config))

    async def connect(self, reference: str, endpoint: EndpointRequest) -> None:
        """Put a container on a network of the swarm. Raises as `ContainerNetwork.connect`."""
        container = self._plain(reference)
        async with self._life(container.id).lock:
            await self._network.connect(self._engine.get(container.id), endpoint)

    async def disconnect(self, reference: str, network: str) -> None:
        """Take a container off a network of the swarm. Raises NotFound, Forbidden."""
        container = self._plain(reference)
        async with self._life(container.id).lock:
            await self._network.disconnect(self._engine.get(container.id), network)

    def _plain(self, reference: str) -> Container:
        container = self._engine.get(reference)
        if container.config.plain is None:
            raise Forbidden(
                f"container {container.config.name} is a task's: its networks are those of its service's spec"
            )
        return container

    # -- within

    def _life(self, container_id: str) -> _Life:
        return self._lives.setdefault(container_id, _Life())

    async def _note_hand(self, container_id: str) -> None:
        """On disk before the container ends: a daemon killed meanwhile must not start it again."""
        config = self._engine.get(container_id).config
        plain = config.plain or PlainConfig()
        if not plain.stopped_by_hand:
            await self._engine.amend(
                container_id, Amendment(config=replace(config, plain=replace(plain, stopped_by_hand=True)))
            )

    async def _stop(self, container_id: str, life: _Life, timeout_seconds: float | None, signal: str | None) -> None:
        # known from here: it may be removed at its end
        container = self._engine.get(container_id)
        async with life.lock:
            await self._engine.stop(container_id, timeout_seconds, signal)
        self._engine.events.tell(container, "stop")
        await life.wait_until_settled()

    async def _first_start(self, container: Container, life: _Life) -> None:
        """Start a container that somebody, or a daemon that starts, wants to run."""
        try:
            config = self._with_processes(await self._network.attach(container))
            plain = replace(config.plain or PlainConfig(), stopped_by_hand=False)
            change = Amendment(config=replace(config, plain=plain), restart_count=0)
            await self._engine.amend(container.id, change)
            await self._engine.start(container.id)
        except BaseException:
            await self._network.detach(container.id)
            if container.config.plain is not None and container.config.plain.auto_remove and not life.is_kept:
                await self._take_away(container.id)
            raise

    def _with_processes(self, config: ContainerConfig) -> ContainerConfig:
        """Return a config that leads to the processes of another container, if it is to see them. Raises Conflict."""
        mode = config.plain.pid_mode if config.plain is not None else ""
        if not mode.startswith(CONTAINER_PREFIX):
            return config
        other = self._engine.get(mode.removeprefix(CONTAINER_PREFIX))
        if other.state.status != "running":
            raise Conflict(f"cannot join PID of a non running container: {other.id}")
        return replace(config, pid_namespace=f"/proc/{other.state.pid}/ns/pid")

    def _follow(self, container_id: str, life: _Life, begins: bool = False) -> None:
        life.following = asyncio.create_task(self._follow_to_the_end(container_id, life, begins), name="container")
        life.following.add_done_callback(_log_failure)

    async def _follow_to_the_end(self, container_id: str, life: _Life, begins: bool) -> None:
        """Wait for the end of a container, start it again while it is to be, and clean up after it."""
        pause_ns = 0
        if begins and not await self._start_with_daemon(container_id, life):
            return
        while True:
            status = await self._engine.wait(container_id)
            container = self._engine.get(container_id)
            ran_ns = status.finished_at_ns - container.state.started_at_ns
            plain = container.config.plain or PlainConfig()
            verdict = after_end(plain, status.code, ran_ns, container.restart_count, pause_ns)
            _log.info("a plain container has ended", container=container_id, code=status.code, reason=verdict.why)
            if verdict.restart_after_ns is None or life.interrupt.is_set():
                break
            pause_ns = verdict.restart_after_ns
            if not await self._start_again(container, life, pause_ns):
                break
        await self._network.detach(container_id)
        if verdict.removes and not life.is_kept:
            await self._take_away(container_id)

    async def _start_with_daemon(self, container_id: str, life: _Life) -> bool:
        """Start a container that ran when the daemon ended; False if it does not start."""
        pause_ns = NANOSECONDS_PER_SECOND // 10
        while not life.interrupt.is_set():
            try:
                async with life.lock:
                    await self._first_start(self._engine.get(container_id), life)
                return True
            except Unavailable as error:
                # of its networks: no manager has told of them yet
                _log.info("a container waits to be started", container=container_id, reason=error.message)
            except ShoalError as error:
                _log.warning("a container does not start", container=container_id, reason=error.message)
                return False
            await _pause(life, pause_ns)
            pause_ns = min(2 * pause_ns, 5 * NANOSECONDS_PER_SECOND)
        return False

    async def _start_again(self, container: Container, life: _Life, pause_ns: int) -> bool:
        """Start a container again after a pause; False if that is not wanted any more, or fails."""
        change = Amendment(restart_count=container.restart_count + 1, restarting=True)
        await self._engine.amend(container.id, change)
        await _pause(life, pause_ns)
        async with life.lock:
            try:
                if not life.interrupt.is_set():
                    await self._engine.start(container.id)
                    return True
            except ShoalError as error:
                _log.warning("a container does not start again", container=container.id, reason=error.message)
        await self._engine.amend(container.id, Amendment(restarting=False))
        return False

    async def _take_away(self, container_id: str) -> None:
        await self._network.detach(container_id)
        with contextlib.suppress(NotFound):
            await self._engine.remove(container_id, force=True)
        self._lives.pop(container_id, None)


def _is_up(container: Container) -> bool:
    """Whether a container runs, or is about to be started again."""
    return container.state.status == "running" or container.state.restarting


async def _pause(life: _Life, pause_ns: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause_ns / NANOSECONDS_PER_SECOND):
            await life.interrupt.wait()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, NotFound):
        _log.error("following a container failed", exc_info=error)
