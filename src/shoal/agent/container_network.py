"""The network of a plain container: what it asks of the node while it runs, and what it is told of it.

A container on `bridge` has the way out and the published ports that tasks have; one on `host` or `none`, or in another
container's network, has nothing of its own here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Sequence
from typing import Protocol

import structlog

from shoal.agent.ports import ALLOCATED, find_free_port, why_taken
from shoal.core.endpoint_options import refuse_same_interfaces
from shoal.core.plain_network import (
    attachment_of,
    endpoint_of,
    is_taken,
    joined_networks,
    sandbox_request,
    wanted_ports,
    with_host_gateway,
)
from shoal.engine.protocol import Engine
from shoal.errors import Conflict, Forbidden, InvalidArgument, ShoalError
from shoal.model.base import replace
from shoal.model.container import HOST_NETWORK, RESOLVER_ADDRESS, Amendment, Container, ContainerConfig
from shoal.model.netstate import HostPort, Sandbox, SandboxRequest
from shoal.model.node_port import AttachAnswer, AttachCall
from shoal.model.plain import (
    CONTAINER_PREFIX,
    HOST,
    NONE,
    Attachment,
    EndpointRequest,
    PlainConfig,
    PortRequest,
)

_log = structlog.get_logger(__name__)

# container ids, unlike ids of tasks
CONTAINER_ID_LENGTH = 64
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is said, not listened on


SHARED_NETWORK = (
    "container sharing network namespace with another container or host cannot be connected to any other network"
)
NO_NETWORK = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


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

    def host_address(self) -> str:
        """Return the address by which containers reach this node itself."""


class SwarmNetworks(Protocol):
    """The way of plain containers onto networks of the swarm."""

    async def attach(self, call: AttachCall) -> AttachAnswer:
        """Get a place on a network; returns when the node knows the network."""

    async def release(self, task_ids: Sequence[str]) -> tuple[str, ...]:
        """Give places back; returns those that are held after that."""


class ContainerNetwork:
    """See the module.

    Args:
        engine: has the containers; what they have of networks is written down there.
        network: of the node.
        swarm: its networks.
    """

    def __init__(self, engine: Engine, network: PlainNetwork, swarm: SwarmNetworks) -> None:
        self._engine = engine
        self._network = network
        self._swarm = swarm
        # a place is asked for and written down in one turn: what is swept is what nobody has written down
        self._turn = asyncio.Lock()
        self._may_hold_strays = True

    async def attach(self, container: Container) -> ContainerConfig:
        """Make the network of a container that is to start; return its config with what it has of it.

        Raises:
            Conflict: the container whose network it is to share does not run.
            ShoalError: a port is taken.
            Unavailable: the node's network refuses.
        """
        config = container.config
        plain = config.plain or PlainConfig()
        own = "127.0.0.1" if plain.network_mode == HOST else self._network.host_address()
        config = replace(config, hosts=with_host_gateway(config.hosts, own))
        if plain.network_mode == NONE:
            return replace(config, network_namespace=None)
        if plain.network_mode == HOST:
            return replace(config, network_namespace=HOST_NETWORK, hostname=config.hostname or socket.gethostname())
        if plain.network_mode.startswith(CONTAINER_PREFIX):
            return self._shared(config, plain)
        config = replace(config, host_ports=self._settle_ports(container, plain))
        if plain.attachments:
            # left from a run that a crash ended
            await self._release(plain.attachments)
            config = replace(config, plain=replace(plain, attachments=()))
        for endpoint in plain.endpoints:
            config = await self._join(container, config, endpoint)
        return await self._connect(container, config)

    async def connect(self, container: Container, endpoint: EndpointRequest) -> None:
        """Put a container on another network, now if it runs.

        Raises:
            InvalidArgument: its network mode does not allow it.
            Forbidden: it is there already.
            NotFound, Conflict, Unavailable: the leader or the node's network refuse.
        """
        config = container.config
        plain = config.plain or PlainConfig()
        _check_mode(plain)
        if endpoint_of(plain, endpoint.network) is not None:
            name = container.config.name
            raise Forbidden(f"endpoint with name {name} already exists in network {endpoint.network}")
        refuse_same_interfaces(each.link for each in (*plain.endpoints, plain.bridge, endpoint))
        config = replace(config, plain=replace(plain, endpoints=(*plain.endpoints, endpoint)))
        if container.state.status != "running":
            await self._engine.amend(container.id, Amendment(config=config))
            return
        joined = await self._join(container, config, endpoint)
        try:
            connected = await self._connect(container, joined)
        except BaseException:
            await self._engine.amend(container.id, Amendment(config=container.config))
            await self._release((joined.plain or plain).attachments[-1:])
            raise
        await self._engine.amend(container.id, Amendment(config=connected))

    async def disconnect(self, container: Container, network: str) -> None:
        """Take a container off a network, now if it runs. Raises Forbidden: it is not there."""
        config = container.config
        plain = config.plain or PlainConfig()
        endpoint, attachment = endpoint_of(plain, network), attachment_of(plain, network)
        if endpoint is None:
            raise Forbidden(f"container {container.id} is not connected to network {network}")
        endpoints = tuple(each for each in plain.endpoints if each != endpoint)
        attachments = tuple(each for each in plain.attachments if each != attachment)
        config = replace(config, plain=replace(plain, endpoints=endpoints, attachments=attachments))
        if container.state.status == "running":
            config = await self._connect(container, config)
        await self._engine.amend(container.id, Amendment(config=config))
        if attachment is not None:
            await self._release((attachment,))

    async def leave_swarm(self, container: Container) -> None:
        """Take a container off all networks of a swarm that the node leaves."""
        plain = container.config.plain
        of_swarm = tuple(each for each in plain.attachments if not each.is_local) if plain is not None else ()
        if plain is None or not of_swarm:
            return
        own = tuple(each for each in plain.attachments if each.is_local)
        config = replace(container.config, plain=replace(plain, attachments=own))
        if container.state.status == "running":
            config = await self._connect(container, config)
        await self._engine.amend(container.id, Amendment(config=config))
        await self._release(of_swarm)

    async def _join(self, container: Container, config: ContainerConfig, endpoint: EndpointRequest) -> ContainerConfig:
        """Get a place on a network and write it down; return the config with it."""
        plain = config.plain or PlainConfig()
        call = AttachCall(
            network=endpoint.network,
            container_id=container.id,
            name=config.name,
            aliases=endpoint.aliases,
            addresses=endpoint.addresses,
        )
        async with self._turn:
            answer = await self._swarm.attach(call)
            attachment = Attachment(
                task_id=answer.task_id,
                network_id=answer.network_id,
                network_name=answer.network_name,
                addresses=answer.addresses,
                aliases=endpoint.aliases,
                internal=answer.internal,
                driver=answer.driver,
                link=endpoint.link,
                priority=endpoint.priority,
            )
            config = replace(config, plain=replace(plain, attachments=(*plain.attachments, attachment)))
            await self._engine.amend(container.id, Amendment(config=config))
        return config

    async def _release(self, attachments: Sequence[Attachment]) -> None:
        if attachments:
            try:
                await self._swarm.release([each.task_id for each in attachments])
            except ShoalError as error:
                self._may_hold_strays = True
                _log.info("places on networks are given back later", reason=error.message)

    async def sweep(self) -> None:
        """Give back the places that no container has: a crash or a leader that did not answer left them."""
        if not self._may_hold_strays:
            return
        async with self._turn:
            try:
                held = await self._swarm.release(())
                plains = [container.config.plain for container in self._engine.list()]
                known = {each.task_id for plain in plains if plain is not None for each in plain.attachments}
                strays = sorted(set(held) - known)
                if strays:
                    await self._swarm.release(strays)
                    _log.info("gave back places on networks that no container has", count=len(strays))
                self._may_hold_strays = False
            except ShoalError as error:
                _log.info("places on networks are looked through later", reason=error.message)

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
        taken = [
            HostPort(protocol=protocol, published_port=number, target_port=0)
            for protocol, number in self._network.published_ports()
        ]
        for other in self._engine.list():
            if other.id != container.id and (other.state.status == "running" or other.state.restarting):
                taken += other.config.host_ports
        settled = []
        for port in wanted_ports(plain, exposed):
            made, reason = self._settle_port(port, taken)
            if reason:
                where = f"{made.host_address or EVERYWHERE}:{made.published_port}"
                raise ShoalError(
                    f"driver failed programming external connectivity on endpoint {container.config.name} "
                    f"({container.id}): Bind for {where} failed: {reason}"
                )
            taken.append(made)
            settled.append(made)
        return tuple(settled)

    @staticmethod
    def _settle_port(port: PortRequest, taken: Collection[HostPort]) -> tuple[HostPort, str]:
        """Return a port with the first number that is free, and why there is none, empty if there is."""
        made = HostPort(
            protocol=port.protocol, published_port=0, target_port=port.target_port, host_address=port.host_address
        )
        if not port.published_port:
            made = replace(made, published_port=find_free_port(port.protocol))
            while is_taken(made, taken):
                made = replace(made, published_port=find_free_port(port.protocol))
            return made, ""
        reason = ""
        for number in range(port.published_port, max(port.published_port, port.last_port) + 1):
            made = replace(made, published_port=number)
            reason = ALLOCATED if is_taken(made, taken) else why_taken(made.protocol, number, made.host_address)
            if not reason:
                break
        return made, reason

    async def detach(self, container_id: str) -> None:
        """Take the network of a container that has ended away."""
        if container_id in self._network.sandboxes():
            await self._network.detach(container_id)
        config = self._engine.get(container_id).config
        if config.plain is not None and config.plain.attachments:
            bare = replace(config, plain=replace(config.plain, attachments=()))
            await self._engine.amend(container_id, Amendment(config=bare))
            await self._release(config.plain.attachments)

    async def remove_strays(self, known: Collection[str]) -> None:
        """Remove namespaces of containers that are no more: left by a daemon that was killed."""
        for sandbox_id in self._network.sandboxes():
            if len(sandbox_id) == CONTAINER_ID_LENGTH and sandbox_id not in known:
                _log.info("removing the namespace of a container that is gone", container=sandbox_id)
                await self._network.detach(sandbox_id)


def _check_mode(plain: PlainConfig) -> None:
    if plain.network_mode == HOST or plain.network_mode.startswith(CONTAINER_PREFIX):
        raise InvalidArgument(SHARED_NETWORK)
    if plain.network_mode == NONE:
        raise InvalidArgument(NO_NETWORK)
