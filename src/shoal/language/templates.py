"""`--format`: the part of Go's templates that is built: `{{.Field}}`, `{{json .Field}}`, `json`, `table …`.

Anything else of Go's templates is refused by name, never printed half-done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal.errors import InvalidArgument, NotBuilt

_ACTION = re.compile(r"\{\{-? *(.*?) *-?\}\}", re.DOTALL)
_FIELD = re.compile(r"(json +)?(\.[\w.]*)")
_ESCAPES = {r"\t": "\t", r"\n": "\n", r"\\": "\\", r"\"": '"'}
_ESCAPE = re.compile(r'\\[tn\\"]')

Render = Callable[[Any], str]


def parse_template(text: str) -> Render:
    """Return a function that writes a value as a template says.

    Raises:
        InvalidArgument: braces that do not close.
        NotBuilt: a part of Go's templates that Shoal does not have.
    """
    if text == "json":
        return _json_text
    text = _ESCAPE.sub(lambda match: _ESCAPES[match[0]], text)
    parts: list[str | tuple[bool, tuple[str, ...]]] = []
    end = 0
    for action in _ACTION.finditer(text):
        parts.append(text[end : action.start()])
        parts.append(_parse_action(action[1]))
        end = action.end()
    parts.append(text[end:])
    if any(isinstance(part, str) and "{{" in part for part in parts):
        raise InvalidArgument(f'--format "{text}": a {{{{ is not closed by }}}}')
    return lambda value: "".join(part if isinstance(part, str) else _show(value, *part) for part in parts)


def _json_text(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # Go writes these so that JSON can stand in HTML
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def fields_of(text: str) -> tuple[str, ...]:
    """Return the fields a template shows, in order."""
    found = (_FIELD.fullmatch(action[1]) for action in _ACTION.finditer(text))
    return tuple(match[2].removeprefix(".") for match in found if match)


def _parse_action(text: str) -> tuple[bool, tuple[str, ...]]:
    match = _FIELD.fullmatch(text)
    if match is None:
        raise NotBuilt(f"--format: {{{{{text}}}}} is not built: use json, {{{{.Field}}}} or {{{{json .Field}}}}")
    return bool(match[1]), tuple(word for word in match[2].split(".") if word)


def _show(value: Any, as_json: bool, path: Sequence[str]) -> str:
    walked = ""
    for word in path:
        walked += f".{word}"
        if isinstance(value, Mapping) and word in value:
            value = value[word]
        elif isinstance(value, Mapping) and not _is_closed(value):
            value = None
        else:
            raise InvalidArgument(f"--format: there is no field {walked}")
    return _json_text(value) if as_json else go_text(value)


class Row(dict[str, Any]):
    """A row of a table: a field that is not there is a mistake, not an empty value of Go's."""


def _is_closed(value: Mapping[str, Any]) -> bool:
    return isinstance(value, Row)


def go_text(value: Any) -> str:
    """Write a value as Go's templates do."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<no value>"
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{key}:{go_text(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(go_text(item) for item in value)}]"
    return str(value)
