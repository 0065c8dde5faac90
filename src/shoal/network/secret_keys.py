"""This node's keys in encrypted networks: a file that only root reads, one key or, while others learn of it, two.

A new key is told to the swarm first. It comes into use when the swarm tells it back: by the same word that gives it to
the other nodes, so that all move over together.
"""

from __future__ import annotations

import base64
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from shoal.lib.files import write_atomically
from shoal.model.base import Struct


class Key(Struct):
    """A pair of keys, base64; `generation`: of the order by which it was made, 0: of none."""

    generation: int
    private: str
    public: str


class SecretKeys:
    """See the module. `path`: where they stand, oldest first, a line each: generation and private key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys: tuple[Key, ...] = ()

    @property
    def public(self) -> str:
        """The public half of the newest key, which is to be told to the swarm; empty before `load`."""
        return self._keys[-1].public if self._keys else ""

    def load(self) -> None:
        """Read the file; without one, or with one that holds no key, make a key."""
        try:
            self._keys = tuple(_read(line) for line in self._path.read_text().splitlines())
        except (FileNotFoundError, ValueError):
            self._keys = ()
        if not self._keys:
            self._keep(_make(0))

    def renew(self, generation: int) -> bool:
        """Make another key if the newest is of an earlier generation; return whether one was made."""
        if not self._keys or self._keys[-1].generation >= generation:
            return False
        self._keep(*self._keys[-1:], _make(generation))
        return True

    def private(self, published: str) -> str:
        """Return the private key that others expect.

        Args:
            published: the public key of this node that the swarm has told; the older key goes when it is the newest.
        """
        if published == self.public:
            if len(self._keys) > 1:
                self._keep(self._keys[-1])
            return self._keys[-1].private
        return next((key.private for key in self._keys if key.public == published), self._keys[-1].private)

    def forget(self) -> None:
        """Take the file away."""
        self._path.unlink(missing_ok=True)
        self._keys = ()

    def _keep(self, *keys: Key) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        text = "".join(f"{key.generation} {key.private}\n" for key in keys)
        write_atomically(self._path, text.encode(), 0o600)
        self._keys = keys


def _make(generation: int) -> Key:
    return _pair(generation, X25519PrivateKey.generate())


def _read(line: str) -> Key:
    generation, private = line.split()
    return _pair(int(generation), X25519PrivateKey.from_private_bytes(base64.b64decode(private, validate=True)))


def _pair(generation: int, key: X25519PrivateKey) -> Key:
    raw, no_lock = serialization.Encoding.Raw, serialization.NoEncryption()
    private = key.private_bytes(raw, serialization.PrivateFormat.Raw, no_lock)
    public = key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    return Key(
        generation=generation, private=base64.b64encode(private).decode(), public=base64.b64encode(public).decode()
    )
