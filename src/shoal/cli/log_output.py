"""What all `logs` commands share: the query of their flags, and writing bytes as they come."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from http.client import HTTPResponse
from typing import Any

from shoal.client.connection import CHUNK_BYTES
from shoal.errors import InvalidArgument
from shoal.lib.units import NANOSECONDS, format_time, parse_duration_ns, parse_time_ns


def log_query(given: Mapping[str, Any]) -> dict[str, str | bool | None]:
    """Return the query of the flags --follow, --timestamps, --details, --tail and --since."""
    return {
        "stdout": True,
        "stderr": True,
        "follow": bool(given.get("follow")),
        "timestamps": bool(given.get("timestamps")),
        "details": bool(given.get("details")),
        "tail": given.get("tail") or "all",
        "since": _since(given["since"]) if given.get("since") else None,
    }


def _since(text: str) -> str:
    """Write a time, or a span before now, as seconds."""
    try:
        nanoseconds = time.time_ns() - parse_duration_ns(text)
    except ValueError:
        try:
            nanoseconds = parse_time_ns(text)
        except ValueError:
            example = format_time(time.time_ns() // NANOSECONDS["s"] * NANOSECONDS["s"])
            raise InvalidArgument(f'--since "{text}": write a time such as {example}, or a span such as 42m') from None
    seconds, rest = divmod(nanoseconds, NANOSECONDS["s"])
    return f"{seconds}.{rest:09d}"


def print_raw(response: HTTPResponse) -> None:
    """Write a stream as it comes."""
    while part := response.read1(CHUNK_BYTES):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
