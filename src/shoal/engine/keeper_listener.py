"""A connection to the keeper over which a container's output comes as it is said, and with it its terminal.

The terminal's master comes as a descriptor (SCM_RIGHTS): what is typed goes straight to the kernel.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

from shoal.engine.descriptors import Descriptor, resolve
from shoal.engine.keeper import listeners, wire
from shoal.errors import Unavailable
from shoal.model.streams import Output


class KeeperListener:
    """See the module. `terminal` is the master, None without one; `at_ns`: what was said before is in the log.

    `waits`: the container does not run yet; what it says, and its terminal, come once `start` has returned.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._descriptors: list[int] = []
        self._stream: Descriptor | None = None
        self.terminal: Descriptor | None = None
        self.at_ns = 0
        self.waits = False

    async def begin(self, request: dict[str, Any]) -> None:
        """Send the request and take the answer. Raises Unavailable (refused), OSError, EOFError, ValueError."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._connection, wire.encode(request))
        answer = await self._answer()
        if "error" in answer:
            raise Unavailable(f"cannot attach to container {request['id']}: {answer['error']}")
        self.at_ns = int(answer["at_ns"])
        self.waits = bool(answer.get("waits"))
        if not self.waits:
            self._take_streams()

    async def start(self) -> bool:
        """Wait until the container runs; False if its start failed, or the keeper went."""
        if self.waits:
            try:
                await self._answer()
            except (OSError, EOFError, ValueError):
                return False
            self.waits = False
            self._take_streams()
        return True

    async def _answer(self) -> dict[str, Any]:
        answer = await self._message()
        while "event" in answer:
            answer = await self._message()
        return answer

    def _take_streams(self) -> None:
        if self._descriptors:
            self.terminal = Descriptor(self._descriptors.pop(0))
        self._stream = Descriptor(self._connection.detach())

    async def _message(self) -> dict[str, Any]:
        header = await self._receive(wire.HEADER_BYTES)
        message: dict[str, Any] = json.loads(await self._receive(wire.body_length(header)))
        return message

    async def _receive(self, count: int) -> bytes:
        """Receive `count` bytes and the descriptors that come with them."""
        found = b""
        loop = asyncio.get_running_loop()
        while len(found) < count:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._connection, count - len(found), 4)
            except BlockingIOError:
                ready: asyncio.Future[None] = loop.create_future()
                loop.add_reader(self._connection.fileno(), resolve, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(self._connection.fileno())
                continue
            self._descriptors += descriptors
            if not data:
                raise EOFError("the keeper hung up")
            found += data
        return found

    async def read(self) -> Output | None:
        """Return the next piece of output; None at the end of the container (or of the keeper)."""
        if self._stream is None:
            return None
        try:
            stream, length = listeners.read_header(await self._stream.read_exactly(listeners.HEADER_BYTES))
            return Output(stream=stream, data=await self._stream.read_exactly(length))
        except EOFError:
            return None

    def close(self) -> None:
        """Let go of the connection and the terminal."""
        self._connection.close()
        if self._stream is not None:
            self._stream.close()
        if self.terminal is not None:
            self.terminal.close()
        while self._descriptors:
            os.close(self._descriptors.pop())
