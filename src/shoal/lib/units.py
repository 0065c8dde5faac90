"""Durations and times in the forms Docker's API and command use."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

NANOSECONDS: dict[str, int] = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|z|[+-]\d\d:\d\d)?")


def parse_duration_ns(text: str) -> int:
    """Read a Go duration (`1h30m`, `250ms`, `0`) as nanoseconds.

    Raises:
        ValueError: `text` is no duration; the message names it.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total, position = 0.0, 0
    for part in _DURATION_PART.finditer(rest):
        if part.start() != position:
            break
        total += float(part[1]) * NANOSECONDS[part[2]]
        position = part.end()
    if not rest or position != len(rest):
        raise ValueError(f'invalid duration "{text}": use numbers with units, such as 300ms, 10s or 1h30m')
    return sign * round(total)


@lru_cache(maxsize=4096)
def _whole_seconds(seconds: int) -> str:
    """Write whole seconds; lists repeat the same ones over and over."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def format_time(nanoseconds: int) -> str:
    """Write a time as RFC 3339 with up to nine digits and `Z`, as Go's RFC3339Nano does (zeros at the end cut)."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = _whole_seconds(seconds)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def format_time_fixed(nanoseconds: int) -> str:
    """Write a time as RFC 3339 with exactly nine digits: the form of log lines."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{_whole_seconds(seconds)}.{fraction:09d}Z"


def parse_time_ns(text: str) -> int:
    """Read RFC 3339 or Unix seconds (`1700000000.25`) as nanoseconds since the epoch.

    Raises:
        ValueError: neither form; the message names the text.
    """
    if re.fullmatch(r"\d+(\.\d{1,9})?", text):
        seconds, _, fraction = text.partition(".")
        return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0") or 0)
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f'invalid time "{text}": use RFC 3339 or Unix seconds')
    zone = (match[4] or "Z").upper().replace("Z", "+00:00")
    whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}")
    return int(whole.timestamp()) * 1_000_000_000 + int((match[3] or "").ljust(9, "0"))
