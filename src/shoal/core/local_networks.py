"""Networks of one node (`docker network create NAME`): their subnets, and the places of plain containers on them. Pure.

To the node such a network is an overlay without a VXLAN: a bridge in a namespace of its own, names, and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.allocate.subnets import allocate_network
from shoal.core.attachments import choose_addresses
from shoal.core.networks import is_internal, local_options
from shoal.core.validate.network import check_local_network
from shoal.errors import Forbidden, NotFound, Unavailable
from shoal.model.base import replace
from shoal.model.netstate import GatewayNetwork, Overlay, OverlayEndpoint, OverlayService, OverlayUpdate
from shoal.model.node_port import AttachAnswer, AttachCall
from shoal.model.objects import Cluster, Meta, Network
from shoal.model.plain import LOCAL_PREFIX
from shoal.model.specs import IPAMPool, NetworkSpec

# as Docker's: its default bridges have what is before
POOLS = tuple(f"172.{number}.0.0/16" for number in range(19, 32))
SUBNET_SIZE = 16
# when those are gone
SMALL_POOL = "192.168.0.0/16"
SMALL_SUBNET_SIZE = 20
SHORT_ID_LENGTH = 12


def make_local_network(
    network_id: str, spec: NetworkSpec, others: Iterable[Network], host_subnets: Iterable[str], now_ns: int
) -> Network:
    """Return a network with its subnets and gateways.

    Args:
        network_id: of the new one.
        spec: checked.
        others: the networks there are; no subnet may overlap theirs.
        host_subnets: what the host itself leads to: avoided where no subnet is asked for.
        now_ns: when it is made.

    Raises:
        InvalidArgument: a subnet that was asked for is another network's.
        Unavailable: no subnet is free.
    """
    known = list(others)
    if not any(pool.subnet and ":" not in pool.subnet for pool in spec.ipam.config):
        known.append(Network(id="", spec=NetworkSpec(name="of the host"), subnets=tuple(host_subnets)))
    network = Network(id=network_id, spec=spec, meta=Meta(created_at_ns=now_ns, updated_at_ns=now_ns))
    if spec.config_only:
        return network
    try:
        cluster = Cluster(id="", default_address_pool=POOLS, subnet_size=SUBNET_SIZE)
        allocated = allocate_network(network, known, cluster)
    except Unavailable:
        cluster = Cluster(id="", default_address_pool=(SMALL_POOL,), subnet_size=SMALL_SUBNET_SIZE)
        allocated = allocate_network(network, known, cluster)
    return replace(allocated, vni=0)


def with_configuration(spec: NetworkSpec, networks: Iterable[Network]) -> NetworkSpec:
    """Return the spec of a network with what it takes from the configuration network that it names, if it does.

    Raises:
        NotFound: this node has no such configuration network.
        InvalidArgument, Forbidden, NotBuilt: the two together are no network.
    """
    if spec.config_from is None:
        return spec
    name = spec.config_from.network
    held = next((each.spec for each in networks if each.spec.config_only and each.spec.name == name), None)
    if held is None:
        raise NotFound(
            f'configuration network "{name}" does not exist on this node: make it there '
            f"(docker network create --config-only … {name})"
        )
    spec = replace(spec, enable_ipv6=held.enable_ipv6, labels=held.labels, ipam=held.ipam, options=held.options)
    check_local_network(spec)
    return spec


def refuse_shared_parent(spec: NetworkSpec, networks: Iterable[Network]) -> None:
    """Refuse a macvlan on a parent that one of mode passthru has to itself, or is to have. Raises Forbidden."""
    options = local_options(spec)
    for other in networks if options.parent else ():
        theirs = local_options(other.spec)
        if theirs.parent == options.parent and "passthru" in (options.mode, theirs.mode):
            raise Forbidden(f"network {other.spec.name} is already using parent interface {options.parent}")


def place_container(
    network: Network, call: AttachCall, held: Iterable[OverlayService], task_id: str = "", names: tuple[str, ...] = ()
) -> tuple[AttachAnswer, OverlayService]:
    """Return the place that a container gets, and what names and addresses it has there.

    Args:
        network: the network.
        call: what is asked for.
        held: the containers that are there.
        task_id: stands for the place in the swarm; empty: the network is this node's alone.
        names: of the service it is of.

    Raises:
        InvalidArgument, Conflict: an address that is asked for is none, or taken; none is left.
    """
    used = {
        address.partition("/")[0]
        for service in held
        for endpoint in service.endpoints
        for address in endpoint.addresses
    }
    addresses = choose_addresses(network, call.addresses, used, call.container_id or task_id)
    task_id = task_id or f"{LOCAL_PREFIX}{network.id[:SHORT_ID_LENGTH]}-{call.container_id[:SHORT_ID_LENGTH]}"
    aliases = (call.container_id[:SHORT_ID_LENGTH], *call.aliases) if call.container_id else call.aliases
    return answer_of(network, task_id, addresses), service_of(task_id, call.name, addresses, aliases, names)


def answer_of(network: Network, task_id: str, addresses: tuple[str, ...]) -> AttachAnswer:
    """Return what a container is told of its place on a network."""
    return AttachAnswer(
        task_id=task_id,
        network_id=network.id,
        network_name=network.spec.name,
        addresses=addresses,
        internal=is_internal(network.spec),
        driver=network.spec.driver,
    )


def service_of(
    task_id: str, name: str, addresses: tuple[str, ...], aliases: tuple[str, ...], names: tuple[str, ...] = ()
) -> OverlayService:
    """Return a container on a network as names and addresses know it; `names`: of the service it is of."""
    endpoint = OverlayEndpoint(
        task_id=task_id,
        name=name,
        addresses=tuple(address.partition("/")[0] for address in addresses),
        node_number=0,
        aliases=aliases,
        serving=True,
    )
    return OverlayService(service_id=task_id, names=names, endpoints=(endpoint,))


def service_names(service_name: str, aliases: Iterable[str]) -> tuple[str, ...]:
    """Return what all tasks of a service on a node's network are called there."""
    return tuple(dict.fromkeys((service_name, *aliases)))


def addresses_of(network: Network, service: OverlayService) -> tuple[str, ...]:
    """Return the addresses of a place (CIDR)."""
    bits = {":" in subnet: subnet.partition("/")[2] for subnet in network.subnets}
    return tuple(f"{address}/{bits[':' in address]}" for each in service.endpoints for address in each.addresses)


def gateway_network(network: Network) -> GatewayNetwork:
    """Return what is asked for of the network by which containers of a node go out."""
    pool = network.spec.ipam.config[0] if network.spec.ipam.config else IPAMPool()
    return GatewayNetwork(
        subnet=pool.subnet,
        address_range=pool.ip_range,
        gateway=network.gateways[0] if pool.subnet else "",
        reserved=tuple(pool.auxiliary_addresses.values()),
        mtu_bytes=local_options(network.spec).mtu_bytes,
    )


def update_of(network: Network, services: Iterable[OverlayService]) -> OverlayUpdate:
    """Return what the node's network is told of a network: all there is."""
    options = local_options(network.spec)
    overlay = Overlay(
        network_id=network.id,
        name=network.spec.name,
        vni=0,
        subnets=network.subnets,
        gateways=network.gateways,
        mtu_bytes=options.mtu_bytes,
        internal=is_internal(network.spec),
        parent=options.parent,
        mode=options.mode,
    )
    return OverlayUpdate(overlay=overlay, complete=True, services=tuple(services))
