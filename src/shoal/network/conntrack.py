"""Cutting flows out of connection tracking, over raw ctnetlink (the `conntrack` program is not needed).

Numbers are those of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from shoal.model.base import Struct
from shoal.network.netlink import NESTED, Message, Socket, attribute, attributes

SUBSYSTEM, GET, DELETE, GET_STATISTICS = 1, 1, 2, 5
TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, IDENTITY, ZONE = 1, 2, 3, 12, 18
SEEN_REPLY = 2
TUPLE_ADDRESSES, TUPLE_PROTOCOL = 1, 2
ADDRESS_SOURCE, ADDRESS_DESTINATION, ADDRESS_6_SOURCE, ADDRESS_6_DESTINATION = 1, 2, 3, 4
PROTOCOL_NUMBER, PORT_DESTINATION = 1, 3
STATISTICS_ENTRIES = 1
TCP, UDP = 6, 17
DELETIONS_PER_SEND = 64


class Flow(Struct):
    """A tracked flow: where it was sent to (port 0 if it has none), who is to answer it, and whether it has."""

    protocol: int
    destination_address: str
    destination_port: int
    answering_address: str
    is_answered: bool


def _tuple(data: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    parts = dict(attributes(data))
    return dict(attributes(parts.get(TUPLE_ADDRESSES, b""))), dict(attributes(parts.get(TUPLE_PROTOCOL, b"")))


def _address(addresses: dict[int, bytes], kind: int, kind_6: int) -> str:
    if kind in addresses:
        return socket.inet_ntop(socket.AF_INET, addresses[kind])
    return socket.inet_ntop(socket.AF_INET6, addresses[kind_6])


def count(channel: Socket) -> int:
    """Return how many flows the namespace tracks: cheap, whereas a look at them walks those of every namespace."""
    answer = channel.ask(SUBSYSTEM << 8 | GET_STATISTICS, struct.pack(">BBH", socket.AF_UNSPEC, 0, 0))
    if answer is None:
        return 1
    entries = dict(attributes(answer[4:])).get(STATISTICS_ENTRIES)
    return 1 if entries is None else int(struct.unpack(">I", entries)[0])


def cut_udp(channel: Socket, is_stale: Callable[[Flow], bool]) -> int:
    """Forget the UDP flows over IPv4 that are stale; return how many."""
    return cut(channel, lambda flow: flow.protocol == UDP and is_stale(flow), socket.AF_INET)


def cut(channel: Socket, is_stale: Callable[[Flow], bool], family: int = socket.AF_UNSPEC) -> int:
    """Forget the flows that are stale, of one family or of both; return how many."""
    if not count(channel):
        return 0
    deletions = []
    for body in channel.dump(SUBSYSTEM << 8 | GET, struct.pack(">BBH", family, 0, 0)):
        values = dict(attributes(body[4:]))
        addresses, protocol = _tuple(values[TUPLE_ORIGINAL])
        answering, _ = _tuple(values[TUPLE_REPLY])
        port = protocol.get(PORT_DESTINATION)
        flow = Flow(
            protocol=protocol.get(PROTOCOL_NUMBER, b"\0")[0],
            destination_address=_address(addresses, ADDRESS_DESTINATION, ADDRESS_6_DESTINATION),
            destination_port=0 if port is None else struct.unpack(">H", port)[0],
            answering_address=_address(answering, ADDRESS_SOURCE, ADDRESS_6_SOURCE),
            is_answered=bool(struct.unpack(">I", values[STATUS])[0] & SEEN_REPLY),
        )
        if not is_stale(flow):
            continue
        # the family of the message itself: IPv4 or IPv6
        request = body[:1] + bytes(3) + attribute(TUPLE_ORIGINAL | NESTED, values[TUPLE_ORIGINAL])
        for kind in (ZONE, IDENTITY):
            if kind in values:
                request += attribute(kind, values[kind])
        deletions.append(Message(SUBSYSTEM << 8 | DELETE, 0, request, (errno.ENOENT,)))
    for first in range(0, len(deletions), DELETIONS_PER_SEND):
        channel.talk(deletions[first : first + DELETIONS_PER_SEND])
    return len(deletions)
