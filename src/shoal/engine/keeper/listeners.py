"""Who listens to a container's output as it comes: the engine's connections for attached clients.

A listener that does not read holds the container's output up, as with Docker, but not for ever: after
`MOST_STALL_SECONDS` it is dropped. Knows sockets and bytes, not containers.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable

FULL_BYTES = 256 * 1024
MOST_STALL_SECONDS = 60.0
_FRAME = struct.Struct(">B3xI")
HEADER_BYTES = _FRAME.size
STREAMS = {"stdout": 1, "stderr": 2}
NAMES = {number: name for name, number in STREAMS.items()}

Watch = Callable[[int, int, Callable[[int], None]], None]


def frame(name: str, data: bytes) -> bytes:
    """Return a piece of output as it goes to the engine: number of its stream, three zeros, length, data."""
    return _FRAME.pack(STREAMS[name], len(data)) + data


def read_header(header: bytes) -> tuple[str, int]:
    """Return the stream and the length of the piece that follows a header."""
    number, length = _FRAME.unpack(header)
    return NAMES[number], length


class Listener:
    """One connection. `watch` and `unwatch` are the keeper's; `on_change` is called when it may take more, or goes."""

    def __init__(
        self,
        connection: socket.socket,
        watch: Watch,
        unwatch: Callable[[int], None],
        on_change: Callable[[Listener], None],
    ) -> None:
        self._connection = connection
        self._watch = watch
        self._unwatch = unwatch
        self._on_change = on_change
        self._backlog = bytearray()
        self._ending = False
        self._waits_for_room = False
        self._full_since = 0.0
        self.is_gone = False
        self._set_events()

    @property
    def is_full(self) -> bool:
        """Whether it has not read what it was sent."""
        return len(self._backlog) >= FULL_BYTES

    def is_stalled(self, now: float) -> bool:
        """Whether it has been full for too long."""
        return self.is_full and now - self._full_since > MOST_STALL_SECONDS

    def send(self, data: bytes) -> None:
        """Send a frame, or keep it until there is room."""
        if self.is_gone:
            return
        was_full = self.is_full
        self._backlog += data
        self._flush()
        if self.is_full and not was_full:
            self._full_since = time.monotonic()

    def end(self) -> None:
        """Close the connection once all is sent."""
        self._ending = True
        self._flush()

    def drop(self) -> None:
        """Close the connection now."""
        if not self.is_gone:
            self.is_gone = True
            self._unwatch(self._connection.fileno())
            self._connection.close()
            self._on_change(self)

    def _set_events(self) -> None:
        self._unwatch(self._connection.fileno())
        events = select.EPOLLIN | (select.EPOLLOUT if self._backlog else 0)
        self._watch(self._connection.fileno(), events, self._on_events)

    def _on_events(self, events: int) -> None:
        if events & select.EPOLLOUT:
            was_full = self.is_full
            self._flush()
            if was_full and not self.is_full and not self.is_gone:
                self._on_change(self)
        if self.is_gone or not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            # nothing is said this way: what can be read is the end
            if not self._connection.recv(4096):
                self.drop()
        except BlockingIOError:
            return
        except OSError:
            self.drop()

    def _flush(self) -> None:
        try:
            while self._backlog:
                del self._backlog[: self._connection.send(self._backlog)]
        except BlockingIOError:
            if not self._waits_for_room:
                self._waits_for_room = True
                self._set_events()
            return
        except OSError:
            self.drop()
            return
        if self._ending:
            self.drop()
        elif self._waits_for_room:
            self._waits_for_room = False
            self._set_events()


class Audience:
    """The listeners of one container."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def __bool__(self) -> bool:
        return bool(self._listeners)

    @property
    def is_full(self) -> bool:
        """Whether one of them must read before more is said."""
        return any(listener.is_full for listener in self._listeners)

    def add(self, listener: Listener) -> None:
        """Let it hear what is said from now on."""
        self._listeners.append(listener)

    def show(self, name: str, data: bytes) -> None:
        """Send a piece of output to all."""
        if not self._listeners or not data:
            return
        piece = frame(name, data)
        for listener in list(self._listeners):
            listener.send(piece)

    def forget(self, listener: Listener) -> None:
        """Do not send to it any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def drop_stalled(self) -> None:
        """Drop who has not read for too long."""
        now = time.monotonic()
        for listener in [listener for listener in self._listeners if listener.is_stalled(now)]:
            listener.drop()

    def end(self) -> None:
        """Nothing more will be said: let each go once it has all."""
        for listener in list(self._listeners):
            listener.end()
        self._listeners.clear()

    def drop(self) -> None:
        """Let all go at once."""
        for listener in list(self._listeners):
            listener.drop()
        self._listeners.clear()
