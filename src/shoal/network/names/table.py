"""The names of one overlay network, and which addresses stand behind each. Pure.

A change costs what it changes: every service contributes names of its own, and names that several contribute (an alias
of two services) give all their addresses. Knows neither DNS messages nor containers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple

from shoal.model.netstate import Overlay, OverlayService, OverlayUpdate

TASKS_PREFIX = b"tasks."


class Addresses(NamedTuple):
    """Packed addresses of a name; both empty: the name is known, but nothing answers to it now."""

    ipv4: tuple[bytes, ...] = ()
    ipv6: tuple[bytes, ...] = ()


class Contribution(NamedTuple):
    """What a service adds to its network: names, and the names of addresses (for reverse look-ups)."""

    names: dict[bytes, Addresses]
    reverse: dict[bytes, bytes]


def fold(name: str) -> bytes:
    """Return a name as it is looked up: lower case, no dot at the end."""
    return name.rstrip(".").lower().encode("utf-8")


def pack(addresses: Iterable[str]) -> Addresses:
    """Return addresses packed, each once and in order; what is no address is left out."""
    ipv4: dict[bytes, None] = {}
    ipv6: dict[bytes, None] = {}
    for text in addresses:
        is_ipv6 = ":" in text
        try:
            packed = inet_pton(AF_INET6 if is_ipv6 else AF_INET, text.partition("/")[0])
        except OSError:
            continue
        (ipv6 if is_ipv6 else ipv4)[packed] = None
    return Addresses(tuple(ipv4), tuple(ipv6))


def contribution_of(service: OverlayService) -> Contribution:
    """Return the names of a service and of its serving tasks; the service's own win over those of one task."""
    serving = [(endpoint, pack(endpoint.addresses)) for endpoint in service.endpoints if endpoint.serving]
    names: dict[bytes, Addresses] = {}
    reverse: dict[bytes, bytes] = {}
    for endpoint, addresses in serving:
        own_name = fold(endpoint.name)
        for name in dict.fromkeys((own_name, *map(fold, endpoint.aliases))) if endpoint.aliases else (own_name,):
            before = names.get(name)
            names[name] = addresses if before is None else merge(before, addresses)
        for packed in _both(addresses):
            reverse[packed] = own_name
    tasks = merge(*(addresses for _, addresses in serving))
    own = pack(service.virtual_ips) if service.virtual_ips else tasks
    folded = [fold(name) for name in service.names if name]
    for name in folded:
        names[name] = own
        names[TASKS_PREFIX + name] = tasks
    if folded and service.virtual_ips:
        reverse.update((packed, folded[0]) for packed in _both(own))
    return Contribution(names, reverse)


def _both(addresses: Addresses) -> tuple[bytes, ...]:
    return addresses.ipv4 + addresses.ipv6


def merge(*parts: Addresses) -> Addresses:
    """Return the addresses of all, each once."""
    return Addresses(
        tuple(dict.fromkeys(packed for part in parts for packed in part.ipv4)),
        tuple(dict.fromkeys(packed for part in parts for packed in part.ipv6)),
    )


class NetworkTable:
    """The names of a network; `update` brings it up to date, look-ups take folded names."""

    def __init__(self, overlay: Overlay) -> None:
        self._services: dict[str, OverlayService] = {}
        self._contributions: dict[str, Contribution] = {}
        self._names: dict[bytes, dict[str, Addresses]] = {}
        self._reverse: dict[bytes, dict[str, bytes]] = {}
        self._take(overlay)

    def _take(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.name = fold(overlay.name)
        networks = (ipaddress.ip_network(text, strict=False) for text in overlay.subnets)
        self._subnets = tuple(
            (network.version, int(network.network_address), int(network.netmask)) for network in networks
        )

    def update(self, update: OverlayUpdate) -> None:
        """Take a change of this network."""
        self._take(update.overlay)
        if update.complete:
            kept = {service.service_id for service in update.services}
            gone: Iterable[str] = [service_id for service_id in self._services if service_id not in kept]
        else:
            gone = update.removed_service_ids
        for service_id in gone:
            self._remove(service_id)
        for service in update.services:
            if self._services.get(service.service_id) != service:
                self._remove(service.service_id)
                self._add(service)

    def whole(self) -> OverlayUpdate:
        """Return all that is known of the network, as a change that is complete."""
        return OverlayUpdate(overlay=self.overlay, complete=True, services=tuple(self._services.values()))

    def find(self, name: bytes) -> Addresses | None:
        """Return the addresses of a name, None if the network does not know it."""
        found = self._names.get(name)
        if found is None:
            return None
        return merge(*found.values()) if len(found) > 1 else next(iter(found.values()))

    def name_of(self, packed: bytes) -> bytes | None:
        """Return a name of an address, with the network's appended; None: nobody's."""
        found = self._reverse.get(packed)
        return next(iter(found.values())) + b"." + self.name if found else None

    def covers(self, packed: bytes) -> bool:
        """Tell whether an address is of this network."""
        version, number = (4 if len(packed) == 4 else 6), int.from_bytes(packed, "big")
        return any(version == kind and number & mask == first for kind, first, mask in self._subnets)

    def _add(self, service: OverlayService) -> None:
        contribution = contribution_of(service)
        self._services[service.service_id] = service
        self._contributions[service.service_id] = contribution
        for name, addresses in contribution.names.items():
            self._names.setdefault(name, {})[service.service_id] = addresses
        for packed, name in contribution.reverse.items():
            self._reverse.setdefault(packed, {})[service.service_id] = name

    def _remove(self, service_id: str) -> None:
        if self._services.pop(service_id, None) is None:
            return
        contribution = self._contributions.pop(service_id)
        for name in contribution.names:
            _forget(self._names, name, service_id)
        for packed in contribution.reverse:
            _forget(self._reverse, packed, service_id)


def _forget(index: dict[bytes, dict[str, Addresses]] | dict[bytes, dict[str, bytes]], key: bytes, owner: str) -> None:
    owners = index[key]
    del owners[owner]
    if not owners:
        del index[key]
