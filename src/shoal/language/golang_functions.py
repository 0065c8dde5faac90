"""The functions that Go's text/template has built in, over strings, numbers, lists and maps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

MOST_WIDTH = 1000
_VERB = re.compile(r"%([-+# 0]*)(\d+)?(?:\.(\d+))?([a-zA-Z%])")


class TemplateError(ValueError):
    """A template that cannot be read or carried out; the text says what is wrong."""


def as_text(value: Any) -> str:
    """Return a value as Go prints it."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{as_text(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(map(as_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_true(value: Any) -> bool:
    """Whether a value is not the zero of its kind."""
    return bool(value)


def _and(first: Any, *others: Any) -> Any:
    for value in (first, *others):
        first = value
        if not is_true(value):
            break
    return first


def _or(first: Any, *others: Any) -> Any:
    for value in (first, *others):
        first = value
        if is_true(value):
            break
    return first


def _equal(first: Any, second: Any, *others: Any) -> bool:
    for other in (second, *others):
        if isinstance(first, str) != isinstance(other, str):
            raise TemplateError("eq: incompatible types for comparison")
    return first in (second, *others)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="surrogateescape"))
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    raise TemplateError(f"len of {as_text(value)}")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            # as Go: the zero of what the map holds
            value = value.get(key, "")
        elif isinstance(value, list | tuple) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise TemplateError(f"can't index {as_text(value)} with {as_text(key)}")
    return value


def _join(separator: str, *parts: str) -> str:
    return separator.join(map(as_text, parts))


def _print(*values: Any) -> str:
    """As Go: a space between two values when neither is a string."""
    result = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            result += " "
        result += as_text(value)
    return result


def _print_line(*values: Any) -> str:
    return " ".join(map(as_text, values)) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def _print_formatted(pattern: str, *values: Any) -> str:
    left = list(values)

    def formatted(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not left:
            return f"%!{verb}(MISSING)"
        value = left.pop(0)
        if max(int(width or 0), int(precision or 0)) > MOST_WIDTH:
            raise TemplateError(f"printf: a width above {MOST_WIDTH}")
        if verb in "sv":
            text = as_text(value) if precision is None else as_text(value)[: int(precision)]
        elif verb == "q":
            text = _quoted(as_text(value))
        elif verb in "dxXob" and isinstance(value, int):
            text = format(value, verb)
        elif verb in "xX" and isinstance(value, str):
            text = value.encode(errors="surrogateescape").hex()
        elif verb in "feg" and isinstance(value, int | float):
            text = format(float(value), f".{precision or 6}{verb}" if verb != "g" else "g")
        elif verb == "t" and isinstance(value, bool):
            text = as_text(value)
        else:
            return f"%!{verb}({as_text(value)})"
        if "-" in flags:
            return text.ljust(int(width or 0))
        return text.rjust(int(width or 0), "0" if "0" in flags and verb in "dxXobfeg" else " ")

    result = _VERB.sub(formatted, pattern)
    return result + (f"%!(EXTRA {', '.join(map(as_text, left))})" if left else "")


BUILT_IN: dict[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not is_true(value),
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "len": _length,
    "index": _index,
    "join": _join,
    "print": _print,
    "println": _print_line,
    "printf": _print_formatted,
}
