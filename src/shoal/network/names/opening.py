"""Sockets and rules inside a container's network namespace: random ports, to which 127.0.0.11:53 is redirected.

So the container may bind port 53 itself. Every function enters the namespace and is back before it returns; the sockets
stay in it. Blocking, 1 ms; the calling thread is the resolver's only one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from shoal.network import namespace
from shoal.network.names.messages import LISTEN_ADDRESS, LISTEN_PORT
from shoal.network.netlink import ACK, APPEND, CREATE, EXCLUSIVE, NETFILTER, Socket, attribute, message, nest, text

TABLE, CHAIN = "shoal-dns", "output"
TCP_BACKLOG = 64
# the queries that wait while the process does something else; the kernel throws away what comes beyond
RECEIVE_BUFFER_BYTES = 1 << 18

# linux/netfilter/nfnetlink.h, nf_tables.h
_SUBSYSTEM, _BATCH_BEGIN, _BATCH_END = 10, 16, 17
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_HOOK_OUTPUT, _PRIORITY_DESTINATION_NAT = 3, -100
_REGISTER_1, _REGISTER_2 = 1, 2
_META_L4PROTO, _EQUAL, _NETWORK_HEADER, _TRANSPORT_HEADER, _DESTINATION_NAT = 16, 0, 1, 2, 1
_IPV4_DESTINATION_OFFSET, _PORT_DESTINATION_OFFSET = 16, 2


class Opened:
    """The two sockets of a container, and which namespace they are in."""

    def __init__(self, datagrams: socket.socket, streams: socket.socket, inode: int) -> None:
        self.datagrams = datagrams
        self.streams = streams
        self.inode = inode

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of UDP and TCP."""
        return self.datagrams.getsockname()[1], self.streams.getsockname()[1]

    def close(self) -> None:
        """Let go of the sockets, and with them of the namespace."""
        self.datagrams.close()
        self.streams.close()


def inode_of(path: str) -> int:
    """Return which namespace is bound to a file, 0: none."""
    try:
        return Path(path).stat().st_ino if namespace.exists(Path(path)) else 0
    except OSError:
        return 0


@contextlib.contextmanager
def _inside(path: str, home: int) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with namespace.inside(descriptor, home):
            yield
    finally:
        os.close(descriptor)


def open_in(path: str, home: int, ports: tuple[int, int]) -> Opened:
    """Make the sockets and rules of a container.

    Args:
        path: the file its namespace is bound to.
        home: the namespace to return to.
        ports: what the sockets had before: taken again if free, since flows of long-lived sockets are bound to them.
            Zero: any.

    Raises:
        OSError: the kernel refuses, or there is no such namespace.
    """
    inode = inode_of(path)
    if not inode:
        raise FileNotFoundError(f"no network namespace is bound to {path}")
    with contextlib.ExitStack() as on_failure, _inside(path, home):
        datagrams = on_failure.enter_context(_bind(socket.SOCK_DGRAM, ports[0]))
        datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        streams = on_failure.enter_context(_bind(socket.SOCK_STREAM, ports[1]))
        streams.listen(TCP_BACKLOG)
        opened = Opened(datagrams, streams, inode)
        _redirect(*opened.ports, may_be_there=opened.ports == ports)
        on_failure.pop_all()
    return opened


def remove_rules(path: str, home: int) -> None:
    """Take the rules of a container away. Raises OSError."""
    with _inside(path, home), contextlib.suppress(FileNotFoundError):
        _send([(_DELETE_TABLE, 0, _TABLE_NAME)])


