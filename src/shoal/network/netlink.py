"""Raw netlink: attributes, messages and a socket. Families' messages are in rtnetlink, nfnetlink, conntrack.

A socket stays in the network namespace in which it was made, whatever its thread enters later.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

REQUEST, ACK, DUMP, REPLACE, EXCLUSIVE, CREATE, APPEND = 0x1, 0x4, 0x300, 0x100, 0x200, 0x400, 0x800
ROUTE, NETFILTER = 0, 12
NESTED = 0x8000
ERROR, DONE = 2, 3
TYPE_MASK = 0x3FFF
HEADER_BYTES = 16
RECEIVE_BYTES = 1 << 17
BUFFER_BYTES = 8 << 20
TIMEOUT_SECONDS = 10.0
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33


def attribute(kind: int, data: bytes) -> bytes:
    """Encode one attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    """Encode an attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def text(value: str) -> bytes:
    """Encode a string as the kernel reads it."""
    return value.encode() + b"\0"


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Decode a run of attributes."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def message(kind: int, flags: int, body: bytes, sequence: int = 0) -> bytes:
    """Encode one message; `flags` get REQUEST."""
    padded = body + bytes(-len(body) % 4)
    return struct.pack("=IHHII", HEADER_BYTES + len(body), kind, flags | REQUEST, sequence, 0) + padded


class Message:
    """A message with its sequence still open: several go out in one send."""

    __slots__ = ("body", "flags", "kind", "tolerate")

    def __init__(self, kind: int, flags: int, body: bytes, tolerate: tuple[int, ...] = ()) -> None:
        """Take the type, the flags and the body; an answer with an errno of `tolerate` counts as success."""
        self.kind = kind
        self.flags = flags
        self.body = body
        self.tolerate = tolerate


class Socket:
    """A netlink socket of the namespace the calling thread is in; for one thread at a time."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(TIMEOUT_SECONDS)
        self._sequence = 0

    def enlarge_buffers(self) -> None:
        """Make room for batches of thousands of elements."""
        self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)

    def close(self) -> None:
        """Give the descriptor back."""
        self._socket.close()

    def next_sequence(self) -> int:
        """Return a fresh sequence number."""
        self._sequence = self._sequence % 0x7FFFFFFF + 1
        return self._sequence

    def talk(self, messages: list[Message]) -> None:
        """Send all in one go and wait for every acknowledgement.

        Raises:
            OSError: the first refusal that its message does not tolerate; later messages were still carried out.
        """
        if not messages:
            return
        waiting: dict[int, Message] = {}
        parts = []
        for item in messages:
            sequence = self.next_sequence()
            waiting[sequence] = item
            parts.append(message(item.kind, item.flags | ACK, item.body, sequence))
        self._socket.send(b"".join(parts))
        refusal: OSError | None = None
        while waiting:
            for kind, sequence, body in self._receive():
                if kind == ERROR and sequence in waiting:
                    item = waiting.pop(sequence)
                    number = -struct.unpack_from("=i", body)[0]
                    if number and number not in item.tolerate and refusal is None:
                        refusal = OSError(number, f"{os.strerror(number)} (netlink message {item.kind})")
        if refusal is not None:
            raise refusal

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Ask for all objects of a type and yield their bodies."""
        sequence = self.next_sequence()
        self._socket.send(message(kind, DUMP, body, sequence))
        while True:
            for answer, number, content in self._receive():
                if number != sequence:
                    continue
                if answer == ERROR:
                    code = -struct.unpack_from("=i", content)[0]
                    raise OSError(code, os.strerror(code))
                if answer == DONE:
                    return
                yield content

    def ask(self, kind: int, body: bytes) -> bytes | None:
        """Ask for one object; None if there is none (ENODEV, ENOENT)."""
        sequence = self.next_sequence()
        self._socket.send(message(kind, 0, body, sequence))
        while True:
            for answer, number, content in self._receive():
                if number == sequence:
                    return None if answer == ERROR else content

    def send_batch(self, data: bytes, last_sequence: int) -> None:
        """Send an nfnetlink batch (its end asks for an acknowledgement) and wait for the verdict.

        Raises:
            OSError: the kernel refused the batch: nothing of it was applied.
        """
        self._socket.send(data)
        while True:
            for kind, sequence, body in self._receive():
                if kind != ERROR:
                    continue
                number = -struct.unpack_from("=i", body)[0]
                if number:
                    self._drain()
                    raise OSError(number, f"{os.strerror(number)} (message {sequence} of the batch)")
                if sequence == last_sequence:
                    return

    def _drain(self) -> None:
        """Throw away the other refusals of a batch, so that the next one starts clean."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(RECEIVE_BYTES):
                pass
        except BlockingIOError:
            pass
        finally:
            self._socket.settimeout(TIMEOUT_SECONDS)

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(RECEIVE_BYTES)
        offset = 0
        found = []
        while offset + HEADER_BYTES <= len(data):
            length, kind, _flags, sequence, _port = struct.unpack_from("=IHHII", data, offset)
            found.append((kind, sequence, data[offset + HEADER_BYTES : offset + length]))
            offset += (length + 3) & ~3
        return iter(found)
