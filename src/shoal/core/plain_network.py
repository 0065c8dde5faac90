"""What a plain container wants of the node's network, from what it was asked to be. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.networks import BRIDGE_DRIVER, OVERLAY_DRIVER, choose_exit, exit_of, needs_way_out
from shoal.core.validate.plain_container import HOST_GATEWAY
from shoal.core.validate.plain_network import parse_port
from shoal.model.container import Container, ContainerConfig
from shoal.model.netstate import HostPort, JoinedNetwork, LinkOptions, OverlayLink, Sandbox, SandboxRequest
from shoal.model.plain import BRIDGE, Attachment, EndpointRequest, PlainConfig, PortRequest


def wanted_ports(plain: PlainConfig, exposed_by_image: Iterable[str] = ()) -> tuple[PortRequest, ...]:
    """Return the ports to publish: those asked for, with `publish_all` also every exposed one that is not yet."""
    ports = list(plain.ports)
    if plain.publish_all:
        published = {(port.target_port, port.protocol) for port in ports}
        for number, protocol in dict.fromkeys(map(parse_port, (*plain.exposed_ports, *exposed_by_image))):
            if (number, protocol) not in published:
                ports.append(PortRequest(protocol=protocol, target_port=number))
    return tuple(ports)


def with_host_gateway(hosts: tuple[str, ...], address: str) -> tuple[str, ...]:
    """Return lines of /etc/hosts in which the node itself has its address."""
    return tuple(
        f"{address}{line.removeprefix(HOST_GATEWAY)}" if line.startswith(HOST_GATEWAY) else line for line in hosts
    )


def is_taken(port: HostPort, taken: Iterable[HostPort]) -> bool:
    """Tell whether one of the ports that are taken is in the way of another: two addresses of a node are two places."""
    return any(
        (port.protocol, port.published_port) == (other.protocol, other.published_port)
        and (port.host_address == other.host_address or not port.host_address or not other.host_address)
        for other in taken
    )


def port_conflict(ports: Iterable[HostPort], containers: Iterable[Container]) -> str:
    """Return why ports cannot be published, in Docker's words: a plain container has one. Empty: they can."""
    held = {
        (port.protocol, port.published_port): container.config.name
        for container in containers
        if container.config.plain is not None and (container.state.status == "running" or container.state.restarting)
        for port in container.config.host_ports
    }
    for port in ports:
        holder = held.get((port.protocol, port.published_port))
        if holder is not None:
            return f"Bind for 0.0.0.0:{port.published_port} failed: port is already allocated to container {holder}"
    return ""


def sandbox_request(container_id: str, config: ContainerConfig) -> SandboxRequest:
    """Return the namespace a container needs: its networks of the swarm, and a way out."""
    plain = config.plain or PlainConfig()
    exits = [
        exit_of(each.network_id, each.network_name, each.driver or OVERLAY_DRIVER, each.priority)
        for each in plain.attachments
        if not each.internal
    ]
    if plain.network_mode == BRIDGE:
        exits.append(exit_of("", BRIDGE, BRIDGE_DRIVER, plain.bridge.priority))
    return SandboxRequest(
        task_id=container_id,
        host_ports=config.host_ports,
        overlays=tuple(
            OverlayLink(network_id=each.network_id, addresses=each.addresses, options=each.link)
            for each in plain.attachments
        ),
        # not if all it is on are internal networks
        outside=bool(config.host_ports or not plain.attachments or needs_way_out(exits)),
        default_network_id=choose_exit(exits),
        outside_options=plain.bridge.link if plain.network_mode == BRIDGE else LinkOptions(),
        name_servers=config.dns_nameservers,
    )


def endpoint_of(plain: PlainConfig, network: str) -> EndpointRequest | None:
    """Return what a container asked of a network, given its name, its id or the beginning of that; None: nothing."""
    attachment = attachment_of(plain, network)
    names = {network} if attachment is None else {attachment.network_name, attachment.network_id, network}
    return next((each for each in plain.endpoints if each.network in names), None)


def attachment_of(plain: PlainConfig, network: str) -> Attachment | None:
    """Return a container's place on a network, given the network's name, its id or the beginning of that."""
    for test in (
        lambda each: network in (each.network_id, each.network_name),
        lambda each: each.network_id.startswith(network),
    ):
        found = [each for each in plain.attachments if test(each)]
        if found:
            return found[0]
    return None


def joined_networks(config: ContainerConfig, sandbox: Sandbox) -> tuple[JoinedNetwork, ...]:
    """Return the networks a container is shown to be on."""
    plain = config.plain or PlainConfig()
    if plain.network_mode != BRIDGE:
        return sandbox.networks
    # those of networks of the swarm come first
    own = sandbox.addresses[-1:]
    return (JoinedNetwork(name=BRIDGE, network_id="", addresses=own), *sandbox.networks)
