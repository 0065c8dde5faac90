"""Sealing what rests on disk: AES-256-GCM, a random nonce, and associated data that ties a record to its place.

The data key itself rests in a file, plain or wrapped by the swarm's unlock key.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shoal.errors import Locked, WrongUnlockKey
from shoal.lib.files import write_atomically

KEY_BYTES = 32
NONCE_BYTES = 12
WRAPPED_MARK = b"shoal wrapped key 1\n"
KEY_CONTEXT = b"data key of "


class BrokenSeal(Exception):
    """A record was changed, moved, or sealed with another key."""


class Sealer:
    """Seals and opens records.

    Args:
        keys: of 32 bytes each; the first seals, and all open.
        context: what all records share, such as the id of the swarm.
    """

    def __init__(self, keys: Sequence[bytes], context: bytes) -> None:
        self._context = context
        self.use(keys)

    def use(self, keys: Sequence[bytes]) -> None:
        """Take other keys from now on."""
        self._ciphers = tuple(AESGCM(key) for key in keys)

    def seal(self, data: bytes, place: bytes) -> bytes:
        """Return nonce and sealed data; `place` must be the same when it is opened."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, data, self._context + place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return what was sealed for this place. Raises BrokenSeal."""
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], self._context + place)
            except (InvalidTag, ValueError):
                continue
        raise BrokenSeal("a record of the raft log cannot be opened: changed, or another key")


class KeyFile:
    """The file that holds the data key: plain, or wrapped by the swarm's unlock key (autolock).

    While the data key is rotated it holds two, the new one first.

    Args:
        path: of the file, readable by root only.
        cluster_id: a key that is wrapped for one swarm cannot be opened for another.
    """

    def __init__(self, path: Path, cluster_id: str) -> None:
        self._path = path
        self._context = KEY_CONTEXT + cluster_id.encode()
        self._keys: tuple[bytes, ...] = ()
        self._unlock_key: bytes | None = None

    def is_locked(self) -> bool:
        """Whether the unlock key is needed to read it."""
        return self._path.exists() and self._path.read_bytes().startswith(WRAPPED_MARK)

    def load(self, unlock_key: bytes | None = None) -> bytes:
        """Return the data key, made at the first call; an unlock key that is not needed is not looked at.

        Raises:
            Locked: the key is wrapped and no unlock key was given.
            WrongUnlockKey: it was wrapped by another.
            BrokenSeal: the file is no key.
        """
        if not self._path.exists():
            write_atomically(self._path, os.urandom(KEY_BYTES))
        content = self._path.read_bytes()
        is_wrapped = content.startswith(WRAPPED_MARK)
        if is_wrapped:
            if unlock_key is None:
                raise Locked
            try:
                content = Sealer([unlock_key], self._context).open(content[len(WRAPPED_MARK) :], b"")
            except (BrokenSeal, ValueError):
                raise WrongUnlockKey from None
        if len(content) not in (KEY_BYTES, 2 * KEY_BYTES):
            raise BrokenSeal(f"{self._path} is no key of {KEY_BYTES} bytes")
        self._unlock_key = unlock_key if is_wrapped else None
        self._keys = tuple(content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES))
        return self._keys[0]

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The data key, and the one before it while that is rotated. Raises Locked if it was not loaded."""
        if not self._keys:
            self.load()
        return self._keys

    @property
    def is_rotating(self) -> bool:
        """Whether a rotation was begun and not finished."""
        return len(self.keys) > 1

    def wrap(self, unlock_key: bytes) -> None:
        """Wrap the key by `unlock_key` (32 bytes), whatever it was wrapped by; on disk when this returns."""
        self._write(self.keys, unlock_key)

    def unwrap(self) -> None:
        """Store the key plain; on disk when this returns."""
        self._write(self.keys, None)

    def begin_rotation(self, unlock_key: bytes | None) -> None:
        """Put a new key before the present one, both wrapped by `unlock_key` (None: plain).

        One that was begun and not finished goes on: something may still be sealed with either key.
        """
        self._write(self.keys if self.is_rotating else (os.urandom(KEY_BYTES), self.keys[0]), unlock_key)

    def finish_rotation(self) -> None:
        """Forget the key before the present one: nothing is sealed with it any more."""
        self._write(self.keys[:1], self._unlock_key)

    def _write(self, keys: tuple[bytes, ...], unlock_key: bytes | None) -> None:
        content = b"".join(keys)
        if unlock_key is not None:
            content = WRAPPED_MARK + Sealer([unlock_key], self._context).seal(content, b"")
        write_atomically(self._path, content)
        self._keys, self._unlock_key = keys, unlock_key
