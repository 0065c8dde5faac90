"""What schemathesis is told about requests (see tests/fuzz.py); runs in schemathesis' own Python.

Most requests name something that is there, and most updates name its present version: what is made up alone would
hardly come further than "no such service".
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
from typing import Any
from urllib.parse import quote

import schemathesis

REAL = 0.75
NAMES = {
    "Config": ("config",),
    "Container": ("box", "web.1"),
    "Exec": ("box",),
    "Image": ("busybox", "ubuntu", "nginx:alpine"),
    "Network": ("net", "local", "ingress", "bridge"),
    "Node": ("self",),
    "Secret": ("secret",),
    "Service": ("web",),
    "Task": ("web.1",),
    "Volume": ("volume",),
}


def version_of(path: str) -> int | None:
    """Ask for the present version of what an update is about."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["SHOAL_FUZZ_PORT"]), timeout=10)
    try:
        connection.request("GET", quote(path.removesuffix("/update"), safe="/"))
        answer = json.loads(connection.getresponse().read())
        return int(answer["Version"]["Index"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@schemathesis.serializer("application/x-tar")
def archive(_context: Any, value: Any) -> bytes:
    """Send what was made up as it is: hardly ever an archive."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


@schemathesis.hook
def before_call(_context: Any, case: Any, _keywords: Any) -> None:
    """Put in names and versions of what is there."""
    names = NAMES.get((case.operation.tags or [""])[0])
    for parameter in ("id", "name"):
        if names and parameter in (case.path_parameters or {}) and random.random() < REAL:
            case.path_parameters[parameter] = random.choice(names)
    if "version" in (case.query or {}) and random.random() < REAL:
        version = version_of(case.formatted_path)
        if version is not None:
            case.query["version"] = version
    # streams of which something comes now and then: a client that reads to the end would do so for ever
    if case.path == "/containers/{id}/stats":
        case.query = {**(case.query or {}), "stream": "false"}
    if case.path == "/events":
        case.query = {**(case.query or {}), "until": str(int(time.time()))}
