"""`--format`: Go's templates over what the daemon answers, with the functions that docker adds to them.

A field that a row of a table lacks is a mistake; a key that a JSON object lacks is Go's `<no value>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from shoal.errors import InvalidArgument
from shoal.language.golang_functions import TemplateError, as_text
from shoal.language.golang_template import Values, check, render

_ACTION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_FIELD = re.compile(r"(?:^|[\s({|])\.(\w+)")
_ESCAPES = {r"\t": "\t", r"\n": "\n"}
_ESCAPE = re.compile(r"\\[tn]")

Render = Callable[[Any], str]


class Row(dict[str, Any]):
    """A row of a table: a field that is not there is a mistake, not an empty value of Go's."""


def parse_template(text: str, *, is_heading: bool = False) -> Render:
    """Return a function that writes a value as a template says; it raises InvalidArgument for what is not there.

    Args:
        text: the template, or `json` for the whole value.
        is_heading: it will write the heads of a table's columns: functions of a column leave its head as it is.

    Raises:
        InvalidArgument: it is no template.
    """
    if text == "json":
        return json_text
    written = _ESCAPE.sub(lambda match: _ESCAPES[match[0]], text)
    try:
        check(written)
    except TemplateError as error:
        raise InvalidArgument(f"template parsing error: {error}") from None
    functions = dict.fromkeys(FUNCTIONS, _first) if is_heading else FUNCTIONS

    def write(value: Any) -> str:
        try:
            return render(written, Values(value, functions, _absent))
        except TemplateError as error:
            raise InvalidArgument(f"template parsing error: {error}") from None

    return write


def fields_of(text: str) -> tuple[str, ...]:
    """Return the fields of a row that a template shows, in order."""
    return tuple(name for action in _ACTION.findall(text) for name in _FIELD.findall(action))


def json_text(value: Any) -> str:
    """Write a value as Go writes JSON: so that it can stand in HTML."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _absent(value: Any, path: str) -> Any:
    if value is None or (isinstance(value, Mapping) and not isinstance(value, Row)):
        return None
    raise TemplateError(f"there is no field {path}")


def _first(value: Any, *_: Any) -> Any:
    return value


def _joined(parts: Any, separator: str) -> str:
    return separator.join(as_text(part) for part in parts or ())


def _padded(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncated(text: str, length: int) -> str:
    return text[:length]


# those of docker's own (docs: "Format command and log output"); the rest is Go's
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": json_text,
    "split": lambda text, separator: text.split(separator),
    "join": _joined,
    "title": lambda text: re.sub(r"(?<!\w)\w", lambda match: match[0].upper(), text),
    "lower": str.lower,
    "upper": str.upper,
    "pad": _padded,
    "slice": lambda text, *bounds: text[slice(*bounds)] if len(bounds) > 1 else text[bounds[0] :],
    "truncate": _truncated,
}
