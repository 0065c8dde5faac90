"""A swarm in a file: what a manager knows, sealed by a passphrase or the unlock key, since it holds the root's key.

The file: a line of JSON that says how the key is derived, then sealed chunks with their lengths: a head, the state in
the chunks of a raft snapshot, and an end. Each chunk is sealed for its place, so none can be moved or left out.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator
from itertools import chain

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from shoal.errors import InvalidArgument, Unauthenticated
from shoal.model.base import Struct
from shoal.raft.sealing import BrokenSeal, Sealer

FORMAT = 1
MAGIC = "shoal swarm backup"
SALT_BYTES = 16
KEY_BYTES = 32
# scrypt as RFC 7914 names its cost: about 100 ms and 32 MiB
COST, BLOCK_SIZE, PARALLELISM = 1 << 15, 8, 1
FIRST_LINE_BYTES_MOST = 1024
CHUNK_BYTES_MOST = 64 << 20
LENGTH = struct.Struct(">I")
END = b"end of the backup"


class _FirstLine(Struct):
    magic: str
    format: int
    salt: str


class BackupHead(Struct):
    """What stands before the state: whose it is, and how far the log had come."""

    cluster_id: str
    node_id: str
    index: int
    term: int
    listen_address: str
    advertise_address: str
    made_at_ns: int


def _sealer(secret: str, salt: bytes) -> Sealer:
    derived = Scrypt(salt=salt, length=KEY_BYTES, n=COST, r=BLOCK_SIZE, p=PARALLELISM).derive(secret.encode())
    return Sealer([derived], MAGIC.encode())


def seal(secret: str, head: BackupHead, state: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the file, piece by piece; slow enough for a thread."""
    salt = os.urandom(SALT_BYTES)
    yield msgspec.json.encode(_FirstLine(magic=MAGIC, format=FORMAT, salt=salt.hex())) + b"\n"
    sealer = _sealer(secret, salt)
    for number, chunk in enumerate(chain((msgspec.msgpack.encode(head),), state, (END,))):
        sealed = sealer.seal(chunk, number.to_bytes(8, "big"))
        yield LENGTH.pack(len(sealed)) + sealed


class Opened(Struct):
    """A backup that was read whole."""

    head: BackupHead
    state: tuple[bytes, ...]


def open_backup(secret: str, content: bytes) -> Opened:
    """Open a file.

    Raises:
        InvalidArgument: no backup, one of a newer version, or one that is cut.
        Unauthenticated: the secret does not open it.
    """
    line, newline, rest = content.partition(b"\n")
    try:
        first = msgspec.json.decode(line[:FIRST_LINE_BYTES_MOST], type=_FirstLine)
        salt = bytes.fromhex(first.salt)
    except (msgspec.DecodeError, ValueError) as error:
        raise InvalidArgument("this is no backup of a swarm") from error
    if first.magic != MAGIC or not newline:
        raise InvalidArgument("this is no backup of a swarm")
    if first.format > FORMAT:
        raise InvalidArgument(f"the backup was made by a newer shoald (format {first.format}, this knows {FORMAT})")
    chunks = list(_open_chunks(_sealer(secret, salt), rest))
    if len(chunks) < 3 or chunks[-1] != END:
        raise InvalidArgument("the backup is cut: its end is missing")
    return Opened(head=msgspec.msgpack.decode(chunks[0], type=BackupHead), state=tuple(chunks[1:-1]))


def _open_chunks(sealer: Sealer, content: bytes) -> Iterator[bytes]:
    position = number = 0
    while position + LENGTH.size <= len(content):
        (length,) = LENGTH.unpack_from(content, position)
        position += LENGTH.size
        if length > CHUNK_BYTES_MOST or position + length > len(content):
            raise InvalidArgument("the backup is cut: its end is missing")
        try:
            yield sealer.open(content[position : position + length], number.to_bytes(8, "big"))
        except BrokenSeal:
            if number == 0:
                raise Unauthenticated("the passphrase does not open this backup") from None
            raise InvalidArgument(f"the backup was changed: its part {number} cannot be opened") from None
        position += length
        number += 1


async def in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what is made in a thread."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
