"""Small values of flags: sizes, processors, durations, pairs, command lines, filters.

Every command imports this, so what only a few flags need is imported by them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from shoal.lib.units import parse_duration_ns

_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_POWERS = "kmgtp"
NANO = 1_000_000_000
MOST_UINT64 = 2**64 - 1


def parse_bytes(text: str) -> int:
    """Read a size: a number with b, k, m, g, t or p, in powers of 1024. Raises ValueError."""
    from decimal import Decimal

    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"invalid size: '{text}'; use a number with b, k, m or g")
    power = _POWERS.index(match[2].lower()) + 1 if match[2] else 0
    return int(Decimal(match[1]) * 1024**power)


def parse_nano_cpus(text: str) -> int:
    """Read a number of processors, such as 0.5, as billionths. Raises ValueError."""
    from decimal import Decimal, InvalidOperation

    try:
        nano = Decimal(text) * NANO
    except InvalidOperation:
        nano = Decimal("NaN")
    if not nano.is_finite():
        raise ValueError(f"failed to parse {text} as a rational number")
    if nano != nano.to_integral_value():
        raise ValueError("value is too precise")
    return int(nano)


def parse_uint(text: str) -> int:
    """Read a number that is not negative; 0x is allowed. Raises ValueError."""
    try:
        number = int(text, 0)
    except ValueError:
        raise ValueError("invalid syntax: use a whole number") from None
    if not 0 <= number <= MOST_UINT64:
        raise ValueError("value out of range: use a number that is not negative")
    return number


def parse_int(text: str) -> int:
    """Read a whole number. Raises ValueError."""
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError("invalid syntax: use a whole number") from None


def parse_ratio(text: str) -> float:
    """Read a ratio. Raises ValueError."""
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not math.isfinite(ratio):
        raise ValueError("invalid syntax: use a number such as 0.25")
    return ratio


def parse_duration(text: str) -> int:
    """Read a Go duration as nanoseconds. Raises ValueError."""
    return parse_duration_ns(text)


def parse_positive_duration(text: str) -> int:
    """Read a Go duration that is not negative. Raises ValueError."""
    duration = parse_duration_ns(text)
    if duration < 0:
        raise ValueError("duration cannot be negative")
    return duration


def parse_command(text: str) -> tuple[str, ...]:
    """Split a command line as a shell does. Raises ValueError."""
    import shlex

    return tuple(shlex.split(text))


def parse_pair(text: str) -> tuple[str, str]:
    """Read `key=value`; a key alone has the empty value. Raises ValueError."""
    key, _, value = text.partition("=")
    if not key:
        raise ValueError("a key must stand before =")
    return key, value


def parse_environment(text: str, environment: dict[str, str]) -> str:
    """Read `NAME=value`; a name alone takes its value from `environment`, and stays bare if it is not there."""
    name, found, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    return text if found or name not in environment else f"{name}={environment[name]}"


def parse_filters(texts: Iterable[str]) -> dict[str, dict[str, bool]]:
    """Read `key=value` filters into the form the API takes. Raises ValueError."""
    filters: dict[str, dict[str, bool]] = {}
    for text in texts:
        key, found, value = text.partition("=")
        if not found:
            raise ValueError(f'invalid filter "{text}": write key=value')
        filters.setdefault(key.strip().lower(), {})[value.strip()] = True
    return filters


def parse_fields(text: str) -> list[str]:
    """Split a comma-separated value, with quotes as in CSV. Raises ValueError."""
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ValueError(f"{error}") from None
    if not rows:
        raise ValueError("value is empty")
    return rows[0]


def parse_preference(text: str) -> dict[str, Any]:
    """Read `spread=node.labels.zone`. Raises ValueError."""
    strategy, found, descriptor = text.partition("=")
    if not found:
        raise ValueError(f'could not parse placement preference "{text}": write spread=node.labels.KEY')
    if strategy != "spread":
        raise ValueError(f'unsupported placement preference "{strategy}" (only spread is supported)')
    return {"Spread": {"SpreadDescriptor": descriptor}}


def parse_generic_resource(text: str) -> dict[str, Any]:
    """Read `KIND=N`. Raises ValueError."""
    kind, found, amount = text.partition("=")
    if not found or not kind:
        raise ValueError(f"incorrect term {text}: write KIND=NUMBER")
    if not amount.isdecimal():
        raise ValueError(f'named resource "{text}" cannot be requested: give a number')
    return {"DiscreteResourceSpec": {"Kind": kind, "Value": int(amount)}}


def parse_ulimit(text: str) -> dict[str, Any]:
    """Read `name=soft[:hard]`. Raises ValueError."""
    name, found, limits = text.partition("=")
    soft_text, _, hard_text = limits.partition(":")
    try:
        soft = int(soft_text)
        hard = int(hard_text) if hard_text else soft
    except ValueError:
        found = ""
        soft = hard = 0
    if not found or not name:
        raise ValueError(f"invalid ulimit argument: {text}; write name=soft[:hard]")
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Hard": hard, "Soft": soft}


def parse_scale(text: str) -> tuple[str, int]:
    """Read `SERVICE=REPLICAS`. Raises ValueError."""
    name, found, count = text.rpartition("=")
    if not found or not name:
        raise ValueError(f"invalid scale specifier '{text}'")
    try:
        return name, parse_uint(count)
    except ValueError:
        raise ValueError(f"invalid replicas value {count}: use a whole number that is not negative") from None


def parse_node_address(text: str, default_port: int = 2377) -> str:
    """Read `address[:port]` or `interface[:port]`; a missing port is the default. Raises ValueError."""
    host, found, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        return f"{text}:{default_port}"
    if not found:
        return f"{text}:{default_port}"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f'invalid port "{port}"')
    return f"{host or '0.0.0.0'}:{port}"  # noqa: S104 - Docker's own default


def parse_credential_spec(text: str) -> dict[str, str]:
    """Read `file://…`, `registry://…` or `config://…`. Raises ValueError."""
    scheme, found, value = text.partition("://")
    fields = {"file": "File", "registry": "Registry", "config": "Config"}
    if not found or scheme not in fields:
        raise ValueError("invalid credential spec: value must be prefixed with config://, file://, or registry://")
    return {fields[scheme]: value}


def parse_external_ca(text: str) -> dict[str, Any]:
    """Read `protocol=cfssl,url=https://…`. Raises ValueError."""
    fields = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    if not fields.get("protocol") or not fields.get("url"):
        raise ValueError("write protocol=cfssl,url=https://HOST/PATH")
    options = {key: value for key, value in fields.items() if key not in ("protocol", "url")}
    return {"Protocol": fields["protocol"], "URL": fields["url"], "Options": options}
