"""The network of a plain container: what it asks of the node while it runs, and what it is told of it.

A container on `bridge` has the way out and the published ports that tasks have; one on `host` or `none`, or in another
container's network, has nothing of its own here.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import Protocol

import structlog

from shoal.agent.ports import find_free_port, is_port_free
from shoal.core.plain_network import joined_networks, sandbox_request, wanted_ports
from shoal.engine.protocol import Engine
from shoal.errors import Conflict, NotFound, ShoalError
from shoal.model.base import replace
from shoal.model.container import HOST_NETWORK, RESOLVER_ADDRESS, Container, ContainerConfig
from shoal.model.netstate import HostPort, Sandbox, SandboxRequest
from shoal.model.plain import CONTAINER_PREFIX, HOST, NONE, PlainConfig, PortRequest

_log = structlog.get_logger(__name__)

# container ids, unlike ids of tasks
CONTAINER_ID_LENGTH = 64


class PlainNetwork(Protocol):
    """What a plain container needs of the node's network."""

    async def attach(self, request: SandboxRequest) -> Sandbox:
        """Make a namespace, or lead one that exists to the request."""

    async def detach(self, task_id: str) -> None:
        """Remove a namespace; none is no failure."""

    def sandboxes(self) -> tuple[str, ...]:
        """Return the ids that have a namespace."""

    def published_ports(self) -> frozenset[tuple[str, int]]:
        """Return the ports (protocol, number) that the swarm publishes on every node."""


class ContainerNetwork:
    """See the module."""

    def __init__(self, engine: Engine, network: PlainNetwork) -> None:
        self._engine = engine
        self._network = network

    async def attach(self, container: Container) -> ContainerConfig:
        """Make the network of a container that is to start; return its config with what it has of it.

        Raises:
            Conflict: the container whose network it is to share does not run.
            ShoalError: a port is taken.
            Unavailable: the node's network refuses.
        """
        config = container.config
        plain = config.plain or PlainConfig()
        if plain.network_mode == NONE:
            return replace(config, network_namespace=None)
        if plain.network_mode == HOST:
            return replace(config, network_namespace=HOST_NETWORK, hostname=config.hostname or socket.gethostname())
        if plain.network_mode.startswith(CONTAINER_PREFIX):
            return self._shared(config, plain)
        if plain.endpoints:
            raise NotFound(f"network {plain.endpoints[0].network} not found")
        ports = self._settle_ports(container, plain)
        return await self._connect(container, replace(config, host_ports=ports))

    async def _connect(self, container: Container, config: ContainerConfig) -> ContainerConfig:
        request = sandbox_request(container.id, config)
        sandbox = await self._network.attach(request)
        return replace(
            config,
            network_namespace=sandbox.path,
            addresses=sandbox.addresses,
            networks=joined_networks(config, sandbox),
            resolver_address=RESOLVER_ADDRESS if request.overlays else "",
        )

    def _shared(self, config: ContainerConfig, plain: PlainConfig) -> ContainerConfig:
        other = self._engine.get(plain.network_mode.removeprefix(CONTAINER_PREFIX))
        if other.state.status != "running":
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        theirs = other.config
        path = theirs.network_namespace
        return replace(
            config,
            network_namespace=f"/proc/{other.state.pid}/ns/net" if path is None else path,
            hostname=theirs.hostname or other.id[:12],
            addresses=theirs.addresses,
            hosts=theirs.hosts,
            resolver_address=theirs.resolver_address,
            dns_nameservers=theirs.dns_nameservers,
            dns_search=theirs.dns_search,
            dns_options=theirs.dns_options,
        )

    def _settle_ports(self, container: Container, plain: PlainConfig) -> tuple[HostPort, ...]:
        """Return the ports to publish, numbers for those that asked for any. Raises ShoalError with Docker's text."""
        exposed = self._engine.images.get(container.image_id).exposed_ports if plain.publish_all else ()
        taken = set(self._network.published_ports())
        for other in self._engine.list():
            if other.id != container.id and (other.state.status == "running" or other.state.restarting):
                taken |= {(port.protocol, port.published_port) for port in other.config.host_ports}
        settled = []
        for port in wanted_ports(plain, exposed):
            number = port.published_port
            if not number:
                number = self._any_port(port, taken)
            elif (port.protocol, number) in taken or not is_port_free(port.protocol, number):
                raise ShoalError(
                    f"driver failed programming external connectivity on endpoint {container.config.name} "
                    f"({container.id}): Bind for 0.0.0.0:{number} failed: port is already allocated"
                )
            taken.add((port.protocol, number))
            settled.append(HostPort(protocol=port.protocol, published_port=number, target_port=port.target_port))
        return tuple(settled)

    @staticmethod
    def _any_port(port: PortRequest, taken: Collection[tuple[str, int]]) -> int:
        while (port.protocol, number := find_free_port(port.protocol)) in taken:
            pass
        return number

    async def detach(self, container_id: str) -> None:
        """Take the network of a container that has ended away."""
        if container_id in self._network.sandboxes():
            await self._network.detach(container_id)

    async def forget(self, container: Container) -> None:
        """Take away all that a container had, as it is removed."""
        await self.detach(container.id)

    async def remove_strays(self, known: Collection[str]) -> None:
        """Remove namespaces of containers that are no more: left by a daemon that was killed."""
        for sandbox_id in self._network.sandboxes():
            if len(sandbox_id) == CONTAINER_ID_LENGTH and sandbox_id not in known:
                _log.info("removing the namespace of a container that is gone", container=sandbox_id)
                await self._network.detach(sandbox_id)
