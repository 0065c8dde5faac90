"""The simulated cluster: three or five managers and some workers, clients, faults, and the calm in which all must heal.

Everything runs in one thread on a virtual clock, drawn from one seed: the same seed is the same history.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from shoal.ca.root import make_request
from shoal.daemon.credentials import Credentials
from shoal.daemon.joining import prepare_founding
from shoal.daemon.layout import SwarmMembership
from shoal.errors import ShoalError
from shoal.model.node_port import CertificateCall
from shoal.model.objects import Node, Service, Task
from shoal.model.specs import ClusterSpec, DispatcherConfig, InitRequest, RaftConfig
from shoal.model.states import NodeState, Role, TaskState
from tests.sim.cluster_clients import NAMES, Client, History, answer_api
from tests.sim.cluster_faults import Faults
from tests.sim.cluster_host import Host
from tests.sim.cluster_judge import Judge, leader_among
from tests.sim.cluster_network import Network
from tests.sim.virtual_loop import PROCESS, VirtualLoop

FOUNDING_SECONDS = 60.0
HEALING_SECONDS = 150.0
WATCH_PERIOD_SECONDS = 0.25
LAST_READ_SECONDS = 30.0
CATCHING_UP_SECONDS = 10.0


class World:
    """One history. `plan` says what it is made of."""

    def __init__(self, seed: int, says: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.chance = random.Random(f"world {seed}")
        self.loop = VirtualLoop()
        self.says = says
        self.directory = Path(tempfile.mkdtemp(prefix="shoal-sim-", dir=scratch()))
        self.network = Network(self.loop, random.Random(f"network {seed}"))
        self.judge = Judge(self.loop)
        self.history = History()
        managers = self.chance.choice([3, 3, 3, 5])
        workers = self.chance.randint(1, 2) if managers == 5 else self.chance.randint(1, 3)
        self.managers_at_first = managers
        self.hosts: list[Host] = []
        self.count = managers + workers
        self.chaos_seconds = self.chance.choice([20.0, 30.0, 45.0])
        self.plan = f"{managers} managers, {workers} workers, {self.chaos_seconds:.0f} s"
        self.errors: list[str] = []
        self.loop.set_exception_handler(self._unhandled)

    def _unhandled(self, _loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, sqlite3.OperationalError):
            self.errors.append(f"{context.get('message')}: {error!r}")

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def say(self, text: str) -> None:
        if self.says is not None:
            self.says(f"{self.loop.now:9.3f} {text}")

    # -- life

    def run(self) -> World:
        """Live through it. Raises AssertionError."""
        random.seed(self.seed)
        # what is collected is ended at a moment that nobody draws
        gc.disable()
        os.environ["DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"] = "1"
        try:
            structlog.configure(processors=[self._log_line], wrapper_class=structlog.BoundLogger)
            self.loop.run_until_complete(self._live())
        finally:
            try:
                self.network.is_gone = True
                self.loop.bury()
                self.loop.close()
            finally:
                gc.enable()
                structlog.reset_defaults()
                shutil.rmtree(self.directory, ignore_errors=True)
        return self

    def _log_line(self, _logger: Any, method: str, event: dict[str, Any]) -> Any:
        error = event.get("exc_info")
        shown = sys.exc_info()[1] if error is True or method == "exception" else error
        process = PROCESS.get()
        is_bad = method in ("exception", "critical") or (method == "error" and error)
        if is_bad and not isinstance(shown, ShoalError | sqlite3.OperationalError):
            self.errors.append(f"{process.name if process else ''} {event.get('event')}: {shown!r}")
        if self.says is not None:
            if shown is not None:
                self.say("".join(traceback.format_exception(shown)))
            rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("event", "exc_info"))
            self.say(f"{process.name if process else '':6} {method}: {event.get('event')} {rest}")
        raise structlog.DropEvent

    async def _live(self) -> None:
        life = asyncio.ensure_future(self._life())
        try:
            await asyncio.wait({life, self.judge.broken}, return_when=asyncio.FIRST_COMPLETED)
            if self.judge.broken.done():
                raise AssertionError(self.judge.broken.result())
            await life
        finally:
            life.cancel()

    async def _life(self) -> None:
        await self._found()
        self.say(f"founded: {self.plan}")
        watching = asyncio.ensure_future(self._watch())
        end = self.loop.now + self.chaos_seconds
        clients = [
            Client(f"c{number}", self.loop, self.hosts, self.history, f"client {self.seed} {number}")
            for number in range(4)
        ]
        faults = Faults(self, random.Random(f"faults {self.seed}"))
        await asyncio.gather(faults.run(end), *(client.run(end, self.pass_time) for client in clients))
        self.faults = faults
        self.say("healing")
        await faults.heal()
        await self._until(self._is_healed, HEALING_SECONDS, self._what_is_not_healed)
        await self._read_all(clients[0])
        await self._until(lambda: not self._different_stores(), CATCHING_UP_SECONDS, self._different_stores)
        self._judge_end()
        watching.cancel()

    async def _watch(self) -> None:
        while True:
            await self.pass_time(WATCH_PERIOD_SECONDS)
            self.judge.judge_running(self.hosts)

    async def _until(self, holds: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
        deadline = self.loop.now + seconds
        while not holds():
            if self.loop.now > deadline:
                raise AssertionError(f"not within {seconds:.0f} s: {why()}")
            await self.pass_time(0.1)

    # -- the beginning

    async def _found(self) -> None:
        for number in range(1, self.count + 1):
            seed = f"host {self.seed} {number}"
            host = Host(number, self.loop, self.network, self.directory, seed, self.judge.watch, answer_api)
            host.trouble, host.say = self.errors, self.say
            self.hosts.append(host)
        self._set_distances()
        founder = self.hosts[0]
        actions: list[Any] = []

        async def begin(host: Host) -> None:
            spec = ClusterSpec(
                raft=RaftConfig(
                    snapshot_interval=self.chance.choice([40, 150, 1000]),
                    log_entries_for_slow_followers=self.chance.choice([5, 50, 500]),
                ),
                dispatcher=DispatcherConfig(heartbeat_period=self.chance.choice([2, 5]) * 1_000_000_000),
            )
            request = InitRequest(listen_addr=host.address, advertise_addr=host.address, spec=spec)
            membership, made = prepare_founding(request, host.layout, host.clock, host.ids)
            actions.extend(made)
            host.layout.write_membership(membership)

        async def write_first(part: Any) -> None:
            await part.manager.wait_until_leading()
            await part.manager.store.update(lambda _view: actions)

        founder.on_started = write_first
        founder.boot(begin)
        await self._until(
            lambda: founder.part is not None and self._nodes_ready(1), FOUNDING_SECONDS, lambda: "the founder is ready"
        )
        founder.on_started = None
        for host in self.hosts[1:]:
            await self._join(founder, host, host.number <= self.managers_at_first)
        await self._until(
            lambda: self._nodes_ready(self.count) and self._voters() == self.managers_at_first,
            FOUNDING_SECONDS,
            lambda: f"all are in; {self.errors}",
        )

    def _set_distances(self) -> None:
        kind = self.chance.choice(["near", "near", "far", "mixed"])
        for one in self.hosts:
            for other in self.hosts:
                if one is not other and kind != "near":
                    most = 0.04 if kind == "far" else self.chance.choice([0.001, 0.02, 0.1])
                    self.network.far[(one.address, other.address)] = self.chance.uniform(0.0005, most)
        self.plan += f", {kind}"

    async def _join(self, founder: Host, host: Host, is_manager: bool) -> None:
        manager = founder.manager
        tokens = manager.store.view.cluster().join_tokens
        made = make_request()
        token = tokens.manager if is_manager else tokens.worker
        answer = await manager.authority.admit(CertificateCall(request=made.request, token=token))
        Credentials(host.layout.certificate_files, host.clock).store(made.key, answer.certificate, answer.root)
        host.layout.write_membership(
            SwarmMembership(
                node_id=answer.node_id,
                cluster_id=answer.cluster_id,
                raft_id=0,
                advertise_address=host.address,
                listen_address=host.address,
                node_number=answer.node_number,
                managers=answer.managers,
            )
        )
        host.boot()
        if is_manager:
            # one after the other, as a person does it
            number = host.number
            await self._until(lambda: self._voters() == number, FOUNDING_SECONDS, lambda: f"{host.name} votes")

    def _nodes_ready(self, count: int) -> bool:
        leader = leader_among(self.hosts)
        if leader is None:
            return False
        nodes = leader.manager.store.view.all(Node)
        return len(nodes) == count and all(node.status.state == NodeState.READY for node in nodes)

    def _voters(self) -> int:
        leader = leader_among(self.hosts)
        return 0 if leader is None else sum(member.is_voter for member in leader.manager.raft.members())

    # -- the end

    def _is_healed(self) -> bool:
        return not self._unhealed()

    def _what_is_not_healed(self) -> str:
        return "; ".join(self._unhealed()[:6])

    def _unhealed(self) -> list[str]:
        leader = leader_among(self.hosts)
        if leader is None:
            return ["nobody leads"]
        view = leader.manager.store.view
        wrong = [f"{host.name} is not up" for host in self.hosts if host.part is None]
        if wrong:
            return wrong
        by_id = {host.part.membership.node_id: host for host in self.hosts}
        for node in view.find(Node):
            host = by_id[node.id]
            if node.status.state != NodeState.READY:
                wrong.append(f"{host.name} is {node.status.state}: {node.status.message}")
            is_manager = host.manager is not None
            if is_manager != (node.spec.role == Role.MANAGER) or is_manager != (node.manager_status is not None):
                wrong.append(f"{host.name} is to be {node.spec.role} and has a manager: {is_manager}")
        members = leader.manager.raft.members()
        claimed = {n.manager_status.raft_id for n in view.find(Node) if n.manager_status is not None}
        if claimed != {m.raft_id for m in members} or not all(m.is_voter for m in members):
            wrong.append(f"members {members}, claimed {claimed}")
        managers = [host for host in self.hosts if host.manager is not None]
        applied = leader.manager.raft.applied_index
        wrong.extend(f"{host.name} lags" for host in managers if host.manager.raft.applied_index != applied)
        return wrong or self._wrong_slots(view)

    def _wrong_slots(self, view: Any) -> list[str]:
        wrong, expected = [], {}
        for service in view.find(Service):
            tasks = [task for task in view.tasks_of_service(service.id) if task.desired_state <= TaskState.RUNNING]
            slots = sorted(task.slot or task.node_id for task in tasks)
            mode = service.spec.mode
            replicas = mode.replicated.replicas if mode.replicated is not None else len(self.hosts)
            if len(set(slots)) != len(slots) or len(slots) != replicas:
                wrong.append(f"{service.spec.name} has slots {slots}, {replicas} are wanted")
            for task in tasks:
                expected[task.id] = task.node_id
                if task.status.state != TaskState.RUNNING or task.desired_state != TaskState.RUNNING:
                    state = f"{task.status.state.word} {task.status.message} {task.status.err}"
                    wrong.append(f"{service.spec.name}.{task.slot} {task.id} on {task.node_id} is {state}")
        running = {
            container.config.labels["com.docker.swarm.task.id"]: host.part.membership.node_id
            for host in self.hosts
            for container in host.engine.running()
        }
        if running != expected:
            extra = {t: view.get(Task, t) and view.get(Task, t).status.state.word for t in set(running) - set(expected)}
            lacking = sorted(set(expected) - set(running))
            wrong.append(f"runs without need: {extra}; does not run: {lacking}")
        count = sum(len(host.engine.running()) for host in self.hosts)
        if count != len(running):
            wrong.append(f"{count} containers run for {len(running)} tasks")
        return wrong

    async def _read_all(self, client: Client) -> None:
        for name in NAMES:
            for host in self.hosts:
                if host.manager is not None:
                    seen = await client.read(name, host, LAST_READ_SECONDS)
                    assert seen != "failed", f"{host.name} does not answer after healing"

    def _different_stores(self) -> str:
        """Say whose store is not what the log makes it, empty if there is none; one may yet lag a moment."""
        for host in self.hosts:
            if host.manager is not None and (different := self.judge.states_equal(host.manager)):
                return f"{host.name} has another store: {different}"
        return ""

    def _judge_end(self) -> None:
        self.judge.judge_claims()
        wrong = self.history.judge()
        assert not wrong, wrong
        assert not self.errors, self.errors[:5]


def scratch() -> str | None:
    """A place in memory, if there is one: what is synced there costs nothing."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
