"""Passing what comes to a port on IPv6 on to an IPv4 address: TCP connections and UDP datagrams, on one event loop.

Knows nothing of tasks or the mesh. Part of the proxy process: the standard library only, so that it stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import OrderedDict
from typing import Any, cast

BACKLOG = 512
DATAGRAM_BYTES = 65_535
DATAGRAMS_A_TURN = 64
UDP_IDLE_SECONDS = 120.0
MOST_UDP_FLOWS = 4096
CONNECT_SECONDS = 10.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# linux/ipv6.h; Python has names for them only where the C library does
IPV6_RECVPKTINFO, IPV6_PKTINFO = 49, 50

Target = tuple[str, int]


def listening_socket(kind: socket.SocketKind, port: int) -> socket.socket:
    """Return a socket on every IPv6 address of this host, and on no IPv4 one. Raises OSError."""
    made = socket.socket(socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            made.listen(BACKLOG)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
    except OSError:
        made.close()
        raise
    return made


class _Half(asyncio.Protocol):
    """One end of a connection that is passed on; what comes goes to the other end, no faster than that takes it."""

    def __init__(self) -> None:
        self.other: _Half | None = None
        self.transport: asyncio.Transport | None = None
        self._has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        self._has_ended = True
        other = self.other
        if other is None or other.transport is None or other._has_ended:
            # closing writes what is left; `connection_lost` closes the other end
            return False
        with contextlib.suppress(OSError, RuntimeError):
            other.transport.write_eof()
        # the other direction may go on
        return True

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            other.other = None
            if error is not None:
                reset(other.transport)
            else:
                other.transport.close()


def reset(transport: asyncio.Transport) -> None:
    """End a connection so that the peer sees that it failed."""
    made = transport.get_extra_info("socket")
    if made is not None:
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    transport.abort()


class _Accepted(_Half):
    """The client's end: waits, unread, until the target takes the connection."""

    def __init__(self, forward: TcpForward) -> None:
        super().__init__()
        self._forward = forward

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("asyncio.Transport", transport).pause_reading()
        self._forward.begin(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._forward.flows.discard(self)


class TcpForward:
    """A port whose connections are passed on to `target`. Connections outlive `close`, as under the mesh."""

    def __init__(self, port: int, target: Target) -> None:
        self.target = target
        self.flows: set[_Half] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = listening_socket(socket.SOCK_STREAM, port)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Accepted(self), sock=self._socket, backlog=BACKLOG)

    def begin(self, client: _Half) -> None:
        """Connect an accepted client to the target."""
        self.flows.add(client)
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: _Half) -> None:
        assert client.transport is not None, "it was accepted"
        inner = _Half()
        # at once: the target may speak before anything else happens here
        inner.other = client
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                transport, _ = await asyncio.get_running_loop().create_connection(lambda: inner, *self.target)
        except OSError:
            reset(client.transport)
            return
        if client.transport.is_closing():
            transport.abort()
            return
        client.other = inner
        client.transport.resume_reading()

    def close(self) -> None:
        """Stop accepting."""
        if self._server is not None:
            self._server.close()


class _UdpFlow:
    """What one client says to one address of this host, and the socket it is passed on by."""

    def __init__(self, client: tuple[Any, ...], reply: list[tuple[int, int, bytes]], target: Target) -> None:
        self.client = client
        self.reply = reply
        self.last_seconds = time.monotonic()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.socket.connect(target)
        except OSError:
            self.socket.close()
            raise


class UdpForward:
    """A port whose datagrams are passed on to `target`; answers leave from the address the client spoke to."""

    def __init__(self, port: int, target: Target) -> None:
        self.target = target
        self._flows: OrderedDict[tuple[Any, ...], _UdpFlow] = OrderedDict()
        self._socket = listening_socket(socket.SOCK_DGRAM, port)

    async def start(self) -> None:
        """Begin to receive."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    def _receive(self) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, ancillary, _flags, client = self._socket.recvmsg(DATAGRAM_BYTES, socket.CMSG_SPACE(20))
            except OSError:
                return
            reply = [item for item in ancillary if item[0] == socket.IPPROTO_IPV6 and item[1] == IPV6_PKTINFO]
            key = (client, reply[0][2] if reply else b"")
            flow = self._flows.get(key)
            if flow is None:
                flow = self._open(key, client, reply)
                if flow is None:
                    continue
            self._flows.move_to_end(key)
            flow.last_seconds = time.monotonic()
            # that the target refused an earlier datagram is told at the next one
            for _attempt in range(2):
                try:
                    flow.socket.send(data)
                except ConnectionRefusedError:
                    continue
                except OSError:
                    pass
                break

    def _open(
        self, key: tuple[Any, ...], client: tuple[Any, ...], reply: list[tuple[int, int, bytes]]
    ) -> _UdpFlow | None:
        self.expire()
        if len(self._flows) >= MOST_UDP_FLOWS:
            self._drop(next(iter(self._flows)))
        try:
            flow = _UdpFlow(client, reply, self.target)
        except OSError:
            return None
        self._flows[key] = flow
        asyncio.get_running_loop().add_reader(flow.socket.fileno(), self._answer, flow)
        return flow

    def _answer(self, flow: _UdpFlow) -> None:
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data = flow.socket.recv(DATAGRAM_BYTES)
            except OSError:
                return
            flow.last_seconds = time.monotonic()
            with contextlib.suppress(OSError):
                self._socket.sendmsg([data], flow.reply, 0, flow.client)

    def expire(self) -> None:
        """Forget what has been silent for long; the flows are in the order of their clients' last words."""
        limit = time.monotonic() - UDP_IDLE_SECONDS
        for key, flow in list(self._flows.items()):
            if flow.last_seconds > limit:
                break
            self._drop(key)

    def _drop(self, key: tuple[Any, ...]) -> None:
        flow = self._flows.pop(key)
        asyncio.get_running_loop().remove_reader(flow.socket.fileno())
        flow.socket.close()

    def close(self) -> None:
        """Stop, and forget all flows."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        for key in list(self._flows):
            self._drop(key)
