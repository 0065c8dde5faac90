"""Reading back what the kernel holds of the link between nodes: how it was made, whom it knows, what it leads to."""

from __future__ import annotations

import ipaddress
import socket
import struct

from shoal.model.base import Struct
from shoal.network import routing
from shoal.network.mesh_state import MeshLink, MeshState, node_of_mac
from shoal.network.netlink import Socket, attribute, attributes, text
from shoal.network.rtnetlink import GETLINK, INFO_DATA, LINK_ADDRESS, LINK_INFO, LINK_MTU, LINK_NAME
from shoal.network.vxlan import (
    GETNEIGHBOUR,
    NEIGHBOUR_ADDRESS,
    NEIGHBOUR_DESTINATION,
    VXLAN_ID,
    VXLAN_LOCAL,
    VXLAN_LOCAL_6,
    VXLAN_PORT,
)

LINK_HEADER_BYTES, NEIGHBOUR_HEADER_BYTES = 16, 12


class FoundLink(Struct):
    """A VXLAN link as the kernel shows it; `local` None: as the route says."""

    index: int
    mac: bytes
    vni: int
    port: int
    local: str | None
    mtu_bytes: int


def read(channel: Socket, name: str) -> FoundLink | None:
    """Return a VXLAN link by name, None if there is none."""
    header = struct.pack("=BBHiII", 0, 0, 0, 0, 0, 0)
    answer = channel.ask(GETLINK, header + attribute(LINK_NAME, text(name)))
    if answer is None:
        return None
    values = dict(attributes(answer[LINK_HEADER_BYTES:]))
    made = dict(attributes(dict(attributes(values.get(LINK_INFO, b""))).get(INFO_DATA, b"")))
    local = made.get(VXLAN_LOCAL) or made.get(VXLAN_LOCAL_6)
    address = None if local is None else ipaddress.ip_address(local)
    return FoundLink(
        index=struct.unpack_from("=i", answer, 4)[0],
        mac=values.get(LINK_ADDRESS, b""),
        vni=struct.unpack("=I", made.get(VXLAN_ID, bytes(4)))[0],
        port=struct.unpack(">H", made.get(VXLAN_PORT, bytes(2)))[0],
        local=None if address is None or address.is_unspecified else str(address),
        mtu_bytes=struct.unpack("=I", values.get(LINK_MTU, bytes(4)))[0],
    )


def read_state(channel: Socket, index: int, link: MeshLink, network: str) -> MeshState:
    """Return the nodes and routes of the link with an index. A node without its neighbour entry does not count."""
    first = int(ipaddress.IPv4Network(network).network_address)
    known = {
        node_of_mac(mac): destination
        for mac, destination in _neighbours(channel, socket.AF_BRIDGE, index)
        if node_of_mac(mac)
    }
    fixed = {node_of_mac(mac) for mac, _ in _neighbours(channel, socket.AF_INET, index)}
    routes = {
        address: int(ipaddress.IPv4Address(gateway)) - first
        for address, gateway in routing.routes_through(channel, index)
    }
    return MeshState(
        link=link, remotes={number: host for number, host in known.items() if number in fixed}, routes=routes
    )


def _neighbours(channel: Socket, family: int, index: int) -> list[tuple[bytes, str]]:
    """Return MAC and address of all entries of a link: of its forwarding table (AF_BRIDGE) or its neighbours."""
    found = []
    for body in channel.dump(GETNEIGHBOUR, struct.pack("=BBHiHBB", family, 0, 0, 0, 0, 0, 0)):
        values = dict(attributes(body[NEIGHBOUR_HEADER_BYTES:]))
        is_whole = {NEIGHBOUR_ADDRESS, NEIGHBOUR_DESTINATION} <= values.keys()
        if is_whole and body[0] == family and struct.unpack_from("=i", body, 4)[0] == index:
            raw = values[NEIGHBOUR_DESTINATION]
            found.append((values[NEIGHBOUR_ADDRESS], str(ipaddress.ip_address(raw))))
    return found
