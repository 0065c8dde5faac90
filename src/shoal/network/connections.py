"""The TCP connections that reach a container, as its kernel tells them (sock_diag(7), linux/inet_diag.h).

Knows nothing of tasks: what the connections mean for a stop is `core/draining.py`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from shoal.model.netstate import Connection
from shoal.network.netlink import Socket, attributes

SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
INFO = 2
ESTABLISHED, CLOSE_WAIT, LISTEN = 1, 8, 10
STATES = 1 << ESTABLISHED | 1 << CLOSE_WAIT | 1 << LISTEN
# struct inet_diag_req_v2, and the start of struct inet_diag_msg up to the destination port
_REQUEST = struct.Struct("=BBBxI48x")
_FOUND = struct.Struct("=BBBB")
_PORTS = struct.Struct(">HH")
_FOUND_BYTES = 72
# struct tcp_info: last_data_sent, last_data_recv (milliseconds), then bytes_acked and bytes_received
_INFO = struct.Struct("=44xI4xI64xQQ")


def inbound(channel: Socket) -> tuple[Connection, ...]:
    """Return the connections that others have opened to what listens in a namespace.

    Args:
        channel: a SOCK_DIAG socket of the namespace.

    Raises:
        OSError: the kernel refuses.
    """
    listening: set[int] = set()
    open_: list[tuple[int, Connection]] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for state, port, values in _sockets(channel, family):
            if state == LISTEN:
                listening.add(port)
                continue
            info = values.get(INFO, b"")
            if len(info) < _INFO.size:
                continue
            sent_ms, received_ms, acknowledged, received = _INFO.unpack_from(info)
            connection = Connection(
                since_sent_ms=sent_ms,
                since_received_ms=received_ms,
                acknowledged_bytes=acknowledged,
                received_bytes=received,
            )
            open_.append((port, connection))
    return tuple(connection for port, connection in open_ if port in listening)


def _sockets(channel: Socket, family: int) -> Iterator[tuple[int, int, dict[int, bytes]]]:
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (INFO - 1), STATES)
    for body in channel.dump(SOCK_DIAG_BY_FAMILY, request):
        state = _FOUND.unpack_from(body)[1]
        port = _PORTS.unpack_from(body, _FOUND.size)[0]
        yield state, port, dict(attributes(body[_FOUND_BYTES:]))
