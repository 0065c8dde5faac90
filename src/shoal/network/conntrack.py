"""Cutting UDP flows out of connection tracking, over raw ctnetlink (the `conntrack` program is not needed).

Numbers are those of linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from shoal.model.base import Struct
from shoal.network.netlink import NESTED, Message, Socket, attribute, attributes

SUBSYSTEM, GET, DELETE = 1, 1, 2
TUPLE_ORIGINAL, TUPLE_REPLY, STATUS, IDENTITY, ZONE = 1, 2, 3, 12, 18
SEEN_REPLY = 2
TUPLE_ADDRESSES, TUPLE_PROTOCOL = 1, 2
ADDRESS_SOURCE, PROTOCOL_NUMBER, PORT_SOURCE, PORT_DESTINATION = 1, 1, 2, 3
UDP = 17
DELETIONS_PER_SEND = 64


class Flow(Struct):
    """A tracked UDP flow: the port it was sent to, the address that is to answer it, and whether it has."""

    destination_port: int
    answering_address: str
    is_answered: bool


def _tuple(data: bytes) -> tuple[dict[int, bytes], dict[int, bytes]]:
    parts = dict(attributes(data))
    return dict(attributes(parts.get(TUPLE_ADDRESSES, b""))), dict(attributes(parts.get(TUPLE_PROTOCOL, b"")))


def cut_udp(channel: Socket, is_stale: Callable[[Flow], bool]) -> int:
    """Forget the UDP flows that are stale; return how many."""
    header = struct.pack(">BBH", socket.AF_INET, 0, 0)
    deletions = []
    for body in channel.dump(SUBSYSTEM << 8 | GET, header):
        values = dict(attributes(body[4:]))
        _, protocol = _tuple(values[TUPLE_ORIGINAL])
        if protocol.get(PROTOCOL_NUMBER, b"\0")[0] != UDP or PORT_DESTINATION not in protocol:
            continue
        answering, _ = _tuple(values[TUPLE_REPLY])
        flow = Flow(
            destination_port=struct.unpack(">H", protocol[PORT_DESTINATION])[0],
            answering_address=socket.inet_ntoa(answering[ADDRESS_SOURCE]),
            is_answered=bool(struct.unpack(">I", values[STATUS])[0] & SEEN_REPLY),
        )
        if not is_stale(flow):
            continue
        request = header + attribute(TUPLE_ORIGINAL | NESTED, values[TUPLE_ORIGINAL])
        for kind in (ZONE, IDENTITY):
            if kind in values:
                request += attribute(kind, values[kind])
        deletions.append(Message(SUBSYSTEM << 8 | DELETE, 0, request, (errno.ENOENT,)))
    for first in range(0, len(deletions), DELETIONS_PER_SEND):
        channel.talk(deletions[first : first + DELETIONS_PER_SEND])
    return len(deletions)
