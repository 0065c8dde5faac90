"""Credentials for a registry as clients send them: the header `X-Registry-Auth`, base64url of JSON. Pure."""

from __future__ import annotations

import base64
import binascii

import msgspec

from shoal.engine.protocol import RegistryCredentials
from shoal.errors import InvalidArgument


class _Sent(msgspec.Struct):
    username: str = ""
    password: str = ""
    identitytoken: str = ""


def decode_credentials(header: str) -> RegistryCredentials | None:
    """Read an X-Registry-Auth header; None if it names nobody. Raises InvalidArgument."""
    if not header:
        return None
    try:
        raw = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        sent = msgspec.json.decode(raw, type=_Sent | None)
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidArgument("invalid X-Registry-Auth header: it is no base64 of a JSON object") from None
    if sent is None or not (sent.username or sent.identitytoken):
        return None
    return RegistryCredentials(username=sent.username, password=sent.password, identity_token=sent.identitytoken)
