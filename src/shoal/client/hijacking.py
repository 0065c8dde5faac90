"""A connection that has stopped speaking HTTP and carries a program's bytes in both directions."""

from __future__ import annotations

import http.client
import socket
from contextlib import suppress
from typing import Any


class HijackedStream:
    """The bytes of a program: what it writes is read here, what is sent here it reads.

    Args:
        connection: where the request was sent.
        response: its answer, of which only the head was read.
    """

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> None:
        self._connection = connection
        self._socket: socket.socket = connection.sock
        # what came with the head of the answer is in its buffer
        self._buffer: Any = response.fp
        self._socket.settimeout(None)

    def read(self, amount: int, /) -> bytes:
        """Return what has come, at most `amount` bytes; none at the end."""
        try:
            return bytes(self._buffer.read1(amount))
        except ConnectionResetError:
            return b""

    def readline(self, limit: int = -1, /) -> bytes:
        """Return one line."""
        return bytes(self._buffer.readline(limit))

    def send(self, data: bytes) -> None:
        """Send bytes to the program; one that has gone takes none."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(data)

    def close_input(self) -> None:
        """Tell the program that no more comes; what it writes still does."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()
