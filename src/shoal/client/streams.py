"""Reading the API's streams: log frames, and JSON objects one after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

from shoal.errors import ShoalError

HEADER_BYTES = 8
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
# a frame holds one line; anything near this is no frame
MOST_FRAME_BYTES = 64 << 20
STDERR = 2
SYSTEM_ERROR = 3


class Readable(Protocol):
    """What frames are read from."""

    def read(self, amount: int, /) -> bytes:
        """Return at most `amount` bytes, none at the end."""

    def readline(self, limit: int = -1, /) -> bytes:
        """Return one line."""


def read_frames(source: Readable) -> Iterator[tuple[int, bytes]]:
    """Yield (stream number, payload) of a multiplexed stream: 1 output, 2 error output.

    Raises:
        ShoalError: the stream is cut, is none of frames, or the daemon wrote an error into it.
    """
    while header := _read_exactly(source, HEADER_BYTES, may_end=True):
        stream, size = header[0], int.from_bytes(header[4:8], "big")
        if stream > SYSTEM_ERROR or header[1:4] != b"\0\0\0" or size > MOST_FRAME_BYTES:
            raise ShoalError("the daemon's log stream is damaged: no frame where one must begin")
        payload = _read_exactly(source, size)
        if stream == SYSTEM_ERROR:
            raise ShoalError(payload.decode(errors="replace").strip())
        yield stream, payload


def _read_exactly(source: Readable, size: int, *, may_end: bool = False) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = source.read(size - len(parts))
        if not part:
            if may_end and not parts:
                return b""
            raise ShoalError("the daemon's log stream was cut short")
        parts += part
    return bytes(parts)


def read_objects(source: Readable) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a progress stream, one a line.

    Raises:
        ShoalError: an object tells an error; its text.
    """
    while line := source.readline():
        if not line.strip():
            continue
        item = json.loads(line)
        if "error" in item:
            raise ShoalError(str(item["error"]))
        yield item


def parse_details(text: str) -> dict[str, str]:
    """Read a line's details: `key=value,…`, escaped as in a query."""
    from urllib.parse import unquote_plus

    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return {unquote_plus(key): unquote_plus(value) for key, _, value in pairs}
