"""Asking name servers for what no network of a container knows; what they answer is relayed as it is.

Each question goes out from a socket of its own, so that its port and its number are hard to guess. A server that fails
or stays silent is followed by the next. Knows nothing of who asks: the caller says in which namespace sockets are made.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from shoal.network.names import codec
from shoal.network.names.codec import Question

PORT = 53
# before a client loses patience (5 s with glibc) the next server has had its chance
ALL_SECONDS = 4.5
LEAST_SERVER_SECONDS = 1.5
MOST_SERVERS = 3
WITHOUT_RESOLV_CONF = ("127.0.0.1",)
_FAILED_CODES = (codec.FORMAT_ERROR, codec.SERVER_FAILURE, codec.NOT_IMPLEMENTED, codec.REFUSED)
_LENGTH = struct.Struct(">H")

MakeSocket = Callable[[int, int], socket.socket]


class HostServers:
    """The host's own name servers, read again when their file changes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._state: tuple[int, int, int] | None = None
        self._servers: tuple[str, ...] = ()

    def servers(self) -> tuple[str, ...]:
        """Return their addresses."""
        try:
            status = self._file.stat()
        except OSError:
            return WITHOUT_RESOLV_CONF
        state = (status.st_ino, status.st_mtime_ns, status.st_size)
        if state != self._state:
            self._servers = read_servers(self._file.read_text("utf-8", "replace"))
            self._state = state
        return self._servers


def read_servers(text: str) -> tuple[str, ...]:
    """Return the name servers of a resolv.conf, as many as a C library heeds; without any: the host itself."""
    words = (line.split() for line in text.splitlines())
    found = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
    return tuple(found[:MOST_SERVERS]) or WITHOUT_RESOLV_CONF


async def ask(
    query: bytes, question: Question, servers: Sequence[str], make_socket: MakeSocket, is_stream: bool
) -> bytes:
    """Return the answer of the first server that has one; a failure if none has.

    Args:
        query: as the container sent it.
        question: as it was cut.
        servers: addresses, in order.
        make_socket: makes a non-blocking socket of a family and kind.
        is_stream: ask by TCP, as the container did.
    """
    number = secrets.token_bytes(2)
    asked = number + query[2:]
    seconds = max(LEAST_SERVER_SECONDS, ALL_SECONDS / max(1, len(servers)))
    failure: bytes | None = None
    for server in servers[:MOST_SERVERS]:
        try:
            async with asyncio.timeout(seconds):
                exchange = _by_stream if is_stream else _by_datagram
                response = await exchange(asked, question, _address(server), make_socket)
        except (OSError, EOFError):  # TimeoutError is an OSError
            continue
        if codec.code_of(response) not in _FAILED_CODES:
            return query[:2] + response[2:]
        failure = failure or query[:2] + response[2:]
    return failure or codec.respond(query, question, codec.SERVER_FAILURE, (), codec.LEAST_UDP_BYTES)


def _address(server: str) -> tuple[int, tuple[object, ...]]:
    """Return family and address of a server given as a number. Raises OSError."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    family, _, _, _, address = socket.getaddrinfo(server, PORT, type=socket.SOCK_DGRAM, flags=flags)[0]
    return family, address


async def _by_datagram(
    query: bytes, question: Question, server: tuple[int, tuple[object, ...]], make_socket: MakeSocket
) -> bytes:
    loop = asyncio.get_running_loop()
    with make_socket(server[0], socket.SOCK_DGRAM) as channel:
        # connected: the kernel lets nobody else's datagrams in, and says when nobody listens
        channel.connect(server[1])
        channel.send(query)
        while True:
            response = await loop.sock_recv(channel, codec.MOST_TCP_BYTES)
            if codec.answers_query(response, query, question):
                return response


async def _by_stream(
    query: bytes, question: Question, server: tuple[int, tuple[object, ...]], make_socket: MakeSocket
) -> bytes:
    loop = asyncio.get_running_loop()
    with make_socket(server[0], socket.SOCK_STREAM) as channel:
        await loop.sock_connect(channel, server[1])
        await loop.sock_sendall(channel, _LENGTH.pack(len(query)) + query)
        (length,) = _LENGTH.unpack(await _receive(loop, channel, _LENGTH.size))
        response = await _receive(loop, channel, length)
        if not codec.answers_query(response, query, question):
            raise EOFError("the name server answers another question")
        return response


async def _receive(loop: asyncio.AbstractEventLoop, channel: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        data = await loop.sock_recv(channel, count - len(found))
        if not data:
            raise EOFError("the name server hung up")
        found += data
    return found
