"""Free addresses of a subnet."""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Container


def first_free(subnet: str, gateway: str, used: Container[str], owner_id: str) -> str | None:
    """Return a free address of `subnet` in CIDR form, None if there is none.

    The search starts at a place that depends on the owner: an address that was just freed is then seldom the next one
    given, so that what still remembers its old owner (connection tracking, ARP) has time to forget.
    """
    network = ipaddress.ip_network(subnet)
    size = network.num_addresses
    first = int(network.network_address)
    # network address, gateway and broadcast address are not for owners
    start = zlib.crc32(owner_id.encode()) % size
    for step in range(size):
        offset = (start + step) % size
        if offset in (0, size - 1):
            continue
        address = str(ipaddress.ip_address(first + offset))
        if address != gateway and address not in used:
            return f"{address}/{network.prefixlen}"
    return None
