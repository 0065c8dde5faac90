"""Streams that the leader has a node open: asked for over its session, opened by the node, handed to who wants them.

Belongs to one session: only the node of that session knows the id that it has to present, and all end with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shoal.errors import NotBuilt, NotFound, Unavailable
from shoal.lib.ids import Ids
from shoal.model.messages import OpenStream, StreamRefused
from shoal.rpc.link import Frames, Link
from shoal.rpc.relay import OPEN_SECONDS


class NodeStream:
    """A stream that a node has opened. Who has asked for it must close it."""

    def __init__(self, frames: Frames, on_close: Callable[[NodeStream], None]) -> None:
        self._frames = frames
        self._on_close = on_close
        self._closed = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        """Send a frame; waits while the node is behind. Raises LinkClosed."""
        await self._frames.send(frame)

    async def receive(self) -> bytes:
        """Return the next frame. Raises LinkClosed."""
        return await self._frames.receive()

    def close(self) -> None:
        """End the stream for both sides."""
        self._frames.close()
        self._closed.set()
        self._on_close(self)

    async def wait_closed(self) -> None:
        """Return when it is needed no more."""
        await self._closed.wait()


class NodeStreams:
    """The streams of one session.

    Args:
        link: carries the session.
        ids: names the streams; who does not know the name cannot open one.
        is_served: whether the node's version knows of streams.
    """

    def __init__(self, link: Link, ids: Ids, is_served: bool) -> None:
        self._link = link
        self._ids = ids
        self._is_served = is_served
        self._awaited: dict[str, asyncio.Future[NodeStream]] = {}
        self._open: set[NodeStream] = set()
        self._begun = asyncio.Event()

    def begin(self) -> None:
        """The node knows that it has a session: it may be asked now."""
        self._begun.set()

    async def open(self) -> NodeStream:
        """Have the node open a stream.

        Raises:
            NotBuilt: its version cannot.
            Unavailable: it does not within its time, refuses, or its session ends.
        """
        if not self._is_served:
            raise NotBuilt("the node's version of Shoal opens no streams to managers: upgrade it")
        stream_id = self._ids.new()
        awaited: asyncio.Future[NodeStream] = asyncio.get_running_loop().create_future()
        self._awaited[stream_id] = awaited
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._begun.wait()
                await self._link.send(OpenStream(stream_id=stream_id))
                return await awaited
        except BaseException as error:
            if awaited.done() and not awaited.cancelled() and awaited.exception() is None:
                # it came just when it was no longer waited for
                awaited.result().close()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"the node has not opened a stream within {OPEN_SECONDS:g} s") from None
            raise
        finally:
            del self._awaited[stream_id]

    def expects(self, stream_id: str) -> None:
        """Raise NotFound if this stream was not asked for, is open already, or was waited for in vain."""
        awaited = self._awaited.get(stream_id)
        if awaited is None or awaited.done():
            raise NotFound("nobody waits for this stream")

    def take(self, stream_id: str, frames: Frames) -> NodeStream:
        """Take a stream that the node has opened. Raises NotFound as `expects`."""
        self.expects(stream_id)
        stream = NodeStream(frames, self._open.discard)
        self._open.add(stream)
        self._awaited[stream_id].set_result(stream)
        return stream

    def refuse(self, refused: StreamRefused) -> None:
        """The node will not open a stream."""
        self._fail(refused.stream_id, refused.message)

    def _fail(self, stream_id: str, reason: str) -> None:
        awaited = self._awaited.get(stream_id)
        if awaited is not None and not awaited.done():
            awaited.set_exception(Unavailable(reason))

    def close(self, reason: str) -> None:
        """End all: the session is over."""
        for stream_id in tuple(self._awaited):
            self._fail(stream_id, reason)
        for stream in tuple(self._open):
            stream.close()
