"""Clients of the simulated cluster: they write and read services through any manager, and write down what they saw."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

from shoal.daemon.manager import NO_LEADER, Manager
from shoal.errors import NameConflict, NotFound, OutOfSequence, ShoalError
from shoal.manager.service_plans import ServiceUpdate
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.objects import Node, Service
from shoal.model.specs import (
    EndpointSpec,
    GlobalService,
    PortConfig,
    ReplicatedService,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from tests.sim.cluster_host import Host
from tests.sim.cluster_network import Refused
from tests.sim.linearizability import NEVER, Operation, is_linearizable, service_step
from tests.sim.virtual_loop import VirtualLoop

NAMES = ("s0", "s1", "s2", "s3", "s4")
REPLICAS_MOST = 4
# What was refused so has certainly not been made.
NOT_MADE = (
    NO_LEADER,
    "this manager leads no more",
    "this manager does not lead the swarm",
    "another manager leads now, and the change was not made",
    "the change was not taken",
)


async def answer_api(manager: Manager, request: Any) -> Any:
    """What the routes of services and nodes do."""
    control, view = manager.control, manager.store.view
    match request["op"]:
        case "read":
            service = view.by_name(Service, request["name"])
            if service is None:
                return None
            labels = service.spec.labels
            return service.id, labels["birth"], labels["tag"], service.meta.version, service.spec
        case "create":
            return await control.create_service(request["spec"])
        case "update":
            await control.update_service(request["id"], ServiceUpdate(request["version"], request["spec"]))
        case "remove":
            await control.remove_service(request["id"])
        case "node":
            node = view.get(Node, request["id"])
            if node is None:
                raise NotFound("no such node")
            await control.update_node(node.id, node.meta.version, replace(node.spec, **request["spec"]))
    return None


def mode_of(replicas: int | None) -> ServiceMode:
    """So many replicas, or (None) one on every node."""
    if replicas is None:
        return ServiceMode(global_=GlobalService())
    return ServiceMode(replicated=ReplicatedService(replicas=replicas))


def spec_of(name: str, birth: str, tag: str, replicas: int | None, port: int, restart_seconds: int) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        labels={"birth": birth, "tag": tag},
        task_template=TaskSpec(
            container_spec=ContainerSpec(image="busybox:latest", env=(f"TAG={tag}",)),
            restart_policy=RestartPolicy(delay=restart_seconds * 1_000_000_000),
        ),
        mode=mode_of(replicas),
        endpoint_spec=EndpointSpec(ports=(PortConfig(protocol="tcp", target_port=80, published_port=port),))
        if port
        else None,
    )


class History:
    """Operations by the name of their service, ordered by one counter."""

    def __init__(self) -> None:
        self._now = 0
        self.operations: dict[str, list[Operation]] = defaultdict(list)
        self.outcomes: Counter[str] = Counter()

    def moment(self) -> int:
        self._now += 1
        return self._now

    def note(self, service: str, name: str, arguments: tuple[Any, ...], outcome: Any, called_at: int, who: str) -> None:
        answered_at = NEVER if outcome == "unknown" else self.moment()
        self.outcomes[f"{name} {outcome if isinstance(outcome, str) else 'seen'}"] += 1
        self.operations[service].append(Operation(name, arguments, outcome, called_at, answered_at, who))

    def judge(self) -> str:
        """Say what is wrong with the history, empty if nothing is."""
        for service, operations in self.operations.items():
            if not is_linearizable(operations, service_step, None):
                return f"the history of {service} is not linearizable:\n" + "\n".join(map(str, operations))
        return ""


class Client:
    """One client, which does one thing at a time."""

    def __init__(self, name: str, loop: VirtualLoop, hosts: list[Host], history: History, seed: str) -> None:
        self.name = name
        self._loop = loop
        self._hosts = hosts
        self.history = history
        self._chance = random.Random(seed)
        self._writes = 0

    async def run(self, until: float, pass_time: Any) -> None:
        while self._loop.now < until:
            await self.act(self._chance.choice(NAMES))
            await pass_time(self._chance.expovariate(1.2))

    async def act(self, service: str) -> None:
        """Read, and often write what follows from it."""
        seen = await self.read(service, self._host())
        if seen == "failed" or self._chance.random() < 0.25:
            return
        if seen is None:
            await self._create(service)
        elif self._chance.random() < 0.2:
            await self._remove(service, seen)
        else:
            await self._update(service, seen)

    def _host(self) -> Host:
        """A manager, as far as a client can know."""
        managers = [host for host in self._hosts if host.manager is not None]
        return self._chance.choice(managers or self._hosts)

    async def read(self, service: str, host: Host, timeout_seconds: float = 5.0) -> Any:
        called_at = self.history.moment()
        try:
            seen = await host.ask({"op": "read", "name": service}, timeout_seconds)
        except (ShoalError, TimeoutError, ConnectionError):
            self.history.outcomes["read failed"] += 1
            return "failed"
        self.history.note(service, "read", (), None if seen is None else (seen[1], seen[2]), called_at, self.name)
        return seen

    def _tag(self) -> str:
        self._writes += 1
        return f"{self.name}-{self._writes}"

    async def _write(self, service: str, name: str, arguments: tuple[Any, ...], request: Any) -> None:
        called_at = self.history.moment()
        try:
            await self._host().ask(request, self._chance.choice([1.0, 5.0, 25.0]))
            outcome = "done"
        except OutOfSequence:
            outcome = "stale"
        except NameConflict:
            outcome = "taken"
        except NotFound:
            outcome = "missing"
        except Refused:
            outcome = "failed"
        except (ShoalError, TimeoutError, ConnectionError) as error:
            text = str(error)
            outcome = "failed" if text.startswith(NOT_MADE) else "unknown"
            if outcome == "unknown":
                self.history.outcomes[f"unknown: {text[:60]}"] += 1
        if outcome == "failed":
            self.history.outcomes[f"{name} failed"] += 1
            return
        self.history.note(service, name, arguments, outcome, called_at, self.name)

    async def _create(self, service: str) -> None:
        tag = self._tag()
        port = 8000 + NAMES.index(service) if self._chance.random() < 0.5 else 0
        replicas = None if self._chance.random() < 0.1 else self._chance.randint(1, REPLICAS_MOST)
        spec = spec_of(service, tag, tag, replicas, port, self._chance.choice([0, 1, 5]))
        await self._write(service, "create", (tag,), {"op": "create", "spec": spec})

    async def _update(self, service: str, seen: Any) -> None:
        service_id, birth, old, version, spec = seen
        tag = self._tag()
        template = spec.task_template
        if self._chance.random() < 0.3:
            container = replace(template.container_spec, env=(f"TAG={tag}",))
            template = replace(template, container_spec=container)
        replicas = None if spec.mode.replicated is None else self._chance.randint(0, REPLICAS_MOST)
        changed = replace(
            spec,
            labels={"birth": birth, "tag": tag},
            mode=mode_of(replicas),
            task_template=template,
        )
        request = {"op": "update", "id": service_id, "version": version, "spec": changed}
        await self._write(service, "update", (birth, old, tag), request)

    async def _remove(self, service: str, seen: Any) -> None:
        await self._write(service, "remove", (seen[1],), {"op": "remove", "id": seen[0]})
