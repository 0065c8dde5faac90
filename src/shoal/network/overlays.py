"""What is held of the overlay networks, how a change alters it, and what the kernel should make of it. Pure.

Two things follow from what is held: where tasks on other nodes are (Remote: entries of a network's sandbox), and which
addresses stand behind a virtual one (Balance: entries of every container's own namespace). dataplane.md 1 and 2.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping

from shoal.model.base import Struct, replace
from shoal.model.netstate import DataPath, NetworkChange, Overlay, OverlayService, OverlayUpdate
from shoal.network.rtnetlink import mac_of

RANDOM, SOURCE, PREFER_LOCAL = "random", "source", "prefer-local"


class HeldOverlay(Struct):
    """A network and the services on it, by id."""

    overlay: Overlay
    services: dict[str, OverlayService] = {}


class Holding(Struct):
    """All that is held, by network id."""

    version: int = 0
    data_path: DataPath = DataPath()
    overlays: dict[str, HeldOverlay] = {}


def merge(holding: Holding, change: NetworkChange) -> Holding:
    """Return what is held after a change. The change's version must not be lower than the one held."""
    named = {update.overlay.network_id for update in change.overlays}
    removed = set(change.removed_network_ids) - named
    overlays = {
        network_id: held
        for network_id, held in holding.overlays.items()
        # a network of this node alone is no manager's to tell of: `complete` leaves it
        if network_id in named or not ((change.complete and held.overlay.vni) or network_id in removed)
    }
    for update in change.overlays:
        overlays[update.overlay.network_id] = merge_overlay(overlays.get(update.overlay.network_id), update)
    return Holding(version=change.version, data_path=change.data_path or holding.data_path, overlays=overlays)


def merge_overlay(held: HeldOverlay | None, update: OverlayUpdate) -> HeldOverlay:
    """Return a network after a change."""
    before = held.services if held is not None else {}
    services = {} if update.complete else dict(before)
    for service_id in update.removed_service_ids:
        services.pop(service_id, None)
    for service in update.services:
        old = before.get(service.service_id)
        # the same object for the same content: what has not changed is then told apart at a glance
        services[service.service_id] = old if old == service else service
    return HeldOverlay(overlay=update.overlay, services=services)


def changed_services(
    before: HeldOverlay | None, after: HeldOverlay | None, update: OverlayUpdate | None = None
) -> tuple[list[OverlayService], list[OverlayService]]:
    """Return the services that differ, as they were and as they are.

    Args:
        before, after: a network.
        update: what led from one to the other, if one did: a difference says where to look.
    """
    if before is after:
        return [], []
    old = before.services if before is not None else {}
    new = after.services if after is not None else {}
    if update is None or update.complete:
        among: Iterable[str] = dict.fromkeys((*old, *new))
    else:
        among = dict.fromkeys((*(each.service_id for each in update.services), *update.removed_service_ids))
    differing = [id_ for id_ in among if old.get(id_) is not new.get(id_)]
    return [old[id_] for id_ in differing if id_ in old], [new[id_] for id_ in differing if id_ in new]


def is_ipv4(address: str) -> bool:
    """Tell the family of an address, CIDR or not."""
    return ":" not in address


def mac_of_addresses(addresses: Iterable[str]) -> bytes:
    """Return the MAC of a task's link: from its IPv4 address, as Docker derives it, else from a hash."""
    listed = [address.partition("/")[0] for address in addresses]
    for address in listed:
        if is_ipv4(address):
            return mac_of(address)
    return b"\x02\x43" + hashlib.sha256(ipaddress.ip_address(listed[0]).packed).digest()[:4]


class Remote(Struct):
    """A task on another node: its MAC, its addresses, and the host that carries it."""

    mac: bytes
    addresses: tuple[str, ...]
    host: str


def hosts_of(data_path: DataPath, node_number: int) -> dict[int, str]:
    """Return the addresses of the other nodes by number."""
    return {peer.node_number: peer.address for peer in data_path.peers if peer.node_number != node_number}


def own_address(data_path: DataPath, node_number: int) -> str | None:
    """Return the address under which other nodes reach this one, None if it is not known."""
    return next((peer.address for peer in data_path.peers if peer.node_number == node_number), None)


def remotes_of(services: Iterable[OverlayService], hosts: Mapping[int, str]) -> dict[bytes, Remote]:
    """Return the tasks that other nodes carry, by MAC; one whose node is not known is left out."""
    found = {}
    for service in services:
        for endpoint in service.endpoints:
            host = hosts.get(endpoint.node_number)
            if host is not None and endpoint.addresses:
                mac = mac_of_addresses(endpoint.addresses)
                found[mac] = Remote(mac=mac, addresses=endpoint.addresses, host=host)
    return found


class Balance(Struct):
    """The addresses behind a virtual one; with none it refuses. The order is that of the kernel's entries."""

    virtual_ip: str
    addresses: tuple[str, ...] = ()
    is_by_source: bool = False


def balances_of(services: Iterable[OverlayService], node_number: int) -> dict[str, Balance]:
    """Return what stands behind each virtual address, as the node of this number balances it."""
    found = {}
    for service in services:
        serving = [endpoint for endpoint in service.endpoints if endpoint.serving]
        if service.affinity == PREFER_LOCAL:
            serving = [endpoint for endpoint in serving if endpoint.node_number == node_number] or serving
        reached = [address for endpoint in serving for address in endpoint.addresses]
        for virtual_ip in service.virtual_ips:
            family = is_ipv4(virtual_ip)
            found[virtual_ip] = Balance(
                virtual_ip=virtual_ip,
                addresses=tuple(dict.fromkeys(address for address in reached if is_ipv4(address) == family)),
                is_by_source=service.affinity == SOURCE,
            )
    return found


def in_order_of(before: Balance | None, wanted: Balance) -> Balance:
    """Return `wanted` in the order that differs least from what the kernel has: the last takes a gap, new ones append.

    One backend more or less is then a few entries, among a thousand backends too.
    """
    if before is None:
        return wanted
    keep, had = set(wanted.addresses), set(before.addresses)
    order = list(before.addresses)
    place = 0
    while place < len(order):
        if order[place] in keep:
            place += 1
            continue
        last = order.pop()
        if place < len(order):
            order[place] = last
    order += [address for address in wanted.addresses if address not in had]
    return replace(wanted, addresses=tuple(order))


class Cuts(Struct):
    """Flows to forget in the namespaces of clients.

    `withdrawn`: (virtual address, backend) whose UDP flows move on; their TCP flows drain. `gone`: addresses of tasks
    that are no more, every flow.
    """

    withdrawn: frozenset[tuple[str, str]] = frozenset()
    gone: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Nothing to cut."""
        return not (self.withdrawn or self.gone)


def cuts_between(
    was: Iterable[OverlayService],
    now: Iterable[OverlayService],
    before: Mapping[str, Balance],
    after: Mapping[str, Balance],
) -> Cuts:
    """Return the flows that end as services (`was`, `now`) and what stands behind their virtual addresses change."""
    withdrawn = set()
    for virtual_ip, balance in before.items():
        kept = after[virtual_ip].addresses if virtual_ip in after else ()
        withdrawn |= {(virtual_ip, address) for address in set(balance.addresses) - set(kept)}
    return Cuts(withdrawn=frozenset(withdrawn), gone=frozenset(_addresses(was) - _addresses(now)))


def _addresses(services: Iterable[OverlayService]) -> set[str]:
    return {address for service in services for endpoint in service.endpoints for address in endpoint.addresses}
