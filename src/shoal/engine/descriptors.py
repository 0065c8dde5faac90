"""Reading and writing of pipes, terminals and sockets by descriptor, with the event loop's help.

No buffers of its own beyond what one call reads: who does not read holds the other side up. Knows bytes only.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from typing import Any

READ_BYTES = 32 * 1024


class Descriptor:
    """A descriptor that does not block; closed by `close`, once. One reader and one writer at a time."""

    def __init__(self, number: int) -> None:
        os.set_blocking(number, False)
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def number(self) -> int:
        """The descriptor, -1 once closed."""
        return self._number

    async def read(self, most_bytes: int = READ_BYTES) -> bytes:
        """Return what is there, at least a byte; nothing at the end (for a terminal: its last user has gone)."""
        while self._number >= 0:
            try:
                return os.read(self._number, most_bytes)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                if error.errno in {errno.EIO, errno.ECONNRESET}:
                    return b""
                raise
        return b""

    async def read_exactly(self, count: int) -> bytes:
        """Return `count` bytes. Raises EOFError if the end comes first."""
        found = b""
        while len(found) < count:
            piece = await self.read(count - len(found))
            if not piece:
                raise EOFError("the end came too soon")
            found += piece
        return found

    async def write(self, data: bytes) -> bool:
        """Write all; False if nobody reads any more."""
        rest = memoryview(data)
        while rest:
            if self._number < 0:
                return False
            try:
                rest = rest[os.write(self._number, rest) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)
            except OSError as error:
                if error.errno in {errno.EPIPE, errno.EIO, errno.ECONNRESET}:
                    return False
                raise
        return True

    async def _ready(self, add: Callable[..., Any], remove: Callable[[int], Any]) -> None:
        number = self._number
        ready: asyncio.Future[None] = self._loop.create_future()
        self._waiters.add(ready)
        add(number, resolve, ready)
        try:
            await ready
        finally:
            self._waiters.discard(ready)
            # a number that was closed meanwhile may be somebody else's by now: `close` has removed it
            if self._number == number:
                remove(number)

    def close(self) -> None:
        """Close it: who waits for it finds the end."""
        if self._number >= 0:
            number, self._number = self._number, -1
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)
            os.close(number)
            for ready in self._waiters:
                resolve(ready)


def resolve(ready: asyncio.Future[None]) -> None:
    """Wake who waits for a descriptor."""
    if not ready.done():
        ready.set_result(None)
