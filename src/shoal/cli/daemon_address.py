"""Which daemon a command talks to, and how: `-H` and `--tls*`, else SHOAL_HOST, else docker's own variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from shoal.client.connection import DEFAULT_HOST
from shoal.client.dialing import TlsFiles

HOST_VARIABLES = ("SHOAL_HOST", "DOCKER_HOST")
VERIFY_VARIABLE = "DOCKER_TLS_VERIFY"
CERTIFICATES_VARIABLE = "DOCKER_CERT_PATH"
CERTIFICATES = "~/.docker"


def chosen_host(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> str:
    """Return the daemon's address.

    Args:
        given: the values of the flags before the command.
        environment: where SHOAL_HOST and DOCKER_HOST are looked for.
    """
    named = next((environment[name] for name in HOST_VARIABLES if environment.get(name)), "")
    return given.get("host") or named or DEFAULT_HOST


def chosen_tls(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> TlsFiles | None:
    """Return the certificates to use; None if nothing asks for TLS. Arguments as `chosen_host`."""
    verifies = bool(given.get("tlsverify") or environment.get(VERIFY_VARIABLE))
    named = [given.get(name) for name in ("tlscacert", "tlscert", "tlskey")]
    if not (verifies or given.get("tls") or any(named)):
        return None
    from pathlib import Path

    folder = Path(environment.get(CERTIFICATES_VARIABLE) or CERTIFICATES).expanduser()
    authority, certificate, key = (
        Path(path) if path else folder / f"{name}.pem" for path, name in zip(named, ("ca", "cert", "key"), strict=True)
    )
    return TlsFiles(authority, certificate, key, verifies)
