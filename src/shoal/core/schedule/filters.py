"""Filters: which nodes can take a task, and in words, why others cannot (docker-swarm.md 4.5).

Each filter checks one thing and explains itself with a count of nodes. The order is Docker's, so the first filter a
node fails is the one it is counted under.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.core import constraint
from shoal.core.constraint import Constraint
from shoal.core.platform import architecture_of
from shoal.core.schedule.nodes import NodeInfo
from shoal.core.schedule.resources import Needs
from shoal.language.texts import size_text
from shoal.model.base import Struct
from shoal.model.objects import Node
from shoal.model.specs import Platform
from shoal.model.states import Availability, NodeState


class Request(Struct):
    """What a group of alike tasks asks of a node. `is_encrypted`: they are on a network that is encrypted."""

    service_id: str
    spec_version: int
    needs: Needs
    constraints: tuple[Constraint, ...] = ()
    platforms: tuple[Platform, ...] = ()
    is_encrypted: bool = False
    max_replicas: int = 0
    spread: tuple[str, ...] = ()


class Filter(Struct):
    """A check and its words: `explain` gets the number of nodes that failed it."""

    name: str
    check: Callable[[Request, NodeInfo], bool]
    explain: Callable[[int], str]


def takes_tasks(node: Node) -> bool:
    """Whether a node is there and takes new tasks."""
    return node.status.state == NodeState.READY and node.spec.availability == Availability.ACTIVE


def is_ready(_request: Request, info: NodeInfo) -> bool:
    """Whether a node is there and takes new tasks."""
    return takes_tasks(info.node)


def _resources(request: Request, info: NodeInfo) -> bool:
    needs = request.needs
    return (
        needs.nano_cpus <= info.nano_cpus
        and needs.memory_bytes <= info.memory_bytes
        and all(amount <= info.generic[kind] for kind, amount in needs.generic)
    )


def _constraints(request: Request, info: NodeInfo) -> bool:
    return constraint.matches_all(request.constraints, info.node)


def _platform(request: Request, info: NodeInfo) -> bool:
    if not request.platforms:
        return True
    own = info.node.description.platform
    architectures = ("", architecture_of(own.architecture))
    return any(
        platform.os in ("", own.os) and architecture_of(platform.architecture) in architectures
        for platform in request.platforms
    )


def _encryption(request: Request, info: NodeInfo) -> bool:
    return not request.is_encrypted or bool(info.node.description.wireguard_key)


def _host_ports(request: Request, info: NodeInfo) -> bool:
    return not any(info.host_ports[port] > 0 for port in request.needs.host_ports)


def _max_replicas(request: Request, info: NodeInfo) -> bool:
    return not request.max_replicas or info.tasks_by_service[request.service_id] < request.max_replicas


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"


def _not_ready_text(count: int) -> str:
    return f"{_nodes(count)} not available for new tasks"


FILTERS: tuple[Filter, ...] = (
    Filter(name="ready", check=is_ready, explain=_not_ready_text),
    Filter(name="resources", check=_resources, explain=lambda count: f"insufficient resources on {_nodes(count)}"),
    Filter(
        name="constraints",
        check=_constraints,
        explain=lambda count: f"scheduling constraints not satisfied on {_nodes(count)}",
    ),
    Filter(name="platform", check=_platform, explain=lambda count: f"unsupported platform on {_nodes(count)}"),
    # Shoal's own: Docker asks for a kernel that can
    Filter(
        name="encryption",
        check=_encryption,
        explain=lambda count: f"no WireGuard for encrypted networks on {_nodes(count)}",
    ),
    Filter(
        name="host ports",
        check=_host_ports,
        explain=lambda count: f"host-mode port already in use on {_nodes(count)}",
    ),
    Filter(
        name="max replicas",
        check=_max_replicas,
        explain=lambda _count: "max replicas per node limit exceed",
    ),
)


def scarcest(request: Request, infos: Iterable[NodeInfo]) -> str:
    """Say which resource most of the nodes lack: what is asked, and the most that one of them has left."""
    needs, nodes = request.needs, list(infos)
    asked: list[tuple[str, int, list[int], Callable[[int], str]]] = [
        ("CPUs", needs.nano_cpus, [info.nano_cpus for info in nodes], lambda value: f"{value / 1e9:g}"),
        (
            "memory",
            needs.memory_bytes,
            [info.memory_bytes for info in nodes],
            lambda value: size_text(value, binary=True, digits=4),
        ),
    ]
    asked += [(kind, amount, [info.generic[kind] for info in nodes], str) for kind, amount in needs.generic]
    lacking = [(sum(has < amount for has in left), name, amount, max(left), text) for name, amount, left, text in asked]
    most = max(lacking, key=lambda each: each[0], default=None)
    if most is None or not most[0]:
        return ""
    _, name, amount, left, text = most
    return f"{name}: {text(amount)} asked, {text(max(left, 0))} left at most"


def first_failure(request: Request, info: NodeInfo) -> Filter | None:
    """Return the first filter a node does not pass, None if it can take the task."""
    return next((one for one in FILTERS if not one.check(request, info)), None)