def socket_in(path: str, home: int, family: int, kind: int) -> socket.socket:
    """Make a socket in a container's namespace. Raises OSError."""
    with _inside(path, home):
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def _bind(kind: int, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        if kind == socket.SOCK_STREAM:
            # else connections of the last resolver, which wait for their end, hold the port
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((LISTEN_ADDRESS, port))
        except OSError:
            if not port:
                raise
            made.bind((LISTEN_ADDRESS, 0))
    except OSError:
        made.close()
        raise
    return made


# -- rules, as one nfnetlink batch: applied whole or not at all

_Part = tuple[int, int, bytes]
_TABLE_NAME = attribute(1, text(TABLE))


def _redirect(udp_port: int, tcp_port: int, may_be_there: bool) -> None:
    """Make the rules; `may_be_there`: if there is a table it is one for these ports.

    To replace a table takes the kernel 10 ms and more (it waits for all readers), to make one a tenth of one.
    """
    rules = _rules(udp_port, tcp_port)
    try:
        _send([(_NEW_TABLE, CREATE | EXCLUSIVE, _TABLE_NAME), *rules])
    except FileExistsError:
        if not may_be_there:
            _send([(_DELETE_TABLE, 0, _TABLE_NAME), (_NEW_TABLE, CREATE, _TABLE_NAME), *rules])


def _rules(udp_port: int, tcp_port: int) -> list[_Part]:
    """Return what makes the rules `ip daddr 127.0.0.11 udp|tcp dport 53 dnat to 127.0.0.11:PORT`."""
    hook = nest(4, attribute(1, _big(_HOOK_OUTPUT)), attribute(2, struct.pack(">i", _PRIORITY_DESTINATION_NAT)))
    chain = _TABLE_NAME + attribute(3, text(CHAIN)) + hook + attribute(7, text("nat"))
    parts: list[_Part] = [(_NEW_CHAIN, CREATE, chain)]
    for protocol, port in ((socket.IPPROTO_UDP, udp_port), (socket.IPPROTO_TCP, tcp_port)):
        rule = _TABLE_NAME + attribute(2, text(CHAIN)) + nest(4, *_rule(protocol, port))
        parts.append((_NEW_RULE, CREATE | APPEND, rule))
    return parts


def _rule(protocol: int, port: int) -> tuple[bytes, ...]:
    address = socket.inet_aton(LISTEN_ADDRESS)
    return (
        *_payload_is(_NETWORK_HEADER, _IPV4_DESTINATION_OFFSET, address),
        _expression("meta", attribute(1, _big(_REGISTER_1)), attribute(2, _big(_META_L4PROTO))),
        _compare(bytes([protocol])),
        *_payload_is(_TRANSPORT_HEADER, _PORT_DESTINATION_OFFSET, struct.pack(">H", LISTEN_PORT)),
        _expression("immediate", attribute(1, _big(_REGISTER_1)), nest(2, attribute(1, address))),
        _expression("immediate", attribute(1, _big(_REGISTER_2)), nest(2, attribute(1, struct.pack(">H", port)))),
        _expression(
            "nat",
            attribute(1, _big(_DESTINATION_NAT)),
            attribute(2, _big(socket.AF_INET)),
            attribute(3, _big(_REGISTER_1)),
            attribute(5, _big(_REGISTER_2)),
        ),
    )


def _payload_is(base: int, offset: int, value: bytes) -> tuple[bytes, bytes]:
    load = _expression(
        "payload",
        attribute(1, _big(_REGISTER_1)),
        attribute(2, _big(base)),
        attribute(3, _big(offset)),
        attribute(4, _big(len(value))),
    )
    return load, _compare(value)


def _compare(value: bytes) -> bytes:
    return _expression("cmp", attribute(1, _big(_REGISTER_1)), attribute(2, _big(_EQUAL)), nest(3, attribute(1, value)))


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, attribute(1, text(name)), nest(2, *parts))


def _big(number: int) -> bytes:
    return struct.pack(">I", number)


def _send(parts: list[_Part]) -> None:
    """Apply parts as one batch in the namespace the thread is in."""
    frame = struct.pack(">BBH", 0, 0, _SUBSYSTEM)
    header = struct.pack(">BBH", socket.AF_INET, 0, 0)
    messages = [message(_BATCH_BEGIN, 0, frame, 1)]
    for sequence, (kind, flags, body) in enumerate(parts, 2):
        messages.append(message(_SUBSYSTEM << 8 | kind, flags, header + body, sequence))
    last = len(messages) + 1
    messages.append(message(_BATCH_END, ACK, frame, last))
    channel = Socket(NETFILTER)
    try:
        channel.send_batch(b"".join(messages), last)
    finally:
        channel.close()
