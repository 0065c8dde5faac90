"""Subnets and VXLAN ids of overlay networks: what is asked for, else the first that is free (docker-swarm.md 4.11)."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Iterator

from shoal.core.networks import VNI_OPTION, overlay_options
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.base import replace
from shoal.model.objects import Cluster, Network
from shoal.model.specs import IPAMPool

# the mesh's own, whatever network is its: every node carries it under this one
INGRESS_VNI = 4096
VNI_MOST = 2**24 - 1
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def allocate_network(network: Network, others: Iterable[Network], cluster: Cluster) -> Network:
    """Return `network` with its subnets, gateways and VXLAN id.

    Args:
        network: with a checked spec, and nothing given yet.
        others: all networks of the swarm.
        cluster: knows the pools that subnets come from.

    Raises:
        InvalidArgument: a subnet or VXLAN id that was asked for is another network's.
        Unavailable: the pools are exhausted.
    """
    known = tuple(others)
    pools = list(network.spec.ipam.config)
    if not any(pool.subnet and _is_ipv4(pool.subnet) for pool in pools):
        pools = [IPAMPool(subnet=_free_subnet(known, cluster)), *(pool for pool in pools if pool.subnet)]
    if network.spec.enable_ipv6 and all(_is_ipv4(pool.subnet) for pool in pools):
        pools.append(IPAMPool(subnet=unique_local_subnet(network.id)))
    pools = [pool for pool in pools if pool.subnet]
    for pool in pools:
        _refuse_overlap(pool.subnet, known)
    gateways = tuple(pool.gateway or str(_first_host(pool)) for pool in pools)
    vni = _vni(network, known)
    return replace(network, subnets=tuple(pool.subnet for pool in pools), gateways=gateways, vni=vni)


def overlapping(subnet: str, others: Iterable[Network]) -> Network | None:
    """Return a network with a subnet that overlaps `subnet`."""
    wanted = ipaddress.ip_network(subnet)
    for other in others:
        for text in other.subnets:
            theirs = ipaddress.ip_network(text)
            if theirs.version == wanted.version and theirs.overlaps(wanted):
                return other
    return None


def unique_local_subnet(network_id: str) -> str:
    """Return the /64 of a network that wants IPv6 and names no subnet: unique local, drawn from its id (RFC 4193)."""
    digest = hashlib.sha256(network_id.encode()).digest()
    return f"fd{digest[0]:02x}:{digest[1:3].hex()}:{digest[3:5].hex()}:{digest[5:7].hex()}::/64"


def _is_ipv4(subnet: str) -> bool:
    return ":" not in subnet


def _first_host(pool: IPAMPool) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_network(pool.ip_range or pool.subnet)[1]


def _refuse_overlap(subnet: str, others: Iterable[Network]) -> None:
    other = overlapping(subnet, others)
    if other is not None:
        raise InvalidArgument(
            f"IPAM: Pool overlaps with other one on this address space: {subnet} and {', '.join(other.subnets)} of "
            f"network {other.spec.name}; choose another --subnet"
        )


def _free_subnet(others: Iterable[Network], cluster: Cluster) -> str:
    taken = [ipaddress.IPv4Network(text) for other in others for text in other.subnets if _is_ipv4(text)]
    for pool in cluster.default_address_pool:
        found = next(_free_within(ipaddress.IPv4Network(pool), cluster.subnet_size, taken), None)
        if found is not None:
            return str(found)
    raise Unavailable(
        f"no subnet of /{cluster.subnet_size} is free in {', '.join(cluster.default_address_pool)}: remove a network, "
        "or choose a --subnet outside"
    )


def _free_within(
    pool: ipaddress.IPv4Network, size: int, taken: list[ipaddress.IPv4Network]
) -> Iterator[ipaddress.IPv4Network]:
    """Yield the subnets of a pool that are free; what a taken one covers is jumped over, not tried piece by piece."""
    step = 2 ** (32 - size)
    position, end = int(pool.network_address), int(pool.broadcast_address)
    while position + step - 1 <= end:
        candidate = ipaddress.IPv4Network((position, size))
        blocking = next((each for each in taken if each.overlaps(candidate)), None)
        if blocking is None:
            yield candidate
            position += step
        else:
            past = int(blocking.broadcast_address) + 1
            position = max(position + step, -(-past // step) * step)


def _vni(network: Network, others: Iterable[Network]) -> int:
    taken = {other.vni: other.spec.name for other in others}
    asked = overlay_options(network.spec.options).vnis
    if network.spec.ingress:
        if asked not in ((), (INGRESS_VNI,)):
            raise InvalidArgument(f"Options: the routing mesh has VXLAN id {INGRESS_VNI}; leave {VNI_OPTION} out")
        return INGRESS_VNI
    taken.setdefault(INGRESS_VNI, "ingress")
    if asked:
        if asked[0] in taken:
            raise InvalidArgument(f"Options: VXLAN id {asked[0]} is in use by network {taken[asked[0]]}")
        return asked[0]
    vni = next((number for number in range(INGRESS_VNI + 1, VNI_MOST + 1) if number not in taken), None)
    if vni is None:
        raise Unavailable("no VXLAN id is free: remove a network")
    return vni
