"""Output of containers cut into log lines, as Docker's json-file driver writes them: pure functions.

A line longer than 16 KiB is cut into pieces; a piece without newline at its end is partial.
"""

from __future__ import annotations

from datetime import datetime, timezone
from json.encoder import encode_basestring

PIECE_BYTES = 16 * 1024


def split_pieces(data: bytes, at_end: bool) -> tuple[list[bytes], int]:
    """Cut `data` into pieces.

    Args:
        data: what the container has written and nobody has taken yet.
        at_end: nothing more will come, so that what has no newline is a piece, too.

    Returns:
        The pieces, and how many bytes of `data` they cover: the rest waits for more.
    """
    pieces: list[bytes] = []
    position, length = 0, len(data)
    while position < length:
        end = data.find(b"\n", position, position + PIECE_BYTES) + 1
        if end == 0:
            if length - position >= PIECE_BYTES:
                end = position + PIECE_BYTES
            elif at_end:
                end = length
            else:
                break
        pieces.append(data[position:end])
        position = end
    return pieces, position


def format_time(nanoseconds: int) -> str:
    """Write a time as RFC 3339 with nine digits."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    whole = datetime.fromtimestamp(seconds, timezone.utc)  # noqa: UP017 - `UTC` costs an import of a newer name
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def encode_lines(pieces: list[bytes], stream: str, at_ns: int) -> bytes:
    """Return the lines of a json-file log for pieces that arrived at one time."""
    tail = f',"stream":"{stream}","time":"{format_time(at_ns)}"}}\n'
    return "".join(f'{{"log":{encode_basestring(piece.decode("utf-8", "replace"))}{tail}' for piece in pieces).encode()
