"""The `filters` query of Docker's lists: both JSON forms, allowed keys, and the matches lists have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.api.decode import parse_json
from shoal.errors import InvalidArgument
from shoal.lib.units import parse_duration_ns, parse_time_ns

Filters = Mapping[str, tuple[str, ...]]


def parse_filters(text: str | None, allowed: frozenset[str]) -> Filters:
    """Read `{"key": {"value": true}}` or the older `{"key": ["value"]}`.

    Args:
        text: the query's value; None or empty is no filter.
        allowed: the keys this list knows.

    Raises:
        InvalidArgument: `invalid filter` for another shape, `invalid filter 'KEY'` for another key.
    """
    if not text:
        return {}
    try:
        value = parse_json(text.encode())
    except InvalidArgument:
        raise InvalidArgument("invalid filter") from None
    if not isinstance(value, dict):
        raise InvalidArgument("invalid filter")
    filters = {key: _values_of(values) for key, values in value.items()}
    for key in filters:
        if key not in allowed:
            raise InvalidArgument(f"invalid filter '{key}'")
    return {key: values for key, values in filters.items() if values}


def _values_of(values: object) -> tuple[str, ...]:
    if isinstance(values, dict):
        return tuple(key for key, wanted in values.items() if wanted)
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return tuple(values)
    raise InvalidArgument("invalid filter")


def matches_labels(labels: Mapping[str, str], wanted: Iterable[str]) -> bool:
    """Tell whether all of `wanted` (`key` or `key=value`) hold for `labels`."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def passes_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """Tell whether labels pass the `label` and `label!` filters of a prune."""
    unwanted = filters.get("label!", ())
    return matches_labels(labels, filters.get("label", ())) and not any(
        matches_labels(labels, (label,)) for label in unwanted
    )


def matches_prefix(text: str, prefixes: tuple[str, ...]) -> bool:
    """Tell whether `text` starts with one of `prefixes`; without any, everything does."""
    return not prefixes or text.startswith(prefixes)


def parse_until(values: tuple[str, ...], now_ns: int) -> int | None:
    """Read the filter `until` of a prune: a time, or how long ago (`24h`), as nanoseconds; None when absent.

    Raises:
        InvalidArgument: several, or neither.
    """
    if not values:
        return None
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    for parse, start_ns, sign in ((parse_duration_ns, now_ns, -1), (parse_time_ns, 0, 1)):
        try:
            return start_ns + sign * parse(values[0])
        except ValueError:
            continue
    raise InvalidArgument(f"invalid filter 'until={values[0]}': write a time (RFC 3339, Unix seconds) or 24h")


def parse_boolean(values: tuple[str, ...], key: str) -> bool | None:
    """Read a filter of one truth value; None when absent. Raises InvalidArgument."""
    if not values:
        return None
    words = {"1": True, "true": True, "0": False, "false": False}
    if len(values) > 1 or values[0].lower() not in words:
        raise InvalidArgument(f"invalid filter '{key}=[{' '.join(values)}]'")
    return words[values[0].lower()]
