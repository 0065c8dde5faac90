"""How Docker writes values for people: ages, sizes, short ids. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

SHORT_ID = 12
SECOND_NS = 1_000_000_000
_AGES = (  # from this many seconds on, in units of so many seconds
    (86400 * 365 * 2, 86400 * 365, "years"),
    (86400 * 60, 86400 * 30, "months"),
    (86400 * 14, 86400 * 7, "weeks"),
    (3600 * 48, 86400, "days"),
    (3600 * 2, 3600, "hours"),
)
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def age_text(seconds: float) -> str:
    """Write a span as Docker does: `About a minute`, `3 hours`, `2 weeks`."""
    for least, unit, word in _AGES:
        if seconds >= least:
            return f"{int(seconds / unit)} {word}"
    if seconds >= 5400:  # an hour and a half rounds to two hours in Docker's own way: by rounding
        return f"{round(seconds / 3600)} hours"
    if seconds >= 3600 - 30:
        return "About an hour"
    if seconds >= 120:
        return f"{int(seconds / 60)} minutes"
    if seconds >= 60:
        return "About a minute"
    if seconds >= 2:
        return f"{int(seconds)} seconds"
    return "1 second" if seconds >= 1 else "Less than a second"


def size_text(size: float, *, binary: bool = False, digits: int = 3) -> str:
    """Write a size with `digits` significant digits: `4.22MB`, `256MiB`."""
    base, units = (1024, _BINARY_UNITS) if binary else (1000, _UNITS)
    step = 0
    while size >= base and step < len(units) - 1:
        size /= base
        step += 1
    return f"{size:.{digits}g}{units[step]}" if size < 10**digits else f"{size:.0f}{units[step]}"


def duration_text(nanoseconds: int) -> str:
    """Write a duration as Go does: `10s`, `1m30s`, `250ms`."""
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < SECOND_NS:
        for unit, word in ((1_000_000, "ms"), (1_000, "µs"), (1, "ns")):
            if left >= unit:
                return f"{sign}{_decimal(left, unit)}{word}"
        return "0s"
    minutes, rest = divmod(left, 60 * SECOND_NS)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, SECOND_NS)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else sign + text


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = f"{fraction:0{len(str(unit)) - 1}d}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)


def shorten_id(identity: str) -> str:
    """Return the part of an id that Docker shows."""
    return identity.removeprefix("sha256:")[:SHORT_ID]


def ellipsis(text: str, most: int) -> str:
    """Cut a text to `most` characters, the last one a mark."""
    return text if len(text) <= most else text[: most - 1] + "…"


def go_utc_text(text: str) -> str:
    """Write a time of the API as Go prints it: `2026-11-23 14:23:43.62 +0000 UTC`."""
    return f"{text.rstrip('Z').replace('T', ' ')} +0000 UTC"


def go_time_text(text: str) -> str:
    """Write a time of the API as `--pretty` does: `2026-11-23 14:23:43.62 +0000 utc`."""
    return go_utc_text(text).lower()


def utc_text(seconds: float) -> str:
    """Write a time as docker's lists do: `2026-11-26 11:35:37 +0000 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} +0000 UTC"


def capitalize(text: str) -> str:
    """Write the first letter large, as Docker does with states."""
    return text[:1].upper() + text[1:]
