"""A link: an ordered stream of frames between two parties, closed once for both.

Frames are the msgpack of one message. In one process a pair of links hands them over through memory, between nodes a
WebSocket carries them: whoever speaks over a link cannot tell.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from shoal.errors import Unavailable
from shoal.model.messages import Message

FRAMES_QUEUED_MOST = 1000

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class LinkClosed(Unavailable):
    """The link has ended; no more frames go or come."""


class LinkSilent(LinkClosed):
    """The link has ended because the other side's host, or the wire to it, is dead."""


class Link(Protocol):
    """One end of a link."""

    async def send(self, message: Message) -> None:
        """Send a message; waits while the other side is behind. Raises LinkClosed."""

    async def receive(self) -> Message:
        """Return the next message. Raises LinkClosed when the other side is done."""

    def close(self) -> None:
        """End the link for both sides; what was sent before is still received."""


class MemoryLink:
    """One end of a pair in one process. Messages are encoded all the same: nothing is shared by accident."""

    def __init__(self, outgoing: asyncio.Queue[bytes | None], incoming: asyncio.Queue[bytes | None]) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._peer: MemoryLink | None = None
        self._closed = asyncio.Event()

    async def send(self, message: Message) -> None:
        """Send a message; waits while the other side is behind. Raises LinkClosed."""
        if self._closed.is_set():
            raise LinkClosed("the link is closed")
        frame = _encoder.encode(message)
        if not self._outgoing.full():
            self._outgoing.put_nowait(frame)
            return
        closed = asyncio.ensure_future(self._closed.wait())
        putting = asyncio.ensure_future(self._outgoing.put(frame))
        try:
            await asyncio.wait({closed, putting}, return_when=asyncio.FIRST_COMPLETED)
            if not putting.done():
                raise LinkClosed("the link was closed while the other side was behind")
        finally:
            closed.cancel()
            putting.cancel()

    async def receive(self) -> Message:
        """Return the next message. Raises LinkClosed when the other side is done."""
        if self._incoming.empty():
            closed = asyncio.ensure_future(self._closed.wait())
            getting = asyncio.ensure_future(self._incoming.get())
            try:
                await asyncio.wait({closed, getting}, return_when=asyncio.FIRST_COMPLETED)
                frame = getting.result() if getting.done() else None
            finally:
                closed.cancel()
                getting.cancel()
        else:
            frame = self._incoming.get_nowait()
        if frame is None:
            raise LinkClosed("the link is closed")
        return _decoder.decode(frame)

    def close(self) -> None:
        """End the link for both sides; what was sent before is still received."""
        self._closed.set()
        if self._peer is not None:
            self._peer._closed.set()


def make_pair() -> tuple[MemoryLink, MemoryLink]:
    """Return the two ends of a link within this process."""
    there: asyncio.Queue[bytes | None] = asyncio.Queue(FRAMES_QUEUED_MOST)
    back: asyncio.Queue[bytes | None] = asyncio.Queue(FRAMES_QUEUED_MOST)
    one, other = MemoryLink(there, back), MemoryLink(back, there)
    one._peer, other._peer = other, one
    return one, other
