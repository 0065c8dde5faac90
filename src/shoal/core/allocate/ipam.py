"""Free addresses of a network."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Container

from shoal.model.objects import Network


def first_free(
    subnet: str, gateway: str, used: Container[str], owner_id: str, within: str = "", reserved: Container[str] = ()
) -> str | None:
    """Return a free address of `subnet` in CIDR form, None if there is none.

    The search starts at a place that depends on the owner: an address that was just freed is then seldom the next one
    given, so that what still remembers its old owner (connection tracking, ARP) has time to forget.

    Args:
        subnet: CIDR.
        gateway: not for owners, as the network and the broadcast address.
        used: addresses that others have.
        owner_id: whose it will be.
        within: the part of the subnet to take from (CIDR); empty: all of it.
        reserved: addresses that the network keeps back.
    """
    network = ipaddress.ip_network(subnet)
    searched = ipaddress.ip_network(within or subnet)
    not_for_owners = {int(network.network_address), int(network.broadcast_address)}
    # of a subnet of IPv6 a part is enough: nobody has 16 million tasks
    size = min(searched.num_addresses, 2**24)
    first = int(searched.network_address)
    start = zlib.crc32(owner_id.encode()) % size
    for step in range(size):
        number = first + (start + step) % size
        if number in not_for_owners:
            continue
        address = str(ipaddress.ip_address(number))
        if address != gateway and address not in used and address not in reserved:
            return f"{address}/{network.prefixlen}"
    return None


def free_addresses(network: Network, used: Container[str], owner_id: str) -> tuple[str, ...] | None:
    """Return an address (CIDR) of each family that a network has, IPv4 first; None if a family has none left."""
    pools = {pool.subnet: pool for pool in network.spec.ipam.config}
    found: dict[int, str] = {}
    families: set[int] = set()
    for subnet, gateway in zip(network.subnets, network.gateways, strict=True):
        family = 6 if ":" in subnet else 4
        families.add(family)
        if family in found:
            continue
        pool = pools.get(subnet)
        within = pool.ip_range if pool is not None else ""
        reserved = frozenset(pool.auxiliary_addresses.values()) if pool is not None else frozenset()
        address = first_free(subnet, gateway, used, owner_id, within, reserved)
        if address is not None:
            found[family] = address
    return tuple(found[family] for family in sorted(families)) if found.keys() == families else None
