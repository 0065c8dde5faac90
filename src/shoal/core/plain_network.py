"""What a plain container wants of the node's network, from what it was asked to be. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.validate.plain_network import parse_port
from shoal.model.container import ContainerConfig
from shoal.model.netstate import JoinedNetwork, OverlayLink, Sandbox, SandboxRequest
from shoal.model.plain import BRIDGE, PlainConfig, PortRequest


def wanted_ports(plain: PlainConfig, exposed_by_image: Iterable[str] = ()) -> tuple[PortRequest, ...]:
    """Return the ports to publish: those asked for, with `publish_all` also every exposed one that is not yet."""
    ports = list(plain.ports)
    if plain.publish_all:
        published = {(port.target_port, port.protocol) for port in ports}
        for number, protocol in dict.fromkeys(map(parse_port, (*plain.exposed_ports, *exposed_by_image))):
            if (number, protocol) not in published:
                ports.append(PortRequest(protocol=protocol, target_port=number))
    return tuple(ports)


def sandbox_request(container_id: str, config: ContainerConfig) -> SandboxRequest:
    """Return the namespace a container needs: its networks of the swarm, and a way out."""
    plain = config.plain or PlainConfig()
    return SandboxRequest(
        task_id=container_id,
        host_ports=config.host_ports,
        overlays=tuple(OverlayLink(network_id=each.network_id, addresses=each.addresses) for each in plain.attachments),
        name_servers=config.dns_nameservers,
    )


def joined_networks(config: ContainerConfig, sandbox: Sandbox) -> tuple[JoinedNetwork, ...]:
    """Return the networks a container is shown to be on."""
    plain = config.plain or PlainConfig()
    if plain.network_mode != BRIDGE:
        return sandbox.networks
    # those of networks of the swarm come first
    own = sandbox.addresses[-1:]
    return (JoinedNetwork(name=BRIDGE, network_id="", addresses=own), *sandbox.networks)
