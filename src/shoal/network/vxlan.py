"""VXLAN links, their forwarding tables and fixed neighbours as rtnetlink messages. Encodes; knows no network or node.

Numbers are those of linux/if_link.h and linux/neighbour.h. Nothing is learnt and nothing is flooded: what these entries
do not name is dropped.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

from shoal.errors import Unavailable
from shoal.network.netlink import CREATE, EXCLUSIVE, REPLACE, Message, Socket, attribute, nest, text
from shoal.network.rtnetlink import (
    GONE_IS_FINE,
    INFO_DATA,
    INFO_KIND,
    LINK_ADDRESS,
    LINK_INFO,
    LINK_MASTER,
    LINK_MTU,
    LINK_NAME,
    LINK_NAMESPACE_FD,
    NEWLINK,
    UP,
)

VXLAN_ID, VXLAN_LOCAL, VXLAN_TTL, VXLAN_LEARNING, VXLAN_PROXY, VXLAN_PORT, VXLAN_LOCAL_6 = 1, 4, 5, 7, 11, 15, 17
NEWNEIGHBOUR, DELNEIGHBOUR, GETNEIGHBOUR = 28, 29, 30
NEIGHBOUR_DESTINATION, NEIGHBOUR_ADDRESS = 1, 2
STATE_STATIC, STATE_PERMANENT = 0x40, 0x80
FLAG_SELF, FLAG_MASTER = 0x02, 0x04
TIME_TO_LIVE = 64


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def add_vxlan(
    name: str,
    vni: int,
    port: int,
    namespace: int,
    mtu_bytes: int,
    local: str | None = None,
    mac: bytes | None = None,
    proxy: bool = False,
    index: int = 0,
    bridge_index: int = 0,
) -> Message:
    """A VXLAN link that is up, in one step: its UDP socket here, the link itself in the namespace of a descriptor.

    Args:
        name: of the link, in its namespace.
        vni: 1 to 16,777,215.
        port: UDP, of every node.
        namespace: a descriptor of the namespace for the link.
        mtu_bytes: 50 less than what the path between the nodes carries.
        local: the source address of what is sent; None: as the route says. An IPv6 one makes it a VXLAN over IPv6.
        mac: of the link; None: a random one.
        proxy: answer ARP and neighbour solicitation from the fixed neighbours, sending nothing.
        index: of the link, in its namespace; 0: the next.
        bridge_index: a bridge there to put the link on.
    """
    data = [
        attribute(VXLAN_ID, struct.pack("=I", vni)),
        attribute(VXLAN_PORT, struct.pack(">H", port)),
        attribute(VXLAN_TTL, bytes([TIME_TO_LIVE])),
        attribute(VXLAN_LEARNING, b"\0"),
        attribute(VXLAN_PROXY, bytes([proxy])),
    ]
    if local is not None:
        packed = _packed(local)
        data.append(attribute(VXLAN_LOCAL if len(packed) == 4 else VXLAN_LOCAL_6, packed))
    body = struct.pack("=BBHiII", 0, 0, 0, index, UP, UP) + attribute(LINK_NAME, text(name))
    body += attribute(LINK_MTU, struct.pack("=I", mtu_bytes))
    body += attribute(LINK_NAMESPACE_FD, struct.pack("=I", namespace))
    if mac is not None:
        body += attribute(LINK_ADDRESS, mac)
    if bridge_index:
        body += attribute(LINK_MASTER, struct.pack("=I", bridge_index))
    info = nest(LINK_INFO, attribute(INFO_KIND, text("vxlan")), nest(INFO_DATA, *data))
    return Message(NEWLINK, CREATE | EXCLUSIVE, body + info)


def create(channel: Socket, link: Message, vni: int, port: int) -> None:
    """Send `add_vxlan`'s message through a socket of the namespace where its UDP socket is to be.

    The link's name must be free in its namespace.

    Raises:
        Unavailable: another VXLAN of this identifier and port, or another program on the port.
        OSError: the kernel refuses for another reason.
    """
    try:
        channel.talk([link])
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise Unavailable(
                f"a VXLAN with identifier {vni} on UDP port {port} exists already in the daemon's network namespace: "
                "another daemon of the swarm, or a Docker Engine, uses it; give each a network namespace of its own or "
                "the swarm another data path port"
            ) from error
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(
                f"UDP port {port} is taken by another program: stop it, or give the swarm another data path port"
            ) from error
        raise


def _neighbour(family: int, index: int, state: int, flags: int, *parts: bytes) -> bytes:
    return struct.pack("=BBHiHBB", family, 0, 0, index, state, flags, 0) + b"".join(parts)


def set_remote(index: int, mac: bytes, host: str) -> Message:
    """Send frames for a MAC to a host (`bridge fdb replace MAC dev … dst HOST self permanent`)."""
    parts = attribute(NEIGHBOUR_ADDRESS, mac), attribute(NEIGHBOUR_DESTINATION, _packed(host))
    body = _neighbour(socket.AF_BRIDGE, index, STATE_PERMANENT, FLAG_SELF, *parts)
    return Message(NEWNEIGHBOUR, CREATE | REPLACE, body)


def delete_remote(index: int, mac: bytes) -> Message:
    """Take `set_remote` back; that there is none is fine."""
    body = _neighbour(socket.AF_BRIDGE, index, STATE_PERMANENT, FLAG_SELF, attribute(NEIGHBOUR_ADDRESS, mac))
    return Message(DELNEIGHBOUR, 0, body, GONE_IS_FINE)


def set_port(index: int, mac: bytes) -> Message:
    """Make the bridge send frames for a MAC to its port (`bridge fdb replace MAC dev … master static`)."""
    body = _neighbour(socket.AF_BRIDGE, index, STATE_STATIC, FLAG_MASTER, attribute(NEIGHBOUR_ADDRESS, mac))
    return Message(NEWNEIGHBOUR, CREATE | REPLACE, body)


def delete_port(index: int, mac: bytes) -> Message:
    """Take `set_port` back; that there is none is fine."""
    body = _neighbour(socket.AF_BRIDGE, index, STATE_STATIC, FLAG_MASTER, attribute(NEIGHBOUR_ADDRESS, mac))
    return Message(DELNEIGHBOUR, 0, body, GONE_IS_FINE)


def set_neighbour(index: int, address: str, mac: bytes) -> Message:
    """Fix the MAC of an address (IPv4 or IPv6) on a link (`ip neigh replace … nud permanent`)."""
    packed = _packed(address)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    parts = attribute(NEIGHBOUR_DESTINATION, packed), attribute(NEIGHBOUR_ADDRESS, mac)
    return Message(NEWNEIGHBOUR, CREATE | REPLACE, _neighbour(family, index, STATE_PERMANENT, 0, *parts))


def delete_neighbour(index: int, address: str) -> Message:
    """Take `set_neighbour` back; that there is none is fine."""
    packed = _packed(address)
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    body = _neighbour(family, index, 0, 0, attribute(NEIGHBOUR_DESTINATION, packed))
    return Message(DELNEIGHBOUR, 0, body, GONE_IS_FINE)
