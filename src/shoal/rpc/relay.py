"""The two ends of a stream between a manager and a node that has a container: typed frames over any carrier."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TypeVar

import msgspec

from shoal.errors import NotBuilt, ShoalError, make_error
from shoal.lib.supervise import cancel_and_wait
from shoal.model.relay import Answer, Call, Failed, InputTaken, Said, StillThere, ToManager, ToNode
from shoal.rpc.link import Frames, LinkClosed, LinkSilent

# how long a manager waits until the node that it asked has opened a stream
OPEN_SECONDS = 5.0
# a node says so often that it is still there; one that has not said so (or anything else) for longer hangs
BEAT_SECONDS = 2.0
SILENCE_SECONDS = 8.0
# frames between two ends in one process; between hosts the windows of TCP are the bound
FRAMES_QUEUED_MOST = 16

A = TypeVar("A", bound=Answer)
_encoder = msgspec.msgpack.Encoder()
_node_decoder: msgspec.msgpack.Decoder[ToNode] = msgspec.msgpack.Decoder(ToNode)
_manager_decoder: msgspec.msgpack.Decoder[ToManager] = msgspec.msgpack.Decoder(ToManager)


class NodeEnd:
    """The node's end."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames

    async def send(self, frame: ToManager) -> None:
        """Send a frame; waits while the manager is behind. Raises LinkClosed."""
        await self._frames.send(_encoder.encode(frame))

    async def receive(self) -> ToNode:
        """Return the next frame. Raises LinkClosed; NotBuilt: a call of a newer version."""
        data = await self._frames.receive()
        try:
            return _node_decoder.decode(data)
        except msgspec.DecodeError as error:
            raise NotBuilt(f"this node's version of Shoal does not know what it is asked: {error}") from error

    def close(self) -> None:
        """End the stream."""
        self._frames.close()


class ManagerEnd:
    """The manager's end; `node_name` stands in the texts of errors."""

    def __init__(self, frames: Frames, node_name: str) -> None:
        self._frames = frames
        self._node_name = node_name

    async def send(self, frame: ToNode) -> None:
        """Send a frame; waits while the node is behind. Raises LinkClosed."""
        try:
            await self._frames.send(_encoder.encode(frame))
        except LinkClosed as error:
            raise self._gone(error) from error

    def _gone(self, error: LinkClosed) -> LinkClosed:
        return LinkClosed(f"node {self._node_name} answers no more: {error.message}")

    async def receive(self) -> Answer | Said | InputTaken:
        """Return the next frame.

        Raises:
            LinkClosed, LinkSilent: the stream has ended, or the node hangs.
            NotBuilt: an answer of another version.
            ShoalError: what the node refused the call with.
        """
        while True:
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    data = await self._frames.receive()
            except LinkClosed as error:
                raise self._gone(error) from error
            except TimeoutError:
                raise LinkSilent(f"node {self._node_name} has not answered for {SILENCE_SECONDS:g} s") from None
            try:
                frame = _manager_decoder.decode(data)
            except msgspec.DecodeError as error:
                raise NotBuilt(f"the node's answer is of another version of Shoal: {error}") from error
            if isinstance(frame, Failed):
                raise make_error(frame.status, frame.message)
            if not isinstance(frame, StillThere):
                return frame

    async def ask(self, call: Call, kind: type[A]) -> A:
        """Make a call that is answered by one value of `kind`. Raises as `receive`."""
        await self.send(call)
        answer = await self.receive()
        if not isinstance(answer, kind):
            raise ShoalError(f"the node answered a call with {type(answer).__name__}, not with {kind.__name__}")
        return answer

    def close(self) -> None:
        """End the stream."""
        self._frames.close()


async def splice(one: Frames, other: Frames) -> None:
    """Pass frames on, both ways, each as the receiver takes them, until either side is done."""

    async def carry(source: Frames, target: Frames) -> None:
        takes = True
        with contextlib.suppress(LinkClosed):
            while True:
                frame = await source.receive()
                try:
                    if takes:
                        await target.send(frame)
                except LinkClosed:
                    # what that side said before is still to be passed on: its own direction ends it all
                    takes = False

    ways = [asyncio.create_task(carry(one, other)), asyncio.create_task(carry(other, one))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*ways)
    for way in done:
        way.result()
