"""Plain containers over an engine and networks in memory: what is given back, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from shoal.agent.container_network import ContainerNetwork
from shoal.agent.containers import PlainContainers
from shoal.engine.fake import FakeEngine
from shoal.errors import Conflict, Forbidden, InvalidArgument, NotFound, ShoalError, Unavailable
from shoal.lib.clock import ManualClock
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import Amendment, ContainerConfig
from shoal.model.node_port import AttachAnswer, AttachCall
from shoal.model.plain import EndpointRequest, PlainConfig, PortRequest, RestartName, RestartRule
from tests.doubles.daemon import MemoryNetwork

NET = EndpointRequest(network="net")


class MemorySwarm:
    """Places on networks; `away`: no manager answers."""

    def __init__(self) -> None:
        self.held: list[str] = []
        self.away = False
        self._count = 0

    async def attach(self, call: AttachCall) -> AttachAnswer:
        self._require()
        self._count += 1
        self.held.append(f"t{self._count}")
        address = f"10.0.1.{self._count + 1}/24"
        return AttachAnswer(
            task_id=self.held[-1], network_id=f"id-{call.network}", network_name=call.network, addresses=(address,)
        )

    async def release(self, task_ids: Sequence[str]) -> tuple[str, ...]:
        self._require()
        self.held = [each for each in self.held if each not in task_ids]
        return tuple(self.held)

    def _require(self) -> None:
        if self.away:
            raise Unavailable("no leader")


class Bench:
    def __init__(self) -> None:
        self.engine = FakeEngine(ManualClock(), Ids())
        self.network = MemoryNetwork()
        self.swarm = MemorySwarm()
        self._drawn = -1
        self.containers = self.fresh()

    def _below(self, most: int) -> int:
        self._drawn += 1
        return self._drawn % most

    def fresh(self) -> PlainContainers:
        """Return what a daemon that starts again has."""
        return PlainContainers(self.engine, ContainerNetwork(self.engine, self.network, self.swarm), self._below)

    async def create(self, **plain: object) -> str:
        config = ContainerConfig(name="", image="busybox", plain=replace(PlainConfig(), **plain))
        return (await self.containers.create(config)).id

    def attachments(self, container_id: str) -> list[str]:
        plain = self.engine.get(container_id).config.plain
        return [each.task_id for each in plain.attachments] if plain is not None else []


def run(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        await body(bench)
        await bench.containers.close()

    asyncio.run(main())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0)


def test_a_container_has_its_network_while_it_runs() -> None:
    async def body(bench: Bench) -> None:
        id_ = await bench.create(
            network_mode="net", endpoints=(NET,), ports=(PortRequest(protocol="tcp", target_port=80),)
        )
        assert bench.engine.get(id_).config.name == "amber_babbage"
        assert await bench.containers.start(id_)
        assert not await bench.containers.start(id_)
        assert bench.attachments(id_) == bench.swarm.held == ["t1"]
        (port,) = bench.network.requests[id_].host_ports
        assert port.published_port
        assert await bench.containers.stop(id_)
        assert (bench.swarm.held, bench.attachments(id_), bench.network.requests) == ([], [], {})

    run(body)


def test_what_could_not_be_given_back_is_given_back_with_a_later_session() -> None:
    async def body(bench: Bench) -> None:
        id_ = await bench.create(network_mode="net", endpoints=(NET,))
        await bench.containers.start(id_)
        other = await bench.create(network_mode="net", endpoints=(NET,))
        await bench.containers.start(other)
        bench.swarm.away = True
        await bench.containers.remove(id_, force=True)
        assert bench.swarm.held == ["t1", "t2"]
        bench.swarm.away = False
        bench.containers.session_began()
        await until(lambda: bench.swarm.held == ["t2"])

    run(body)


def test_a_start_that_fails_gives_all_back() -> None:
    async def body(bench: Bench) -> None:
        id_ = await bench.create(network_mode="net", endpoints=(NET,), auto_remove=True)
        bench.engine.refuse_start = "no such program"
        with pytest.raises(NotFound):
            await bench.containers.start(id_)
        assert (bench.swarm.held, bench.network.requests, bench.engine.list()) == ([], {}, ())

    run(body)


def test_with_the_daemon_a_container_starts_once_its_networks_are_there() -> None:
    async def body(bench: Bench) -> None:
        always = RestartRule(name=RestartName.ALWAYS)
        id_ = await bench.create(network_mode="net", endpoints=(NET,), restart=always)
        await bench.engine.start(id_)
        bench.engine.finish(id_, 1)
        bench.swarm.away = True
        bench.containers = bench.fresh()
        await bench.containers.start_up()
        await asyncio.sleep(0)
        assert bench.engine.get(id_).state.status == "exited"
        bench.swarm.away = False
        await until(lambda: bench.engine.get(id_).state.status == "running")

    run(body)


def test_connecting_and_disconnecting() -> None:
    async def body(bench: Bench) -> None:
        id_ = await bench.create()
        await bench.containers.connect(id_, NET)
        assert bench.swarm.held == [], "it does not run"
        await bench.containers.start(id_)
        assert bench.swarm.held == ["t1"]
        with pytest.raises(Forbidden, match="already exists in network net"):
            await bench.containers.connect(id_, NET)
        await bench.containers.connect(id_, EndpointRequest(network="other"))
        assert [link.network_id for link in bench.network.requests[id_].overlays] == ["id-net", "id-other"]
        await bench.containers.disconnect(id_, "id-net")
        assert bench.swarm.held == bench.attachments(id_) == ["t2"]
        with pytest.raises(Forbidden, match="is not connected to network net"):
            await bench.containers.disconnect(id_, "net")
        await bench.containers.leave_swarm()
        assert (bench.swarm.held, bench.network.requests[id_].overlays) == ([], ())
        for mode in ("host", "none", f"container:{id_}"):
            private = await bench.create(network_mode=mode)
            with pytest.raises(InvalidArgument):
                await bench.containers.connect(private, NET)

    run(body)


def test_ports_and_networks_that_are_not_there() -> None:
    async def body(bench: Bench) -> None:
        wanted = (PortRequest(protocol="tcp", target_port=80, published_port=18_080),)
        first, second = await bench.create(ports=wanted), await bench.create(ports=wanted)
        await bench.containers.start(first)
        with pytest.raises(ShoalError, match=r"Bind for 0\.0\.0\.0:18080 failed: port is already allocated"):
            await bench.containers.start(second)
        shared = await bench.create(network_mode=f"container:{second}")
        with pytest.raises(Conflict, match="cannot join network of a non running container"):
            await bench.containers.start(shared)
        config = bench.engine.get(second).config
        await bench.engine.amend(second, Amendment(config=replace(config, plain=PlainConfig(network_mode="none"))))
        await bench.containers.start(second)
        assert set(bench.network.requests) == {first}

    run(body)
