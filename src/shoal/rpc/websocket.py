"""A link over a WebSocket, and the notice that the other side has fallen silent.

The socket carries TCP_USER_TIMEOUT, and something is always under way on it: a ping a second when nothing else is. So a
host or a wire that died shows as data that nobody acknowledges, while a peer that is stopped or overloaded still
acknowledges by its kernel, and is told apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import socket
import struct
from collections.abc import Callable
from typing import Protocol

import msgspec
from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType, web

from shoal.lib.supervise import cancel_and_wait
from shoal.model.messages import Message
from shoal.rpc.link import LinkClosed, LinkSilent

FRAME_BYTES_MOST = 64 << 20
PING_PERIOD_SECONDS = 1.0
WATCH_PERIOD_SECONDS = 0.5
SILENCE_SECONDS = 3.0
PATIENT_SILENCE_SECONDS = 15.0
CLOSE_TIMEOUT_SECONDS = 1.0
# struct tcp_info: tcpi_unacked, tcpi_last_data_recv and tcpi_last_ack_recv (linux/tcp.h)
_TCP_INFO_BYTES = 60
_UNACKED = struct.Struct("=24xI24xII")

WebSocket = ClientWebSocketResponse | web.WebSocketResponse

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class _Socket(Protocol):
    def fileno(self) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


class FrameSocket:
    """Frames of bytes over a WebSocket, with the watch for silence; used by links and between raft members.

    Args:
        web_socket: what carries them.
        patience: how long, in seconds, the other side may send nothing though its kernel acknowledges; asked again and
            again. None: for ever.
        is_patient: the other side may read nothing for as long as it likes, because a person reads behind it. The
            kernel's own limit counts a full window as silence, so it is lifted, and the watch is slower.
    """

    def __init__(
        self, web_socket: WebSocket, patience: Callable[[], float] | None = None, is_patient: bool = False
    ) -> None:
        self._web_socket = web_socket
        self._patience = patience
        self._reason = ""
        self._silence_seconds = PATIENT_SILENCE_SECONDS if is_patient else SILENCE_SECONDS
        self._socket: _Socket | None = web_socket.get_extra_info("socket")
        self._silent = False
        self._closing: asyncio.Task[None] | None = None
        if self._socket is not None:
            with contextlib.suppress(OSError):
                limit_ms = 0 if is_patient else int(SILENCE_SECONDS * 1000)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watching = asyncio.create_task(self._watch(), name="link watch")

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the other side is behind. Raises LinkClosed, LinkSilent."""
        try:
            await self._web_socket.send_bytes(frame, compress=0)
        except (ConnectionError, ClientError, RuntimeError) as error:
            raise self._ended(str(error)) from error

    async def receive(self) -> bytes:
        """Return the next frame. Raises LinkClosed: the other side is done; LinkSilent: it died without a word."""
        while True:
            try:
                message = await self._web_socket.receive()
            except (ConnectionError, ClientError, RuntimeError) as error:
                raise self._ended(str(error)) from error
            if message.type is WSMsgType.BINARY:
                data: bytes = message.data
                return data
            if message.type in (WSMsgType.PING, WSMsgType.PONG):
                continue
            raise self._ended(str(message.extra or "the other side has ended the link"))

    def _ended(self, reason: str) -> LinkClosed:
        error = self._web_socket.exception()
        while error is not None and not (isinstance(error, OSError) and error.errno is not None):
            error = error.__cause__ or error.__context__
        if isinstance(error, OSError) and error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH):
            self._silent = True
        if self._silent:
            return LinkSilent(self._reason or f"nothing was acknowledged for {self._silence_seconds:g} s")
        return LinkClosed(f"the link is closed: {reason}")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        pinged_at = loop.time()
        while not self._web_socket.closed:
            await asyncio.sleep(WATCH_PERIOD_SECONDS)
            try:
                unacknowledged, last_data_seconds, last_heard_seconds = self._acknowledgements()
                patience_seconds = self._patience() if self._patience is not None else math.inf
                if last_data_seconds > patience_seconds:
                    self._reason = f"the other side is there, but has said nothing for {patience_seconds:g} s"
                if self._reason or (unacknowledged and last_heard_seconds > self._silence_seconds):
                    self._silent = True
                    self.abort()
                    return
                if not unacknowledged and loop.time() - pinged_at >= PING_PERIOD_SECONDS:
                    pinged_at = loop.time()
                    await self._web_socket.ping()
            except (OSError, ClientError, RuntimeError):
                return

    def _acknowledgements(self) -> tuple[int, float, float]:
        """Return how many segments wait for an acknowledgement, and how long ago data and an acknowledgement came."""
        if self._socket is None:
            return 0, 0.0, 0.0
        information = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        unacknowledged, last_data_ms, last_heard_ms = _UNACKED.unpack(information)
        return unacknowledged, last_data_ms / 1000, last_heard_ms / 1000

    def abort(self) -> None:
        """End at once, without a word to the other side."""
        if self._socket is None:
            return
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._socket.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the link for both sides."""
        if self._closing is None:
            self._watching.cancel()
            self._closing = asyncio.create_task(self._close(), name="link close")

    async def _close(self) -> None:
        with contextlib.suppress(TimeoutError, ConnectionError, ClientError, RuntimeError):
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._web_socket.close()

    async def wait_closed(self) -> None:
        """Return when the link has ended and nothing of it goes on in the background."""
        self.close()
        assert self._closing is not None, "close was called"
        await cancel_and_wait(self._watching)
        await asyncio.wait({self._closing})


class WebSocketLink:
    """One end of a link between nodes."""

    def __init__(self, web_socket: WebSocket, patience: Callable[[], float] | None = None) -> None:
        self._frames = FrameSocket(web_socket, patience)

    async def send(self, message: Message) -> None:
        """Send a message; waits while the other side is behind. Raises LinkClosed."""
        await self._frames.send(_encoder.encode(message))

    async def receive(self) -> Message:
        """Return the next message. Raises LinkClosed when the other side is done, LinkSilent when it died."""
        return _decoder.decode(await self._frames.receive())

    def close(self) -> None:
        """End the link for both sides."""
        self._frames.close()

    async def wait_closed(self) -> None:
        """Return when the link has ended and nothing of it goes on in the background."""
        await self._frames.wait_closed()
