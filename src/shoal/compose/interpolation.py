"""Variables in Compose files: `$NAME`, `${NAME}`, defaults, alternatives and errors, nested; `$$` is a dollar."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from shoal.compose.documents import Map, Place, Seq
from shoal.errors import InvalidArgument

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATORS = (":-", ":?", ":+", "-", "?", "+")
DEPTH_MOST = 16


class Variables:
    """What variables are (`values`), and which were asked for and are not set."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.unset: list[str] = []

    def interpolate(self, value: Any, path: str, place: Place) -> Any:
        """Return a value with the variables of all its texts filled in; keys are left alone.

        Raises:
            InvalidArgument: `${NAME:?text}` of a variable that is not set, or what is no variable; with the place.
        """
        if isinstance(value, Map):
            found = Map(places=value.places)
            found.replaces = value.replaces
            for key, each in value.items():
                found[key] = self.interpolate(each, f"{path}.{key}" if path else key, value.places.get(key, place))
            return found
        if isinstance(value, Seq):
            elements = Seq(places=value.places)
            elements.replaces = value.replaces
            for number, each in enumerate(value):
                elements.append(self.interpolate(each, f"{path}[{number}]", value.places[number]))
            return elements
        if not isinstance(value, str) or "$" not in value:
            return value
        try:
            return self.text(value)
        except ValueError as error:
            raise InvalidArgument(f"{place.file}:{place.line}: {path}: {error}") from None

    def text(self, text: str, depth: int = 0) -> str:
        """Fill in one text. Raises ValueError."""
        if depth > DEPTH_MOST:
            raise ValueError("variables are nested too deep")
        parts: list[str] = []
        position = 0
        while True:
            dollar = text.find("$", position)
            if dollar < 0:
                return "".join([*parts, text[position:]])
            parts.append(text[position:dollar])
            rest = text[dollar + 1 :]
            if rest.startswith("$"):
                parts.append("$")
                position = dollar + 2
            elif rest.startswith("{"):
                end = _closing(text, dollar + 2)
                parts.append(self._braced(text[dollar + 2 : end], depth))
                position = end + 1
            elif name := _NAME.match(rest):
                parts.append(self._value(name[0]))
                position = dollar + 1 + name.end()
            else:
                raise ValueError(f'"{text}": what follows $ is no variable; write $$ for a dollar')

    def _value(self, name: str) -> str:
        if name not in self.values and name not in self.unset:
            self.unset.append(name)
        return self.values.get(name, "")

    def _braced(self, inner: str, depth: int) -> str:
        name = _NAME.match(inner)
        if name is None:
            raise ValueError(f'"${{{inner}}}" names no variable')
        rest = inner[name.end() :]
        if not rest:
            return self._value(name[0])
        operator = next((each for each in _OPERATORS if rest.startswith(each)), None)
        if operator is None:
            raise ValueError(f'"${{{inner}}}": after the name stands one of {" ".join(_OPERATORS)}')
        word = rest[len(operator) :]
        value = self.values.get(name[0])
        is_there = value is not None and (value != "" or not operator.startswith(":"))
        if operator.endswith("+"):
            return self.text(word, depth + 1) if is_there else ""
        if is_there:
            return value or ""
        if operator.endswith("?"):
            text = self.text(word, depth + 1) or "it must be set"
            raise ValueError(f"required variable {name[0]} is missing a value: {text}")
        return self.text(word, depth + 1)


def _closing(text: str, position: int) -> int:
    """Return where the brace that is open at `position` is closed."""
    depth = 1
    for index in range(position, len(text)):
        if text.startswith("${", index):
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if not depth:
                return index
    raise ValueError(f'"{text}": a brace is not closed')


def parse_env_file(text: str, file: str, variables: Variables | None = None) -> dict[str, str | None]:
    """Read a `.env` file or an `env_file`: `NAME=VALUE` a line, quotes, comments, `export`; None without `=`.

    Args:
        text: its content.
        file: its name, for messages.
        variables: fill in values that are not in single quotes; earlier lines count, too.

    Raises:
        InvalidArgument: a line that is none of these; file and line are named.
    """
    found: dict[str, str | None] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, rest = line.removeprefix("export ").partition("=")
        name = name.strip()
        if not name or any(letter.isspace() for letter in name):
            raise InvalidArgument(f'{file}:{number}: "{line}" is no NAME=VALUE')
        if not equals:
            found[name] = None
            continue
        value, is_literal = _env_value(rest.strip())
        if variables is not None and not is_literal:
            known = {key: each for key, each in found.items() if each is not None}
            try:
                value = Variables({**known, **variables.values}).text(value)
            except ValueError as error:
                raise InvalidArgument(f"{file}:{number}: {error}") from None
        found[name] = value
    return found


def _env_value(text: str) -> tuple[str, bool]:
    """Return a value without its quotes or its comment, and whether it is to be taken as it stands."""
    for quote in ("'", '"'):
        if text.startswith(quote):
            end = text.find(quote, 1)
            if end > 0:
                inner = text[1:end]
                if quote == "'":
                    return inner, True
                return inner.replace("\\n", "\n").replace('\\"', '"'), False
    return re.split(r"\s+#", text, maxsplit=1)[0].rstrip(), False
