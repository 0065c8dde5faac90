"""Messages between raft members over the node port: one outgoing link to each, snapshots apart as a stream.

Best effort, as raft wants it: what cannot be sent now is dropped and told to the driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Protocol

import msgspec
import structlog

from shoal.errors import Forbidden, InvalidArgument, ShoalError
from shoal.lib.backoff import Backoff
from shoal.lib.supervise import cancel_and_wait
from shoal.model.node_port import Identity, MemberHello
from shoal.raft.core.messages import Message
from shoal.rpc.dialer import Dialer
from shoal.rpc.link import LinkClosed
from shoal.rpc.websocket import FrameSocket

_log = structlog.get_logger(__name__)

RAFT_PATH = "/raft"
SNAPSHOT_PATH = "/raft/snapshot"
MESSAGES_QUEUED_MOST = 4096
MESSAGES_PER_FRAME_MOST = 256
RETRY_FIRST_SECONDS = 0.1
RETRY_MOST_SECONDS = 1.0
SNAPSHOT_TIMEOUT_SECONDS = 600.0
LENGTH_BYTES = 4
CHUNK_BYTES_MOST = 64 << 20

_encoder = msgspec.msgpack.Encoder()
_batch_decoder: msgspec.msgpack.Decoder[tuple[Message, ...]] = msgspec.msgpack.Decoder(tuple[Message, ...])
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_hello_decoder: msgspec.msgpack.Decoder[MemberHello] = msgspec.msgpack.Decoder(MemberHello)


class Member(Protocol):
    """The driver, as the transport sees it."""

    def receive(self, message: Message) -> None:
        """Take a message."""

    async def receive_snapshot(self, message: Message, chunks: AsyncIterator[bytes]) -> None:
        """Take a snapshot."""

    def report_unreachable(self, raft_id: int) -> None:
        """A message could not be sent."""

    def report_reachable(self, raft_id: int) -> None:
        """A link to a member has opened."""

    def report_snapshot(self, raft_id: int, ok: bool) -> None:
        """How sending a snapshot ended."""


class RaftTransport:
    """Carries messages to and from the other members.

    Args:
        dialer: reaches their node ports.
        hello: who this member is.
        address_of: where a member answers, empty if nobody knows.
    """

    def __init__(self, dialer: Dialer, hello: MemberHello, address_of: Callable[[int], str]) -> None:
        self._dialer = dialer
        self._hello = hello
        self._address_of = address_of
        self._member: Member | None = None
        # where members that dialled this one say they answer: a new member knows no store yet
        self._announced: dict[int, str] = {}
        self._queues: dict[int, asyncio.Queue[Message]] = {}
        self._peers: dict[int, asyncio.Task[None]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._incoming: set[FrameSocket] = set()
        self._linked: set[int] = set()

    def attach(self, member: Member) -> None:
        """Set the driver; done once, by the composition root."""
        self._member = member

    @property
    def _driver(self) -> Member:
        assert self._member is not None, "the transport is attached before anything is sent"
        return self._member

    async def stop(self) -> None:
        """Send and take no more."""
        for frames in self._incoming:
            frames.close()
        await cancel_and_wait(*self._peers.values(), *self._sending)
        self._peers.clear()

    def is_linked(self, raft_id: int) -> bool:
        """Whether a link to a member is open: its host answers, though the member itself may be stopped."""
        return raft_id in self._linked

    def forget_except(self, raft_ids: Iterable[int]) -> None:
        """Stop dialling whoever is no member any more."""
        for raft_id in set(self._peers) - set(raft_ids):
            self._peers.pop(raft_id).cancel()
            self._queues.pop(raft_id, None)
            self._announced.pop(raft_id, None)

    def announced_address(self, raft_id: int) -> str:
        """Return where a member said it answers when it dialled this one, empty if it never did."""
        return self._announced.get(raft_id, "")

    # -- outgoing

    def send(self, messages: Iterable[Message]) -> None:
        """Send messages, best effort."""
        for message in messages:
            queue = self._queues.get(message.to)
            if queue is None:
                queue = self._queues[message.to] = asyncio.Queue(MESSAGES_QUEUED_MOST)
                self._peers[message.to] = asyncio.create_task(
                    self._keep_sending(message.to, queue), name=f"raft to {message.to:x}"
                )
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self._driver.report_unreachable(message.to)

    async def _keep_sending(self, raft_id: int, queue: asyncio.Queue[Message]) -> None:
        backoff = Backoff(RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS)
        lost = ""
        while True:
            try:
                address = self._address_of(raft_id)
                if not address:
                    raise LinkClosed("nobody knows its address yet")
                frames = await self._dialer.open_frames(address, RAFT_PATH)
                try:
                    await frames.send(_encoder.encode(self._hello))
                    _log.info("raft link is open", member=raft_id, address=address)
                    lost = ""
                    backoff.reset()
                    self._driver.report_reachable(raft_id)
                    self._linked.add(raft_id)
                    await self._send_until_closed(frames, queue)
                finally:
                    self._linked.discard(raft_id)
                    frames.close()
            except ShoalError as error:
                if error.message != lost:
                    lost = error.message
                    _log.info("raft link lost", member=raft_id, reason=lost)
            self._driver.report_unreachable(raft_id)
            while not queue.empty():
                queue.get_nowait()
            await asyncio.sleep(backoff.next_delay_seconds())
            # what came meanwhile is stale: whoever answers now is sent what is due now
            while not queue.empty():
                queue.get_nowait()

    async def _send_until_closed(self, frames: FrameSocket, queue: asyncio.Queue[Message]) -> None:
        async def send() -> None:
            while True:
                batch = [await queue.get()]
                while not queue.empty() and len(batch) < MESSAGES_PER_FRAME_MOST:
                    batch.append(queue.get_nowait())
                await frames.send(_encoder.encode(batch))

        async def await_end() -> None:
            # the other side sends nothing on this link: what comes is its end
            while True:
                await frames.receive()

        tasks = [asyncio.create_task(send()), asyncio.create_task(await_end())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*tasks)
        for task in done:
            task.result()

    def send_snapshot(self, message: Message, chunks: Iterator[bytes]) -> None:
        """Send a snapshot in the background; how it ended is told to the driver, once."""
        task = asyncio.create_task(self._send_snapshot(message, chunks), name=f"snapshot to {message.to:x}")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send_snapshot(self, message: Message, chunks: Iterator[bytes]) -> None:
        ok = False
        try:
            address = self._address_of(message.to)
            if not address:
                raise LinkClosed("nobody knows its address yet")
            stream = _frames_of(message, chunks)
            await self._dialer.post_stream(address, SNAPSHOT_PATH, stream, SNAPSHOT_TIMEOUT_SECONDS)
            ok = True
        except Exception as error:
            _log.warning("a snapshot could not be sent", member=message.to, reason=str(error))
        finally:
            self._driver.report_snapshot(message.to, ok)

    # -- incoming

    async def serve(self, frames: FrameSocket, identity: Identity) -> None:
        """Take messages of the member on a node until its link ends. Raises Forbidden, InvalidArgument, LinkClosed."""
        self._incoming.add(frames)
        try:
            hello = _hello_decoder.decode(await frames.receive())
            if hello.node_id != identity.node_id:
                raise Forbidden(f"node {identity.node_id} speaks for itself only")
            self._announced[hello.raft_id] = hello.address
            while True:
                for message in _batch_decoder.decode(await frames.receive()):
                    self._driver.receive(message)
        except msgspec.DecodeError as error:
            raise InvalidArgument(f"no raft message: {error}") from error
        finally:
            self._incoming.discard(frames)
            frames.close()

    async def serve_snapshot(self, stream: AsyncIterator[bytes]) -> None:
        """Take a snapshot that is streamed by the leader. Raises InvalidArgument."""
        chunks = _chunks_of(stream)
        try:
            message = _message_decoder.decode(await anext(chunks))
        except (StopAsyncIteration, msgspec.DecodeError) as error:
            raise InvalidArgument("no snapshot: it begins with its message") from error
        await self._driver.receive_snapshot(message, chunks)


async def _frames_of(message: Message, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield length-prefixed chunks: the message first; an empty chunk says that all have come."""
    yield _with_length(_encoder.encode(message))
    while True:
        chunk = await asyncio.to_thread(next, chunks, None)
        if chunk is None:
            break
        yield _with_length(chunk)
    yield _with_length(b"")


def _with_length(chunk: bytes) -> bytes:
    return len(chunk).to_bytes(LENGTH_BYTES, "big") + chunk


async def _chunks_of(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the chunks of a stream whose pieces may be cut anywhere. Raises InvalidArgument: it ends before its end."""
    buffer = bytearray()
    async for piece in stream:
        buffer += piece
        while len(buffer) >= LENGTH_BYTES:
            length = int.from_bytes(buffer[:LENGTH_BYTES], "big")
            if length > CHUNK_BYTES_MOST:
                raise InvalidArgument(f"a chunk of a snapshot has {length} bytes, more than {CHUNK_BYTES_MOST}")
            if len(buffer) < LENGTH_BYTES + length:
                break
            chunk = bytes(buffer[LENGTH_BYTES : LENGTH_BYTES + length])
            del buffer[: LENGTH_BYTES + length]
            if not chunk:
                return
            yield chunk
    raise InvalidArgument("the snapshot ended before its end")
