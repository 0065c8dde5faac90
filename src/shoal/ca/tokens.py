"""Join tokens and unlock keys, in Docker's form (docker-swarm.md 3.1)."""

from __future__ import annotations

import base64
import hashlib

from shoal.lib.ids import Ids, to_base36
from shoal.model.objects import RootCA

TOKEN_PREFIX = "SWMTKN-1-"  # noqa: S105 - the public part of every token
DIGEST_LENGTH = 50
SECRET_LENGTH = 25
SECRET_BYTES = 16
UNLOCK_KEY_PREFIX = "SWMKEY-1-"
UNLOCK_KEY_BYTES = 32


def make_join_token(root: RootCA, ids: Ids) -> str:
    """Make a token: it names the root by the digest of its PEM bytes, so that a joining node can check it."""
    digest = int.from_bytes(hashlib.sha256(root.certificate.encode()).digest(), "big")
    secret = int.from_bytes(ids.random_bytes(SECRET_BYTES), "big")
    return f"{TOKEN_PREFIX}{to_base36(digest, DIGEST_LENGTH)}-{to_base36(secret, SECRET_LENGTH)}"


def make_unlock_key(ids: Ids) -> str:
    """Make a key that unlocks managers."""
    return UNLOCK_KEY_PREFIX + base64.b64encode(ids.random_bytes(UNLOCK_KEY_BYTES)).rstrip(b"=").decode()
