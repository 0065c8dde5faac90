"""Links, addresses and routes as rtnetlink messages. Encodes and decodes; decides nothing.

Numbers are those of linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from shoal.network.netlink import ACK, CREATE, EXCLUSIVE, REPLACE, Message, Socket, attribute, attributes, nest, text

NEWLINK, DELLINK, GETLINK, NEWADDR, DELADDR, GETADDR, NEWROUTE, DELROUTE, GETROUTE = 16, 17, 18, 20, 21, 22, 24, 25, 26
UP = 1
LINK_PARENT = 5
LINK_ADDRESS, LINK_NAME, LINK_MTU, LINK_MASTER, LINK_INFO, LINK_NAMESPACE_FD = 1, 3, 4, 10, 18, 28
INFO_KIND, INFO_DATA, INFO_SLAVE_KIND, INFO_SLAVE_DATA, VETH_PEER, BRIDGE_PORT_ISOLATED = 1, 2, 4, 5, 1, 33
BRIDGE_MULTICAST_SNOOPING = 23
MACVLAN_MODE, MACVLAN_MODES = 1, {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
TABLE_MAIN, PROTOCOL_STATIC, SCOPE_UNIVERSE, SCOPE_LINK, UNICAST = 254, 4, 0, 253, 1
ROUTE_DESTINATION, ROUTE_DEVICE, ROUTE_GATEWAY = 1, 4, 5
LOOPBACK_INDEX = 1
NO_DUPLICATE_DETECTION = 0x02
EXISTS_IS_FINE = (errno.EEXIST,)
GONE_IS_FINE = (errno.ENODEV, errno.ESRCH, errno.ENOENT, errno.EADDRNOTAVAIL)


def mac_of(address: str) -> bytes:
    """Return the MAC of an IPv4 address as Docker derives it: a reused address then never meets a stale neighbour."""
    return b"\x02\x42" + socket.inet_aton(address)


def _link_body(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 0, index, flags, change)


def add_bridge(name: str, mac: bytes, mtu_bytes: int = 0) -> Message:
    """A bridge that is up, with a MAC that does not change as ports come and go; multicast goes to every port."""
    body = _link_body(0, UP, UP) + attribute(LINK_NAME, text(name)) + attribute(LINK_ADDRESS, mac)
    if mtu_bytes:
        body += attribute(LINK_MTU, struct.pack("=I", mtu_bytes))
    info = attribute(INFO_KIND, text("bridge")) + nest(INFO_DATA, attribute(BRIDGE_MULTICAST_SNOOPING, b"\0"))
    return Message(NEWLINK, CREATE | EXCLUSIVE, body + nest(LINK_INFO, info), EXISTS_IS_FINE)


def add_veth(
    name: str,
    peer_name: str,
    peer_namespace: int,
    mtu_bytes: int,
    peer_mac: bytes | None = None,
    bridge_index: int = 0,
) -> Message:
    """A pair of links: `name` here (up, on a bridge if one is given), its peer in the namespace of a descriptor."""
    mtu = attribute(LINK_MTU, struct.pack("=I", mtu_bytes))
    peer = _link_body() + attribute(LINK_NAME, text(peer_name)) + mtu
    peer += attribute(LINK_NAMESPACE_FD, struct.pack("=I", peer_namespace))
    if peer_mac is not None:
        peer += attribute(LINK_ADDRESS, peer_mac)
    body = _link_body(0, UP, UP) + attribute(LINK_NAME, text(name)) + mtu
    if bridge_index:
        body += attribute(LINK_MASTER, struct.pack("=I", bridge_index))
    info = attribute(INFO_KIND, text("veth")) + nest(INFO_DATA, attribute(VETH_PEER, peer))
    return Message(NEWLINK, CREATE | EXCLUSIVE, body + nest(LINK_INFO, info))


def add_macvlan(
    name: str, parent_index: int, mode: str, target_namespace: int, mac: bytes, mtu_bytes: int = 0
) -> Message:
    """A link on a parent of this namespace, for the namespace of a descriptor; `mtu_bytes` 0: the parent's."""
    body = _link_body() + attribute(LINK_NAME, text(name)) + attribute(LINK_PARENT, struct.pack("=I", parent_index))
    if mode != "passthru":
        body += attribute(LINK_ADDRESS, mac)
    body += attribute(LINK_NAMESPACE_FD, struct.pack("=I", target_namespace))
    if mtu_bytes:
        body += attribute(LINK_MTU, struct.pack("=I", mtu_bytes))
    data = nest(INFO_DATA, attribute(MACVLAN_MODE, struct.pack("=I", MACVLAN_MODES[mode])))
    return Message(NEWLINK, CREATE | EXCLUSIVE, body + nest(LINK_INFO, attribute(INFO_KIND, text("macvlan")), data))


