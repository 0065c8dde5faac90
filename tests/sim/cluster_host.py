"""A simulated host: a disk, an engine and a kernel that outlive its daemon, and the daemon, made of the real code."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from shoal.daemon.forwarding import LAST_WORD_SECONDS
from shoal.daemon.layout import Layout
from shoal.daemon.manager import Manager
from shoal.daemon.participation import Machinery, Participation
from shoal.engine.fake import FakeEngine
from shoal.errors import ShoalError, Unavailable
from shoal.lib.clock import NANOSECONDS_PER_SECOND
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import Container, ContainerConfig
from shoal.model.objects import NodeDescription
from shoal.model.specs import Platform, Resources
from tests.doubles.cluster import FakeNetwork, NoOwnNetworks
from tests.sim.cluster_network import Machine, Network, Refused
from tests.sim.cluster_wires import AnswerApi, SimulatedWires
from tests.sim.virtual_loop import Process, VirtualLoop

EPOCH_NS = 1_790_000_000 * NANOSECONDS_PER_SECOND
RESTART_SECONDS = 2.0
NO_MANAGER = "This node is not a swarm manager"


class VirtualClock:
    """A host's clock: the loop's time, and how much it is off, in seconds."""

    def __init__(self, loop: VirtualLoop, off_seconds: float = 0.0) -> None:
        self._loop = loop
        self._off_ns = int(off_seconds * NANOSECONDS_PER_SECOND)

    def now_ns(self) -> int:
        return EPOCH_NS + self._off_ns + int(self._loop.now * NANOSECONDS_PER_SECOND)

    def monotonic(self) -> float:
        return self._loop.now


class SlowEngine(FakeEngine):
    """Containers that take their time to be made, started, stopped and removed, as `chance` draws it."""

    def __init__(self, clock: VirtualClock, ids: Ids, chance: random.Random) -> None:
        super().__init__(clock, ids)
        self._chance = chance

    async def _take(self, most_seconds: float) -> None:
        await asyncio.sleep(self._chance.random() * most_seconds)

    async def create(self, config: ContainerConfig) -> Container:
        await self._take(0.3)
        return await super().create(config)

    async def start(self, container: str) -> Container:
        await self._take(0.3)
        return await super().start(container)

    async def stop(self, container: str, timeout_seconds: float | None = None, signal: str | None = None) -> None:
        await self._take(1.0)
        await super().stop(container, timeout_seconds, signal)

    async def remove(self, container: str, force: bool = False) -> None:
        await self._take(0.2)
        await super().remove(container, force)

    def lose_power(self) -> None:
        """What ran has ended, and nobody saw how."""
        for record in self.running():
            self.finish(record.id, 137)

    def running(self) -> list[Container]:
        return [record for record in self._containers.values() if record.state.status == "running"]


class KernelNetwork(FakeNetwork):
    async def set_node_number(self, number: int) -> None:
        del number


class Host:
    """A host. `part` is what its daemon does in the swarm, None while no daemon runs or it is just beginning."""

    def __init__(
        self,
        number: int,
        loop: VirtualLoop,
        network: Network,
        directory: Path,
        seed: str,
        on_manager: Callable[[Host, Manager], None],
        api: AnswerApi,
    ) -> None:
        self.number = number
        self.name = f"h{number}"
        self.address = f"10.0.0.{number}:2377"
        self.machine = network.machines[self.address] = Machine(self.address)
        self.loop = loop
        self.chance = random.Random(seed)
        self.clock = VirtualClock(loop, self.chance.uniform(-0.3, 0.3))
        self.ids = Ids(self.chance.randbytes)
        self.engine = SlowEngine(self.clock, self.ids, self.chance)
        self.kernel = KernelNetwork()
        self.layout = Layout(directory / self.name, directory / self.name / "exec")
        self.layout.data_root.mkdir(parents=True)
        self.process: Process | None = None
        self.part: Participation | None = None
        self.lives = 0
        self.died: asyncio.Future[None] | None = None
        self._stop: asyncio.Event | None = None
        self._network = network
        self._on_manager = on_manager
        self._api = api

    # -- the daemon

    def boot(self, found: Callable[[Host], Awaitable[None]] | None = None) -> None:
        """Start the daemon; `found` does what the first start of all does."""
        assert self.process is None, "one daemon a host"
        self.lives += 1
        process = self.process = Process(f"{self.name}.{self.lives}", lambda: self.chance.uniform(0.0001, 0.004))
        self.died = self.loop.create_future()
        self._stop = asyncio.Event()
        self.loop.create_task(self._run(process, self._stop, found), context=process.context.copy(), name=process.name)

    def machinery(self, process: Process) -> Machinery:
        wires = SimulatedWires(
            self._network,
            self.machine,
            process,
            random.Random(self.chance.random()),
            lambda manager: self._on_manager(self, manager),
            self._api,
        )
        own = NoOwnNetworks()
        return Machinery(
            self.layout, self.engine, self.kernel, own, self.clock, self.ids, self.describe, lambda: None, wires
        )

    def describe(self, trust: NodeDescription) -> NodeDescription:
        return replace(
            trust,
            hostname=self.name,
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=8_000_000_000, memory_bytes=8 << 30),
            engine_version="28.2.2",
        )

    async def _run(
        self, process: Process, stop: asyncio.Event, found: Callable[[Host], Awaitable[None]] | None
    ) -> None:
        failed = asyncio.Event()
        part: Participation | None = None
        try:
            if found is not None:
                await found(self)
            membership = self.layout.read_membership()
            assert membership is not None, "its membership was written"
            part = Participation(self.machinery(process), membership, lambda _error: failed.set())
            await part.start(founds=found is not None and membership.raft_id != 0)
            self.part = part
            if self.on_started is not None:
                await self.on_started(part)
            part.start_agent()
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, failed)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        except (ShoalError, OSError, sqlite3.Error) as error:
            self.say(f"{process.name} ends: {error!r}")
        except Exception as error:
            self.say("".join(traceback.format_exception(error)))
            self.trouble.append(f"{process.name} died: {error!r}")
        finally:
            if part is not None and process.is_alive:
                try:
                    await part.say_goodbye(for_good=False)
                    await part.stop()
                except Exception as error:
                    # its process ends all the same
                    self.say(f"{process.name} does not end well: {error!r}")
        if process.is_alive:
            self._exit(process)

    # what the world does between the start of a manager and that of its agent, and what ended daemons
    on_started: Callable[[Participation], Awaitable[None]] | None = None
    trouble: list[str] = []
    say: Callable[[str], None] = str

    def _exit(self, process: Process) -> None:
        process.is_alive = False
        if self.machine.listener is not None and self.machine.listener.process is process:
            self.machine.listener = None
        for end in sorted(self.machine.ends, key=lambda end: end.number):
            if end.process is process:
                end.process_died()
        if self.process is process:
            self.process = self.part = None
            assert self.died is not None
            if not self.died.done():
                self.died.set_result(None)

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def manager(self) -> Manager | None:
        return self.part.manager if self.part is not None else None

    def kill(self) -> None:
        """SIGKILL the daemon; containers run on."""
        if self.process is not None:
            self._exit(self.process)

    def terminate(self) -> None:
        """SIGTERM the daemon."""
        if self._stop is not None:
            self._stop.set()

    def power_off(self) -> None:
        """The whole host dies without a word."""
        process = self.process
        self._network.power_off(self.machine)
        if process is not None:
            self._exit(process)
        self.engine.lose_power()
        self.kernel.attached.clear()

    def power_on(self) -> None:
        if not self.machine.is_powered:
            self._network.power_on(self.machine)

    def lose_disk(self) -> None:
        """What raft and the agent kept is gone; the certificate is not (else the node would have to join anew)."""
        assert self.process is None, "the daemon does not run"
        self.layout.erase_raft()
        shutil.rmtree(self.layout.worker_database.parent, ignore_errors=True)

    # -- what clients ask its API

    async def ask(self, request: Any, timeout_seconds: float) -> Any:
        """Ask the daemon's API. Raises Refused: it does not run; TimeoutError, ConnectionError: nobody knows."""
        process, part = self.process, self.part
        if process is None or part is None or self.died is None:
            raise Refused("the daemon does not run")
        answered: asyncio.Future[Any] = self.loop.create_future()

        async def answer() -> None:
            try:
                result = await self._answer(part, request)
            except Exception as error:
                if not answered.done():
                    answered.set_exception(error)
                    # who asked may have gone
                    answered.exception()
            else:
                if not answered.done():
                    answered.set_result(result)

        task = self.loop.create_task(answer(), context=process.context.copy(), name="api")
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.wait({answered, self.died}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # who hangs up ends the request
            if not answered.done():
                task.cancel()
        if answered.done():
            return answered.result()
        raise ConnectionError("the daemon died before it answered")

    async def _answer(self, part: Participation, request: Any) -> Any:
        manager = part.manager
        if manager is None:
            raise Refused(NO_MANAGER)
        if request["op"] == "read":
            await manager.store.barrier()
            return await self._api(manager, request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 20.0
        while not manager.is_leader:
            # as daemon/forwarding.py
            address = await manager.find_leader(max(0.0, deadline - loop.time()))
            if not address:
                continue
            try:
                return await self._forward(part, manager, request, address)
            except Refused:
                if loop.time() >= deadline:
                    raise
                await manager.await_other_leader(address, 0.2)
        return await self._api(manager, request)

    async def _forward(self, part: Participation, manager: Manager, request: Any, address: str) -> Any:
        asking = asyncio.ensure_future(part.dialer.ask_api(address, request))
        superseded = asyncio.ensure_future(manager.await_other_leader(address))
        try:
            await asyncio.wait({asking, superseded}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({asking}, timeout=LAST_WORD_SECONDS)
            if asking.done():
                return asking.result()
            raise Unavailable("the leading manager went away before it answered")
        finally:
            superseded.cancel()
            asking.cancel()
