"""What VXLAN travels over: whether an address is this host's, and how long packets between nodes may be.

Only asks; changes nothing. Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import ipaddress
import socket
import struct

from shoal.model.base import Struct
from shoal.network.netlink import Socket, attribute, attributes
from shoal.network.rtnetlink import GETADDR, GETLINK, GETROUTE, LINK_MTU, ROUTE_DESTINATION, ROUTE_DEVICE

ADDRESS_LOCAL, ADDRESS = 2, 1
VXLAN_BYTES = {4: 50, 6: 70}
USUAL_MTU_BYTES = 1500
LEAST_MTU_BYTES = 1280


class Underlay(Struct):
    """`local`: the address that packets to other nodes carry, None if it is no link's. `mtu_bytes`: of an overlay."""

    local: str | None
    mtu_bytes: int


def look(channel: Socket, own: str | None, peers: tuple[str, ...]) -> Underlay:
    """Find the link between the nodes: the one that has the own address, else the one that leads to a peer.

    Args:
        channel: a routing socket of the host's namespace.
        own: the address under which other nodes reach this one, which may be that of a translating router.
        peers: addresses of other nodes.
    """
    index = index_with_address(channel, own) if own else 0
    local = own if index else None
    for peer in peers:
        if not index:
            index = _index_towards(channel, peer)
    mtu_bytes = _mtu_of(channel, index) if index else USUAL_MTU_BYTES
    reference = own or next(iter(peers), "0.0.0.0")  # noqa: S104 - stands for its family
    overhead = VXLAN_BYTES[4 if ipaddress.ip_address(reference).version == 4 else 6]
    return Underlay(local=local, mtu_bytes=max(mtu_bytes - overhead, LEAST_MTU_BYTES))


def index_with_address(channel: Socket, address: str) -> int:
    """Return the index of the link that has an address, 0 if none has."""
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    found = 0
    for body in channel.dump(GETADDR, struct.pack("=BBBBI", family, 0, 0, 0, 0)):
        values = dict(attributes(body[8:]))
        if values.get(ADDRESS_LOCAL, values.get(ADDRESS)) == packed:
            found = struct.unpack_from("=I", body, 4)[0]
    return found


def _index_towards(channel: Socket, address: str) -> int:
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    header = struct.pack("=BBBBBBBBI", family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    answer = channel.ask(GETROUTE, header + attribute(ROUTE_DESTINATION, packed))
    if answer is None:
        return 0
    device = dict(attributes(answer[12:])).get(ROUTE_DEVICE)
    return 0 if device is None else int(struct.unpack("=I", device)[0])


def _mtu_of(channel: Socket, index: int) -> int:
    answer = channel.ask(GETLINK, struct.pack("=BBHiII", 0, 0, 0, index, 0, 0))
    if answer is None:
        return USUAL_MTU_BYTES
    return int(struct.unpack("=I", dict(attributes(answer[16:]))[LINK_MTU])[0])
