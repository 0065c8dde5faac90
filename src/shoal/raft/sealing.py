"""Sealing what rests on disk: AES-256-GCM, a random nonce, and associated data that ties a record to its place."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
NONCE_BYTES = 12


class BrokenSeal(Exception):
    """A record was changed, moved, or sealed with another key."""


class Sealer:
    """Seals and opens records with one data key.

    Args:
        key: 32 bytes.
        context: what all records share, such as the id of the swarm.
    """

    def __init__(self, key: bytes, context: bytes) -> None:
        self._cipher = AESGCM(key)
        self._context = context

    def seal(self, data: bytes, place: bytes) -> bytes:
        """Return nonce and sealed data; `place` must be the same when it is opened."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, self._context + place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return what was sealed for this place. Raises BrokenSeal."""
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._context + place)
        except (InvalidTag, ValueError) as error:
            raise BrokenSeal("a record of the raft log cannot be opened: changed, or another key") from error


def load_or_make_key(path: Path) -> bytes:
    """Return the data key in `path`, made at the first call (readable by root only)."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, os.urandom(KEY_BYTES))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise BrokenSeal(f"{path} is no key of {KEY_BYTES} bytes")
    return key
