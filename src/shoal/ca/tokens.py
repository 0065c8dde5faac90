"""Join tokens and unlock keys, in Docker's form (docker-swarm.md 3.1)."""

from __future__ import annotations

import base64
import hashlib
import re

from shoal.errors import InvalidArgument
from shoal.lib.ids import Ids, to_base36
from shoal.model.base import Struct
from shoal.model.objects import RootCA

TOKEN_PREFIX = "SWMTKN-1-"  # noqa: S105 - the public part of every token
DIGEST_LENGTH = 50
SECRET_LENGTH = 25
SECRET_BYTES = 16
UNLOCK_KEY_PREFIX = "SWMKEY-1-"
UNLOCK_KEY_BYTES = 32
_TOKEN = re.compile(rf"{TOKEN_PREFIX}([0-9a-z]{{{DIGEST_LENGTH}}})-([0-9a-z]{{{SECRET_LENGTH}}})")


class JoinToken(Struct):
    """A token taken apart: `digest` names the root of the swarm, `secret` says that its bearer may come in."""

    digest: str
    secret: str


def digest_of(root_certificate: str) -> str:
    """Return the digest by which tokens name a root: SHA-256 of its PEM bytes in base 36."""
    digest = int.from_bytes(hashlib.sha256(root_certificate.encode()).digest(), "big")
    return to_base36(digest, DIGEST_LENGTH)


def make_join_token(root: RootCA, ids: Ids) -> str:
    """Make a token: it names the root by the digest of its PEM bytes, so that a joining node can check it."""
    secret = int.from_bytes(ids.random_bytes(SECRET_BYTES), "big")
    return f"{TOKEN_PREFIX}{digest_of(root.certificate)}-{to_base36(secret, SECRET_LENGTH)}"


def parse_join_token(text: str) -> JoinToken:
    """Take a token apart. Raises InvalidArgument (Docker's text)."""
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise InvalidArgument("invalid join token")
    return JoinToken(digest=found[1], secret=found[2])


def make_unlock_key(ids: Ids) -> str:
    """Make a key that unlocks managers."""
    return UNLOCK_KEY_PREFIX + base64.b64encode(ids.random_bytes(UNLOCK_KEY_BYTES)).rstrip(b"=").decode()


def parse_unlock_key(text: str) -> bytes:
    """Return the 32 bytes of an unlock key in its readable form. Raises InvalidArgument."""
    try:
        key = base64.b64decode(text.removeprefix(UNLOCK_KEY_PREFIX) + "=", validate=True)
    except ValueError:
        key = b""
    if not text.startswith(UNLOCK_KEY_PREFIX) or len(key) != UNLOCK_KEY_BYTES:
        raise InvalidArgument(f"invalid human-readable key: it is {UNLOCK_KEY_PREFIX} and 43 characters")
    return key