def add_wireguard(name: str, mtu_bytes: int) -> Message:
    """A WireGuard link of the kernel's own."""
    body = _link_body() + attribute(LINK_NAME, text(name)) + attribute(LINK_MTU, struct.pack("=I", mtu_bytes))
    return Message(NEWLINK, CREATE | EXCLUSIVE, body + nest(LINK_INFO, attribute(INFO_KIND, text("wireguard"))))


def isolate_port(name: str) -> Message:
    """Keep a bridge port from talking to other isolated ports (docker_gwbridge has inter-container traffic off)."""
    slave = nest(INFO_SLAVE_DATA, attribute(BRIDGE_PORT_ISOLATED, b"\x01"))
    info = nest(LINK_INFO, attribute(INFO_SLAVE_KIND, text("bridge")), slave)
    return Message(NEWLINK, 0, _link_body() + attribute(LINK_NAME, text(name)) + info)


def set_up(index: int) -> Message:
    """Bring a link up."""
    return Message(NEWLINK, 0, _link_body(index, UP, UP))


def set_mtu(index: int, mtu_bytes: int) -> Message:
    """Say how long the packets of a link may be."""
    return Message(NEWLINK, 0, _link_body(index) + attribute(LINK_MTU, struct.pack("=I", mtu_bytes)))


def delete_link(name: str) -> Message:
    """Delete a link by name; that there is none is fine."""
    return Message(DELLINK, 0, _link_body() + attribute(LINK_NAME, text(name)), GONE_IS_FINE)


def add_address(index: int, address: str, prefix_bits: int) -> Message:
    """Give a link an address (IPv4 or IPv6; it may be used at once: no duplicate is looked for)."""
    raw = ipaddress.ip_address(address).packed
    family, flags = (socket.AF_INET, 0) if len(raw) == 4 else (socket.AF_INET6, NO_DUPLICATE_DETECTION)
    body = struct.pack("=BBBBI", family, prefix_bits, flags, 0, index) + attribute(1, raw) + attribute(2, raw)
    return Message(NEWADDR, CREATE | REPLACE, body, EXISTS_IS_FINE)


def delete_address(index: int, address: str, prefix_bits: int) -> Message:
    """Take an IPv4 address of a link away; that there is none is fine."""
    raw = socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, prefix_bits, 0, 0, index) + attribute(2, raw)
    return Message(DELADDR, 0, body, GONE_IS_FINE)


def _route_body(destination: str, prefix_bits: int, gateway: str | None, index: int) -> bytes:
    scope = SCOPE_UNIVERSE if gateway else SCOPE_LINK
    family = socket.AF_INET6 if ":" in (gateway or destination) else socket.AF_INET
    body = struct.pack("=BBBBBBBBI", family, prefix_bits, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, UNICAST, 0)
    if prefix_bits:
        body += attribute(ROUTE_DESTINATION, socket.inet_pton(family, destination))
    if gateway:
        body += attribute(ROUTE_GATEWAY, socket.inet_pton(family, gateway))
    return body + attribute(ROUTE_DEVICE, struct.pack("=I", index))


def set_route(destination: str, prefix_bits: int, index: int, gateway: str | None = None) -> Message:
    """Route a destination to a link, through a gateway if one is given."""
    return Message(NEWROUTE, CREATE | REPLACE, _route_body(destination, prefix_bits, gateway, index))


def set_default_route(index: int, gateway: str) -> Message:
    """Route everything else through a gateway."""
    return Message(NEWROUTE, CREATE | REPLACE, _route_body("", 0, gateway, index))


def delete_route(destination: str, prefix_bits: int, index: int, gateway: str | None = None) -> Message:
    """Take a route away; that there is none is fine."""
    return Message(DELROUTE, 0, _route_body(destination, prefix_bits, gateway, index), GONE_IS_FINE)


def link_index(channel: Socket, name: str) -> int:
    """Return the index of a link, 0 if there is none."""
    answer = channel.ask(GETLINK, _link_body() + attribute(LINK_NAME, text(name)))
    return 0 if answer is None else int(struct.unpack_from("=i", answer, 4)[0])


def routed_networks(channel: Socket, except_indexes: frozenset[int]) -> list[ipaddress.IPv4Network]:
    """Return the destinations of the main table, without default routes and without routes of some links."""
    networks = []
    for body in channel.dump(GETROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        prefix_bits, table = body[1], body[4]
        values = dict(attributes(body[12:]))
        device = struct.unpack("=I", values[ROUTE_DEVICE])[0] if ROUTE_DEVICE in values else 0
        if table == TABLE_MAIN and prefix_bits and device not in except_indexes and ROUTE_DESTINATION in values:
            networks.append(ipaddress.IPv4Network((values[ROUTE_DESTINATION], prefix_bits)))
    return networks


__all__ = [
    "ACK",
    "LOOPBACK_INDEX",
    "add_address",
    "add_bridge",
    "add_macvlan",
    "add_veth",
    "add_wireguard",
    "delete_address",
    "delete_link",
    "delete_route",
    "isolate_port",
    "link_index",
    "mac_of",
    "routed_networks",
    "set_default_route",
    "set_mtu",
    "set_route",
    "set_up",
]
