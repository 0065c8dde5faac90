"""Connections taken over from HTTP: raw bytes both ways, for exec and attach.

A client asks with `Upgrade: tcp` (101) or without (200, and raw bytes from then on, too); either may close its half and
still read. What is relayed stands in `relay`; the process behind is a `ContainerStream`, wherever it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
from typing import Protocol

from aiohttp import WSMsgType, web

from shoal.api.context import CONTEXT
from shoal.api.detach_keys import DetachScanner
from shoal.api.routing import api_version
from shoal.api.streams import LOOK_FOR_CLIENT_SECONDS, MULTIPLEXED, MULTIPLEXED_SINCE, RAW, frame
from shoal.api.views.info import API_VERSION
from shoal.engine.protocol import ContainerStream
from shoal.errors import ShoalError
from shoal.lib.supervise import cancel_and_wait

READ_BYTES = 32 * 1024
# how long a client that has been told the end may take to close its half
LINGER_SECONDS = 1.0


class ClientConnection(Protocol):
    """A client's end of a stream."""

    async def read(self) -> bytes:
        """Return what the client sends, nothing once it sends no more."""

    async def write(self, data: bytes) -> None:
        """Send to the client; waits while it does not read. Raises ConnectionError if it has gone."""

    async def wait_until_gone(self) -> None:
        """Wait until the client has closed both ways."""


class _Protocol(asyncio.StreamReaderProtocol):
    """Takes the place of aiohttp's protocol, which is told of the end so that it lets the connection go."""

    def __init__(self, reader: asyncio.StreamReader, earlier: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._earlier = earlier

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._earlier.connection_lost(exc)


class HijackedConnection:
    """A connection that speaks HTTP no more."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._reader = asyncio.StreamReader(limit=READ_BYTES)
        protocol = _Protocol(self._reader, transport.get_protocol())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, asyncio.get_running_loop())

    async def read(self) -> bytes:
        """Return what the client sends, nothing once it sends no more."""
        try:
            return await self._reader.read(READ_BYTES)
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send to the client; waits while it does not read. Raises ConnectionError if it has gone."""
        self._writer.write(data)
        await self._writer.drain()

    async def wait_until_gone(self) -> None:
        """Wait until the client has closed both ways: the kernel says so, though nothing can be read."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        while not self._transport.is_closing() and not poll.poll(0):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(LOOK_FOR_CLIENT_SECONDS)

    async def finish(self) -> None:
        """End the output, and drop what the client still sends until it closes, too.

        To close while something is unread would reset the connection, and the client would take that for a failure.
        """
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while await self.read():
                        pass

    def close(self) -> None:
        """Close it once all is sent."""
        self._transport.close()


class WebSocketConnection:
    """A client that attached by a WebSocket: messages hold raw bytes."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._closed = asyncio.Event()

    async def read(self) -> bytes:
        """Return what the client sends, nothing once it has closed."""
        while True:
            message = await self._socket.receive()
            if message.type == WSMsgType.BINARY and message.data:
                return bytes(message.data)
            if message.type == WSMsgType.TEXT and message.data:
                return str(message.data).encode()
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                self._closed.set()
                return b""

    async def write(self, data: bytes) -> None:
        """Send a message."""
        await self._socket.send_bytes(data)

    async def wait_until_gone(self) -> None:
        """Wait until the client has closed."""
        await self._closed.wait()


class TakenOver(web.StreamResponse):
    """What a handler returns after a hijack: everything is sent already."""

    def __init__(self) -> None:
        super().__init__()
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send nothing."""


def hijack(request: web.Request, *, multiplexed: bool) -> HijackedConnection:
    """Answer with a head and take the connection over; the request's body must have been read.

    Args:
        request: what asked for it; with an `Upgrade` header it gets 101, else 200.
        multiplexed: whether output goes in frames that name their stream: newer clients are told by the media type.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    is_upgrade = "Upgrade" in request.headers
    names_frames = multiplexed and is_upgrade and api_version(request) >= MULTIPLEXED_SINCE
    head = [
        "HTTP/1.1 101 UPGRADED" if is_upgrade else "HTTP/1.1 200 OK",
        f"Content-Type: {MULTIPLEXED if names_frames else RAW}",
    ]
    if is_upgrade:
        head += ["Connection: Upgrade", "Upgrade: tcp"]
    head += [
        f"Api-Version: {API_VERSION}",
        "Docker-Experimental: false",
        "Ostype: linux",
        f"Server: Docker/{request.app[CONTEXT].version} (linux)",
    ]
    connection = HijackedConnection(transport)
    transport.write("\r\n".join([*head, "", ""]).encode())
    return connection


async def tell_error(connection: ClientConnection, error: ShoalError, *, multiplexed: bool) -> None:
    """Tell a client of a failure in the stream, as Docker does once the head is sent."""
    text = f"{error.message}\r\n".encode()
    await connection.write(frame("stdout", text) if multiplexed else text)


async def relay(
    connection: ClientConnection, stream: ContainerStream, *, multiplexed: bool, detach_keys: bytes | None
) -> bool:
    """Carry bytes both ways until the process has ended, the client has gone, or it presses `detach_keys`.

    The stream is let go of in each case.

    Args:
        connection: the client.
        stream: the process.
        multiplexed: whether output goes in frames that name their stream.
        detach_keys: None where there is no terminal: then nothing that is typed has a meaning.

    Returns:
        Whether the client detached.
    """

    async def carry_output() -> None:
        while (piece := await stream.read()) is not None:
            await connection.write(frame(piece.stream, piece.data) if multiplexed else piece.data)

    async def carry_input() -> bool:
        scanner = DetachScanner(detach_keys) if detach_keys is not None else None
        while data := await connection.read():
            passed, detached = scanner.feed(data) if scanner is not None else (data, False)
            await stream.write(passed)
            if detached:
                return True
        await stream.close_input()
        await asyncio.Event().wait()
        return False

    output = asyncio.create_task(carry_output())
    typed = asyncio.create_task(carry_input())
    gone = asyncio.create_task(connection.wait_until_gone())
    try:
        await asyncio.wait({output, typed, gone}, return_when=asyncio.FIRST_COMPLETED)
        for task in (output, typed):
            error = task.exception() if task.done() else None
            if error is not None and not isinstance(error, ConnectionError):
                raise error
        return typed.done() and typed.exception() is None and not output.done()
    finally:
        await cancel_and_wait(output, gone)
        typed.cancel()
        await asyncio.gather(typed, return_exceptions=True)
        await stream.close()
