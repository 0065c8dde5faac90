"""DNS messages as bytes: reads a query of one question, writes its answers. Pure; knows no names and no networks.

Made for speed: a query is cut by hand, an answer repeats the question and points to its name. Whatever comes in,
nothing raises: what is no query is dropped, what is a broken one is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

HEADER_BYTES = 12
LEAST_UDP_BYTES, MOST_UDP_BYTES, MOST_TCP_BYTES = 512, 4096, 65535
MOST_NAME_BYTES, MOST_LABEL_BYTES = 255, 63

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
INTERNET = 1
NO_ERROR, FORMAT_ERROR, SERVER_FAILURE, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = 0, 1, 2, 3, 4, 5

_RESPONSE, _OPCODE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x80, 0x78, 0x02, 0x01, 0x80
_COUNTS = struct.Struct(">HHHH")
_TYPE_AND_CLASS = struct.Struct(">HH")
_OPT_HEADER = struct.Struct(">BHHIH")
# an answer's name: where the question has it
_POINTER = b"\xc0\x0c"
_RECORD = struct.Struct(">HHIH")
# what is said of our own side: UDP messages of up to 4096 bytes, EDNS version 0
_OWN_OPT = _OPT_HEADER.pack(0, OPT, MOST_UDP_BYTES, 0, 0)


class Question(NamedTuple):
    """What a query asks.

    `name` is in lower case, labels joined by dots, without the last one. `end`: where the question ends. `udp_bytes`:
    the largest answer the asker takes over UDP. `has_options`: it speaks EDNS, so the answer must.
    """

    name: bytes
    kind: int
    class_: int
    end: int
    udp_bytes: int
    has_options: bool


class Refusal(NamedTuple):
    """A query that is not answered: with which code it is sent back."""

    code: int


def parse(query: bytes) -> Question | Refusal | None:
    """Cut a query. None: not to be answered at all (too short to be one, or itself an answer)."""
    if len(query) < HEADER_BYTES or query[2] & _RESPONSE:
        return None
    if query[2] & _OPCODE:
        return Refusal(NOT_IMPLEMENTED)
    questions, answers, authorities, additional = _COUNTS.unpack_from(query, 4)
    if questions != 1:
        return Refusal(FORMAT_ERROR)
    found = _parse_name(query)
    if found is None or found[1] + _TYPE_AND_CLASS.size > len(query):
        return Refusal(FORMAT_ERROR)
    name, offset = found
    kind, class_ = _TYPE_AND_CLASS.unpack_from(query, offset)
    end = offset + _TYPE_AND_CLASS.size
    udp_bytes, has_options = LEAST_UDP_BYTES, False
    if additional and not answers and not authorities and end < len(query):
        if end + _OPT_HEADER.size > len(query):
            return Refusal(FORMAT_ERROR)
        root, record, size, _, _ = _OPT_HEADER.unpack_from(query, end)
        if root == 0 and record == OPT:
            udp_bytes, has_options = min(max(size, LEAST_UDP_BYTES), MOST_UDP_BYTES), True
    return Question(name, kind, class_, end, udp_bytes, has_options)


def _parse_name(query: bytes) -> tuple[bytes, int] | None:
    """Return the question's name and the offset after it; None: broken, too long, or compressed."""
    offset, size = HEADER_BYTES, len(query)
    labels: list[bytes] = []
    while offset < size:
        length = query[offset]
        offset += 1
        if length == 0:
            if offset - HEADER_BYTES > MOST_NAME_BYTES:
                return None
            return b".".join(labels).lower(), offset
        if length > MOST_LABEL_BYTES or offset - HEADER_BYTES > MOST_NAME_BYTES:
            return None
        labels.append(query[offset : offset + length])
        offset += length
    return None


def encode_name(name: bytes) -> bytes | None:
    """Return a name (labels joined by dots) as it stands in a message; None: it cannot."""
    labels = name.split(b".") if name else []
    if any(not 0 < len(label) <= MOST_LABEL_BYTES for label in labels):
        return None
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return encoded if len(encoded) <= MOST_NAME_BYTES else None


def record(kind: int, seconds_to_live: int, data: bytes) -> bytes:
    """Return an answer's record for the name of the question."""
    return _POINTER + _RECORD.pack(kind, INTERNET, seconds_to_live, len(data)) + data


def respond(query: bytes, question: Question, code: int, records: Sequence[bytes], most_bytes: int) -> bytes:
    """Return the answer to a query; of records that do not fit the first ones are sent, marked as truncated."""
    tail = _OWN_OPT if question.has_options else b""
    room = most_bytes - question.end - len(tail)
    truncated = 0
    kept = records
    if sum(map(len, records)) > room:
        truncated = _TRUNCATED
        kept = []
        for item in records:
            room -= len(item)
            if room < 0:
                break
            kept.append(item)
    return b"".join(
        (
            query[:2],
            bytes((_RESPONSE | truncated | query[2] & (_OPCODE | _RECURSION_DESIRED), _RECURSION_AVAILABLE | code)),
            _COUNTS.pack(1, len(kept), 0, 1 if tail else 0),
            query[HEADER_BYTES : question.end],
            *kept,
            tail,
        )
    )


def refuse(query: bytes, code: int) -> bytes:
    """Return the answer to a query whose question cannot be repeated: a header with a code."""
    flags = bytes((_RESPONSE | query[2] & (_OPCODE | _RECURSION_DESIRED), _RECURSION_AVAILABLE | code))
    return query[:2] + flags + bytes(8)


def code_of(response: bytes) -> int:
    """Return the code of a message of at least a header."""
    return response[3] & 0x0F


def answers_query(response: bytes, query: bytes, question: Question) -> bool:
    """Tell whether a message from a name server is the answer to a query (and not a stray or forged one)."""
    if len(response) < HEADER_BYTES or response[:2] != query[:2] or not response[2] & _RESPONSE:
        return False
    if response[4:6] == b"\0\0":
        # some servers refuse without repeating the question
        return code_of(response) != NO_ERROR
    asked = query[HEADER_BYTES : question.end]
    return response[HEADER_BYTES : question.end].lower() == asked.lower()
