"""Overlay networks as the store wants them: who is on them, under which names, behind which virtual addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.core.container import task_name
from shoal.core.extensions import parse_extensions
from shoal.core.ingress import is_placed, is_serving
from shoal.core.networks import overlay_options
from shoal.model.netstate import DataPath, Overlay, OverlayEndpoint, OverlayService, Peer
from shoal.model.objects import Cluster, Network, Node, Service, Task

SHORT_ID_LENGTH = 12


def overlay_of(network: Network) -> Overlay:
    """Return a network without what is on it."""
    options = overlay_options(network.spec.options)
    return Overlay(
        network_id=network.id,
        name=network.spec.name,
        vni=network.vni,
        subnets=network.subnets,
        gateways=network.gateways,
        mtu_bytes=options.mtu_bytes,
        internal=network.spec.internal,
        encrypted=options.encrypted,
    )


def overlay_service(
    network_id: str,
    service_id: str,
    service: Service | None,
    tasks: Iterable[Task],
    node_of: Callable[[str], Node | None],
) -> OverlayService | None:
    """Return what a service has on an overlay network, None if that is nothing.

    A service that is gone has no names and no addresses any more; its last tasks are reached until they end.
    """
    placed = (task for task in tasks if is_placed(task))
    found = (_endpoint(network_id, service, task, node_of) for task in sorted(placed, key=lambda task: task.id))
    endpoints = tuple(endpoint for endpoint in found if endpoint is not None)
    if service is None:
        return OverlayService(service_id=service_id, endpoints=endpoints) if endpoints else None
    attachments = [each for each in service.spec.task_template.networks if each.target == network_id]
    virtual_ips = tuple(
        each.address.partition("/")[0] for each in service.endpoint.virtual_ips if each.network_id == network_id
    )
    if not attachments and not endpoints and not virtual_ips:
        return None
    aliases = (alias for attachment in attachments for alias in attachment.aliases)
    return OverlayService(
        service_id=service_id,
        names=tuple(dict.fromkeys((service.spec.name, *aliases))),
        virtual_ips=virtual_ips,
        affinity=parse_extensions(service.spec.labels).balancing,
        endpoints=endpoints,
    )


def _endpoint(
    network_id: str, service: Service | None, task: Task, node_of: Callable[[str], Node | None]
) -> OverlayEndpoint | None:
    node = node_of(task.node_id)
    attachment = next((each for each in task.attachments if each.network_id == network_id), None)
    if attachment is None or node is None or not attachment.addresses:
        return None
    return OverlayEndpoint(
        task_id=task.id,
        name=task_name(service.spec.name, task) if service is not None else "",
        addresses=tuple(address.partition("/")[0] for address in attachment.addresses),
        node_number=node.number,
        aliases=_aliases(service, task),
        serving=service is not None and is_serving(task),
    )


def _aliases(service: Service | None, task: Task) -> tuple[str, ...]:
    """Return the names a task alone has: its container's short id, which is what it takes for its host name, too."""
    spec = service.spec.task_template.container_spec if service is not None else None
    hostname = spec.hostname if spec is not None and "{{" not in spec.hostname else ""
    container = task.status.container
    short_id = container.container_id[:SHORT_ID_LENGTH] if container is not None else ""
    return tuple(name for name in (short_id, hostname) if name)


def data_path(nodes: Iterable[Node], cluster: Cluster | None) -> DataPath:
    """Return where the nodes of a swarm are reached, in order of their numbers; one never seen is left out."""
    peers = [
        Peer(
            node_number=node.number,
            address=address,
            wireguard_key=node.description.wireguard_key,
            wireguard_port=node.description.wireguard_port,
        )
        for node in nodes
        if (address := node.description.data_path_address or node.status.address)
    ]
    return DataPath(
        port=cluster.data_path_port if cluster is not None else DataPath().port,
        key_generation=cluster.network_key_generation if cluster is not None else 0,
        peers=tuple(sorted(peers, key=lambda peer: peer.node_number)),
    )
