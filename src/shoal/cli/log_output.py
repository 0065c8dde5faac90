"""What all `logs` commands share: the query of their flags, and writing bytes as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from http.client import HTTPResponse
from typing import Any

from shoal.cli.moments import moment_text
from shoal.client.connection import CHUNK_BYTES


def log_query(given: Mapping[str, Any]) -> dict[str, str | bool | None]:
    """Return the query of the flags --follow, --timestamps, --details, --tail and --since."""
    return {
        "stdout": True,
        "stderr": True,
        "follow": bool(given.get("follow")),
        "timestamps": bool(given.get("timestamps")),
        "details": bool(given.get("details")),
        "tail": given.get("tail") or "all",
        "since": moment_text("--since", given["since"], time.time_ns()) if given.get("since") else None,
    }


def print_raw(response: HTTPResponse) -> None:
    """Write a stream as it comes."""
    while part := response.read1(CHUNK_BYTES):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
