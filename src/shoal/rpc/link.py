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


class Frames(Protocol):
    """One end of a stream of frames of bytes: what a link is made of."""

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the other side is behind. Raises LinkClosed."""

    async def receive(self) -> bytes:
        """Return the next frame. Raises LinkClosed when the other side is done."""

    def close(self) -> None:
        """End the stream for both sides; what was sent before is still received."""


class MemoryFrames:
    """One end of a pair in one process."""

    def __init__(self, outgoing: asyncio.Queue[bytes], incoming: asyncio.Queue[bytes]) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._peer: MemoryFrames | None = None
        self._closed = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the other side is behind. Raises LinkClosed."""
        if self._closed.is_set():
            raise LinkClosed("the link is closed")
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

    async def receive(self) -> bytes:
        """Return the next frame. Raises LinkClosed when the other side is done."""
        if not self._incoming.empty():
            return self._incoming.get_nowait()
        closed = asyncio.ensure_future(self._closed.wait())
        getting = asyncio.ensure_future(self._incoming.get())
        try:
            await asyncio.wait({closed, getting}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                raise LinkClosed("the link is closed")
            return getting.result()
        finally:
            closed.cancel()
            getting.cancel()

    def close(self) -> None:
        """End the stream for both sides; what was sent before is still received."""
        self._closed.set()
        if self._peer is not None:
            self._peer._closed.set()


class MemoryLink:
    """One end of a pair in one process. Messages are encoded all the same: nothing is shared by accident."""

    def __init__(self, frames: MemoryFrames) -> None:
        self._frames = frames

    async def send(self, message: Message) -> None:
        """Send a message; waits while the other side is behind. Raises LinkClosed."""
        await self._frames.send(_encoder.encode(message))

    async def receive(self) -> Message:
        """Return the next message. Raises LinkClosed when the other side is done."""
        return _decoder.decode(await self._frames.receive())

    def close(self) -> None:
        """End the link for both sides; what was sent before is still received."""
        self._frames.close()


def make_frame_pair(queued_most: int = FRAMES_QUEUED_MOST) -> tuple[MemoryFrames, MemoryFrames]:
    """Return the two ends of a stream within this process; more than `queued_most` frames wait with their sender."""
    there: asyncio.Queue[bytes] = asyncio.Queue(queued_most)
    back: asyncio.Queue[bytes] = asyncio.Queue(queued_most)
    one, other = MemoryFrames(there, back), MemoryFrames(back, there)
    one._peer, other._peer = other, one
    return one, other


def make_pair() -> tuple[MemoryLink, MemoryLink]:
    """Return the two ends of a link within this process."""
    one, other = make_frame_pair()
    return MemoryLink(one), MemoryLink(other)
