"""Which names things may have (docker-swarm.md 3.1)."""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument

MAX_SERVICE_NAME = 63
MAX_PAYLOAD_NAME = 64
_DNS_NAME = re.compile(r"[a-zA-Z0-9](?:[-_]*[A-Za-z0-9])*")
_PAYLOAD_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?")


def validate_dns_name(name: str) -> None:
    """Check the name of a service or a network.

    Raises:
        InvalidArgument: empty, no DNS name component, or longer than 63 characters.
    """
    if not name:
        raise InvalidArgument("meta: name must be provided")
    if len(name) > MAX_SERVICE_NAME:
        raise InvalidArgument(f"name must be {MAX_SERVICE_NAME} characters or fewer")
    if _DNS_NAME.fullmatch(name) is None:
        raise InvalidArgument("name must be valid as a DNS name component")


def validate_payload_name(name: str) -> None:
    """Check the name of a secret or a config. Raises InvalidArgument."""
    if not name:
        raise InvalidArgument("name must be provided")
    if len(name) > MAX_PAYLOAD_NAME or _PAYLOAD_NAME.fullmatch(name) is None:
        raise InvalidArgument(
            f"invalid name, only {MAX_PAYLOAD_NAME} [a-zA-Z0-9-_.] characters allowed, "
            "and the start and end character must be [a-zA-Z0-9]"
        )
