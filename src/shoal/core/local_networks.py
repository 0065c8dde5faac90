"""Networks of one node (`docker network create NAME`): their subnets, and the places of plain containers on them. Pure.

To the node such a network is an overlay without a VXLAN: a bridge in a namespace of its own, names, and nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.allocate.subnets import allocate_network
from shoal.core.attachments import choose_addresses
from shoal.core.networks import overlay_options
from shoal.errors import Unavailable
from shoal.model.base import replace
from shoal.model.netstate import Overlay, OverlayEndpoint, OverlayService, OverlayUpdate
from shoal.model.node_port import AttachAnswer, AttachCall
from shoal.model.objects import Cluster, Meta, Network
from shoal.model.plain import LOCAL_PREFIX
from shoal.model.specs import NetworkSpec

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
    try:
        cluster = Cluster(id="", default_address_pool=POOLS, subnet_size=SUBNET_SIZE)
        allocated = allocate_network(network, known, cluster)
    except Unavailable:
        cluster = Cluster(id="", default_address_pool=(SMALL_POOL,), subnet_size=SMALL_SUBNET_SIZE)
        allocated = allocate_network(network, known, cluster)
    return replace(allocated, vni=0)


def place_container(
    network: Network, call: AttachCall, held: Iterable[OverlayService]
) -> tuple[AttachAnswer, OverlayService]:
    """Return the place that a container gets, and what names and addresses it has there.

    Args:
        network: the network.
        call: what is asked for.
        held: the containers that are there.

    Raises:
        InvalidArgument, Conflict: an address that is asked for is none, or taken; none is left.
    """
    used = {
        address.partition("/")[0]
        for service in held
        for endpoint in service.endpoints
        for address in endpoint.addresses
    }
    addresses = choose_addresses(network, call.addresses, used, call.container_id)
    task_id = f"{LOCAL_PREFIX}{network.id[:SHORT_ID_LENGTH]}-{call.container_id[:SHORT_ID_LENGTH]}"
    answer = AttachAnswer(
        task_id=task_id,
        network_id=network.id,
        network_name=network.spec.name,
        addresses=addresses,
        internal=network.spec.internal,
    )
    return answer, service_of(task_id, call.container_id, call.name, addresses, call.aliases)


def service_of(
    task_id: str, container_id: str, name: str, addresses: tuple[str, ...], aliases: tuple[str, ...]
) -> OverlayService:
    """Return a container on a network as names and addresses know it."""
    endpoint = OverlayEndpoint(
        task_id=task_id,
        name=name,
        addresses=tuple(address.partition("/")[0] for address in addresses),
        node_number=0,
        aliases=(container_id[:SHORT_ID_LENGTH], *aliases),
        serving=True,
    )
    return OverlayService(service_id=task_id, endpoints=(endpoint,))


def update_of(network: Network, services: Iterable[OverlayService]) -> OverlayUpdate:
    """Return what the node's network is told of a network: all there is."""
    overlay = Overlay(
        network_id=network.id,
        name=network.spec.name,
        vni=0,
        subnets=network.subnets,
        gateways=network.gateways,
        mtu_bytes=overlay_options(network.spec.options).mtu_bytes,
        internal=network.spec.internal,
    )
    return OverlayUpdate(overlay=overlay, complete=True, services=tuple(services))
