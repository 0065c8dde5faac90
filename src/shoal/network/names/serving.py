"""One container's questions: reads its sockets fairly and within its allowance, answers, or has others asked.

What a container sends beyond its allowance waits in the kernel's buffer and is thrown away there, which costs nothing:
no container can slow another down or take the processor for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

from shoal.network.names import codec
from shoal.network.names.allowance import MOST_TOKENS, Allowance
from shoal.network.names.answers import Answers, Elsewhere
from shoal.network.names.codec import Question
from shoal.network.names.opening import Opened

READS_A_TURN = 32
ACCEPTS_A_TURN = 4
MOST_QUERY_BYTES = 4096
MOST_CONNECTIONS = 32
MOST_FORWARDED = 100
IDLE_SECONDS = 10.0
# what things cost beside one token an answer, by the time they take
FORWARD_TOKENS, CONNECTION_TOKENS = 8, 10
_LENGTH = struct.Struct(">H")

Forward = Callable[[bytes, Question, bool], Awaitable[bytes]]


class ContainerServer:
    """Serves the sockets of one container until `close`.

    Args:
        opened: its sockets.
        answers: what its networks know.
        forward: has a name server asked (query, question, whether by TCP).
    """

    def __init__(self, opened: Opened, answers: Answers, forward: Forward) -> None:
        self._loop = asyncio.get_running_loop()
        self._opened = opened
        self._forward = forward
        self.answers = answers
        self._allowance = Allowance(self._loop.time())
        self._forwarded: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._resume()

    @property
    def inode(self) -> int:
        """Which namespace it serves."""
        return self._opened.inode

    @property
    def ports(self) -> tuple[int, int]:
        """The ports of UDP and TCP."""
        return self._opened.ports

    def close(self) -> None:
        """Stop, and let go of the sockets."""
        self._is_closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._unwatch()
        for task in (*self._forwarded, *self._connections):
            task.cancel()
        self._opened.close()

    # -- turns

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._opened.datagrams.fileno(), self._read)
        self._watch_streams()

    def _watch_streams(self) -> None:
        if len(self._connections) < MOST_CONNECTIONS and self._pause is None:
            self._loop.add_reader(self._opened.streams.fileno(), self._accept)

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._opened.datagrams.fileno())
        self._loop.remove_reader(self._opened.streams.fileno())

    def _may_go_on(self) -> bool:
        """Tell whether there are tokens; without any the container is not listened to for a while."""
        if self._allowance.refill(self._loop.time()) >= 1:
            return True
        if self._pause is None:
            self._unwatch()
            self._pause = self._loop.call_later(self._allowance.wait_seconds(), self._resume)
        return False

    # -- datagrams

    def _read(self) -> None:
        if not self._may_go_on():
            return
        datagrams, answer = self._opened.datagrams, self.answers.answer
        count = 0
        # a full buffer or an unreachable asker: the answer is lost, as any datagram may be
        with contextlib.suppress(OSError):
            while count < READS_A_TURN:
                query, asker = datagrams.recvfrom(MOST_QUERY_BYTES)
                count += 1
                response = answer(query)
                if isinstance(response, bytes):
                    datagrams.sendto(response, asker)
                elif response is not None:
                    self._have_asked(query, response, asker)
        self._allowance.spend(count)

    def _have_asked(self, query: bytes, elsewhere: Elsewhere, asker: tuple[str, int]) -> None:
        if len(self._forwarded) >= MOST_FORWARDED:
            response = codec.respond(query, elsewhere.question, codec.REFUSED, (), codec.LEAST_UDP_BYTES)
            self._opened.datagrams.sendto(response, asker)
            return
        self._allowance.spend(FORWARD_TOKENS)
        task = self._loop.create_task(self._relay(query, elsewhere.question, asker))
        self._forwarded.add(task)
        task.add_done_callback(self._forwarded.discard)

    async def _relay(self, query: bytes, question: Question, asker: tuple[str, int]) -> None:
        response = await self._forward(query, question, False)
        with contextlib.suppress(OSError):
            self._opened.datagrams.sendto(response, asker)

    # -- streams

    def _accept(self) -> None:
        if not self._may_go_on():
            return
        for _ in range(ACCEPTS_A_TURN):
            if len(self._connections) >= MOST_CONNECTIONS:
                self._loop.remove_reader(self._opened.streams.fileno())
                return
            try:
                connection, _ = self._opened.streams.accept()
            except BlockingIOError:
                return
            except OSError:
                # no descriptors left: it stays readable, and must not be looked at all the time
                self._allowance.spend(MOST_TOKENS)
                return
            connection.setblocking(False)
            self._allowance.spend(CONNECTION_TOKENS)
            task = self._loop.create_task(self._converse(connection))
            self._connections.add(task)
            task.add_done_callback(self._hung_up)

    def _hung_up(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        if not self._is_closed:
            self._watch_streams()

    async def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                async with asyncio.timeout(IDLE_SECONDS):
                    (length,) = _LENGTH.unpack(await self._receive(connection, _LENGTH.size))
                    query = await self._receive(connection, length)
                if self._allowance.refill(self._loop.time()) < 1:
                    await asyncio.sleep(self._allowance.wait_seconds())
                self._allowance.spend(1)
                response = self.answers.answer(query, is_stream=True)
                if isinstance(response, Elsewhere):
                    response = await self._forward(query, response.question, True)
                if response is None:
                    return
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._loop.sock_sendall(connection, _LENGTH.pack(len(response)) + response)

    async def _receive(self, connection: socket.socket, count: int) -> bytes:
        found = b""
        while len(found) < count:
            data = await self._loop.sock_recv(connection, count - len(found))
            if not data:
                raise EOFError("the container hung up")
            found += data
        return found
