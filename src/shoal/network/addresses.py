"""Choosing ranges and giving out addresses for tasks outside the mesh. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable


def choose_range(candidates: Iterable[str], taken: Collection[ipaddress.IPv4Network]) -> str | None:
    """Return the first candidate (CIDR) that overlaps nothing taken, None if every one does."""
    for candidate in candidates:
        network = ipaddress.IPv4Network(candidate)
        if not any(network.overlaps(other) for other in taken):
            return candidate
    return None


def host_of(network: str, number: int) -> str:
    """Return the address with this number in a network: 1 is the first."""
    return str(ipaddress.IPv4Network(network)[number])


def prefix_bits(network: str) -> int:
    """Return the length of a network's prefix."""
    return ipaddress.IPv4Network(network).prefixlen


def next_address(network: str, in_use: Collection[str], after: str | None = None) -> str | None:
    """Return a free address, searching onward from the one given last, so that none is reused at once.

    The first address is the gateway's; the last is the broadcast address. None if all are in use.
    """
    whole = ipaddress.IPv4Network(network)
    first, last = int(whole.network_address) + 2, int(whole.broadcast_address) - 1
    count = last - first + 1
    start = int(ipaddress.IPv4Address(after)) + 1 if after is not None else first
    for step in range(count):
        candidate = str(ipaddress.IPv4Address(first + (start - first + step) % count))
        if candidate not in in_use:
            return candidate
    return None
