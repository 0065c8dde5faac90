"""Frames between engine and keeper: four bytes of length (big endian), then JSON in UTF-8.

engine → keeper   {"seq": 1, "op": "run", "id": …}
keeper → engine   {"seq": 1, …} or {"seq": 1, "error": …}; events carry no seq: {"event": "exit", "id": …, …}
"""

from __future__ import annotations

import json
import struct
from typing import Any

PROTOCOL = 1
MOST_FRAME_BYTES = 4 << 20
_LENGTH = struct.Struct(">I")
HEADER_BYTES = _LENGTH.size


def encode(message: dict[str, Any]) -> bytes:
    """Return the frame of a message."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Return how many bytes follow a header. Raises ValueError above `MOST_FRAME_BYTES`."""
    length: int = _LENGTH.unpack(header)[0]
    if length > MOST_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes is above the bound of {MOST_FRAME_BYTES}")
    return length


class Decoder:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Take more bytes; return the messages that are whole now. Raises ValueError on what is no frame."""
        self._buffer += data
        messages: list[dict[str, Any]] = []
        while len(self._buffer) >= HEADER_BYTES:
            end = HEADER_BYTES + body_length(bytes(self._buffer[:HEADER_BYTES]))
            if len(self._buffer) < end:
                break
            messages.append(json.loads(bytes(self._buffer[HEADER_BYTES:end])))
            del self._buffer[:end]
        return messages
