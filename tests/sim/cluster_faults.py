"""The faults of a history, drawn from its seed, and their end."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from shoal.errors import ShoalError
from shoal.model.objects import Node
from shoal.model.states import Availability, Role
from tests.sim.cluster_host import Host
from tests.sim.cluster_judge import leader_among

if TYPE_CHECKING:
    from tests.sim.cluster_world import World

ADMINISTRATION_SECONDS = 25.0


class Faults:
    """Draws faults until an end, then heals all."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self.done: Counter[str] = Counter()
        self._cuts: list[set[tuple[str, str]]] = []
        # hosts whose daemon must not be started again by anyone else
        self._held: set[int] = set()
        self._kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self._leader_dies, 4),
            (self._daemon_dies, 4),
            (self._daemon_restarts, 2),
            (self._host_dies, 3),
            (self._disk_is_lost, 2),
            (self._disk_is_full, 1),
            (self._partition, 4),
            (self._one_way, 3),
            (self._worker_from_leader, 3),
            (self._stopped, 3),
            (self._slow, 3),
            (self._container_ends, 4),
            (self._drained, 2),
            (self._role_changes, 2),
        ]

    async def run(self, until: float) -> None:
        """Up to three faults at a time."""
        self._keeping = asyncio.ensure_future(self._keep_running())
        await asyncio.gather(*(self._one_after_another(until) for _ in range(self._chance.choice([1, 2, 2, 3]))))

    async def _one_after_another(self, until: float) -> None:
        kinds, weights = zip(*self._kinds, strict=True)
        while self._world.loop.now < until:
            await self._world.pass_time(self._chance.uniform(0.2, 6.0))
            kind = self._chance.choices(kinds, weights)[0]
            self.done[kind.__name__.strip("_")] += 1
            await kind()

    async def heal(self) -> None:
        """Start what does not run, connect all, bring all nodes back."""
        world = self._world
        self._cuts.clear()
        world.network.set_cut(set())
        for host in world.hosts:
            host.power_on()
            if host.process is not None:
                host.process.slow_seconds = 0.0
                host.process.disk_error = None
                if host.process.is_stopped:
                    world.loop.resume(host.process)
        for host in world.hosts:
            self._start(host)
        for host in world.hosts:
            await self._administer_until_done(host, {"availability": Availability.ACTIVE})

    async def _keep_running(self) -> None:
        """As systemd: what ended is started again."""
        while True:
            await self._world.pass_time(2.0)
            for host in self._world.hosts:
                self._start(host)

    # -- what faults are made of

    def _say(self, text: str) -> None:
        self._world.say(f"-- {text}")

    async def _hold(self, least: float, most: float) -> None:
        await self._world.pass_time(self._chance.uniform(least, most))

    def _start(self, host: Host) -> None:
        if host.process is None and host.machine.is_powered and host.number not in self._held:
            self._say(f"{host.name} is started")
            host.boot()

    def _any(self, holds: Callable[[Host], bool] = lambda _host: True) -> Host | None:
        hosts = [h for h in self._world.hosts if h.is_up and h.number not in self._held and holds(h)]
        return self._chance.choice(hosts) if hosts else None

    def _apply_cuts(self) -> None:
        self._world.network.set_cut(set().union(*self._cuts))

    async def _cut(self, ways: set[tuple[str, str]], text: str) -> None:
        self._say(f"cut: {text}")
        self._cuts.append(ways)
        self._apply_cuts()
        await self._hold(0.5, 15.0)
        self._cuts.remove(ways)
        self._apply_cuts()
        self._say(f"healed: {text}")

    # -- faults

    async def _leader_dies(self) -> None:
        leader = leader_among(self._world.hosts)
        if leader is not None and leader.number not in self._held:
            await self._die(leader)

    async def _daemon_dies(self) -> None:
        host = self._any()
        if host is not None:
            await self._die(host)

    async def _die(self, host: Host) -> None:
        self._say(f"{host.name} is killed")
        self._held.add(host.number)
        host.kill()
        await self._hold(0.1, 8.0)
        self._held.discard(host.number)
        self._start(host)

    async def _daemon_restarts(self) -> None:
        host = self._any()
        if host is not None:
            self._say(f"{host.name} is restarted")
            host.terminate()
            await self._hold(1.0, 5.0)
            self._start(host)

    async def _host_dies(self) -> None:
        host = self._any()
        if host is not None:
            self._say(f"{host.name} loses its power")
            self._held.add(host.number)
            host.power_off()
            await self._hold(0.5, 15.0)
            host.power_on()
            self._held.discard(host.number)
            self._start(host)

    async def _disk_is_lost(self) -> None:
        """Only while all voters run: what a second lost disk takes with it is lost for good."""
        host = self._any()
        if host is None or not self._may_lose_disk():
            return
        self._say(f"{host.name} loses its disk")
        self._held.add(host.number)
        host.power_off()
        host.lose_disk()
        await self._hold(0.5, 6.0)
        host.power_on()
        self._held.discard(host.number)
        self._start(host)

    def _may_lose_disk(self) -> bool:
        leader = leader_among(self._world.hosts)
        if leader is None or any(host.part is None for host in self._world.hosts):
            return False
        members = leader.manager.raft.members()
        managers = {host.part.membership.raft_id for host in self._world.hosts if host.manager is not None}
        return all(m.is_voter for m in members) and {m.raft_id for m in members} == managers

    async def _disk_is_full(self) -> None:
        host = self._any()
        if host is not None:
            process = host.process
            self._say(f"the disk of {host.name} is full")
            process.disk_error = sqlite3.OperationalError("database or disk is full")
            await self._hold(0.5, 5.0)
            process.disk_error = None
            await self._hold(0.0, 3.0)
            self._start(host)

    async def _partition(self) -> None:
        hosts = list(self._world.hosts)
        self._chance.shuffle(hosts)
        size = self._chance.randint(1, len(hosts) // 2)
        one, other = hosts[:size], hosts[size:]
        there = {(a.address, b.address) for a in one for b in other}
        await self._cut(there | {(b, a) for a, b in there}, f"{[h.name for h in one]} from {[h.name for h in other]}")

    async def _one_way(self) -> None:
        hosts = self._world.hosts
        one = self._chance.choice(hosts)
        others = [h for h in hosts if h is not one]
        if self._chance.random() < 0.5:
            others = [self._chance.choice(others)]
        if self._chance.random() < 0.5:
            await self._cut({(one.address, o.address) for o in others}, f"{one.name} to {[h.name for h in others]}")
        else:
            await self._cut({(o.address, one.address) for o in others}, f"{[h.name for h in others]} to {one.name}")

    async def _worker_from_leader(self) -> None:
        leader = leader_among(self._world.hosts)
        if leader is not None:
            other = self._chance.choice([h for h in self._world.hosts if h is not leader])
            ways = {(leader.address, other.address), (other.address, leader.address)}
            await self._cut(ways, f"{other.name} from {leader.name}, which leads")

    async def _stopped(self) -> None:
        host = self._any(lambda h: not h.process.is_stopped)
        if host is not None:
            process = host.process
            self._say(f"{host.name} is stopped")
            process.is_stopped = True
            await self._hold(0.5, 20.0)
            self._say(f"{host.name} goes on")
            self._world.loop.resume(process)

    async def _slow(self) -> None:
        host = self._any(lambda h: not h.process.slow_seconds)
        if host is not None:
            process = host.process
            process.slow_seconds = self._chance.choice([0.0002, 0.001, 0.003])
            self._say(f"{host.name} is slow: {process.slow_seconds} s a callback")
            await self._hold(1.0, 12.0)
            process.slow_seconds = 0.0

    async def _container_ends(self) -> None:
        host = self._any(lambda h: bool(h.engine.running()))
        if host is not None:
            container = self._chance.choice(host.engine.running())
            code = self._chance.choice([0, 1])
            self._say(f"{container.config.name} on {host.name} ends with {code}")
            host.engine.finish(container.id, code)

    async def _drained(self) -> None:
        host = self._any(lambda h: h.part is not None)
        if host is not None:
            to = self._chance.choice([Availability.DRAIN, Availability.DRAIN, Availability.PAUSE])
            await self._administer(host, {"availability": to})
            await self._hold(1.0, 10.0)
            await self._administer(host, {"availability": Availability.ACTIVE})

    async def _role_changes(self) -> None:
        leader = leader_among(self._world.hosts)
        host = self._any(lambda h: h.part is not None)
        if host is None or leader is None:
            return
        node = leader.manager.store.view.get(Node, host.part.membership.node_id)
        if node is None:
            return
        if node.spec.role == Role.WORKER:
            await self._administer(host, {"role": Role.MANAGER})
        elif len([n for n in leader.manager.store.view.find(Node) if n.spec.role == Role.MANAGER]) > 3:
            await self._administer(host, {"role": Role.WORKER})

    async def _administer(self, host: Host, spec: dict[str, Any]) -> bool:
        """As a person with the docker command at some manager; what fails is left."""
        part = host.part
        through = self._any(lambda h: h.manager is not None)
        if part is None or through is None:
            return False
        self._say(f"{host.name} is to be {spec}, through {through.name}")
        try:
            await through.ask({"op": "node", "id": part.membership.node_id, "spec": spec}, ADMINISTRATION_SECONDS)
        except (ShoalError, TimeoutError, ConnectionError) as error:
            self._say(f"{host.name} is not: {error}")
            return False
        return True

    async def _administer_until_done(self, host: Host, spec: dict[str, Any]) -> None:
        world = self._world
        deadline = world.loop.now + 60.0
        while not await self._administer(host, spec):
            assert world.loop.now < deadline, f"{host.name} could not be brought back in 60 s: nobody answers"
            await world.pass_time(1.0)
