"""A value of a Compose file with its path and place: what reads it says where it was when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from shoal.compose.documents import Map, Place, Seq
from shoal.errors import InvalidArgument, ShoalError

T = TypeVar("T")
_WORDS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "y": True, "n": False}


class Cursor:
    """A value, its path (`services.web.ports[0]`) and where it was written."""

    def __init__(self, value: Any, path: str, place: Place) -> None:
        self.value = value
        self.path = path
        self.place = place

    def refusal(self, text: str) -> InvalidArgument:
        """Return the error that refuses the value, with file, line and path."""
        return InvalidArgument(f"{self.where}: {text}")

    @property
    def where(self) -> str:
        """File, line and path in words."""
        line = f":{self.place.line}" if self.place.line else ""
        return f"{self.place.file}{line}: {self.path}" if self.place.file else self.path

    @property
    def is_mapping(self) -> bool:
        """Whether it is a mapping."""
        return isinstance(self.value, Map)

    @property
    def is_sequence(self) -> bool:
        """Whether it is a sequence."""
        return isinstance(self.value, Seq)

    def fields(self, known: frozenset[str] | None = None) -> dict[str, Cursor]:
        """Return the fields of a mapping, none for an empty value.

        Args:
            known: the keys there are; `x-…` may stand beside them. None: any.

        Raises:
            InvalidArgument: it is no mapping, or has another key.
        """
        if self.value is None:
            return {}
        if not isinstance(self.value, Map):
            raise self.refusal("must be a mapping")
        found = {
            key: Cursor(value, f"{self.path}.{key}" if self.path else key, self.value.places.get(key, self.place))
            for key, value in self.value.items()
        }
        for key, cursor in found.items():
            if known is not None and key not in known and not key.startswith("x-"):
                raise cursor.refusal(f'unknown key "{key}"; known are {", ".join(sorted(known))}')
        return {key: cursor for key, cursor in found.items() if not key.startswith("x-") or known is None}

    def field(self, key: str) -> Cursor | None:
        """Return one field of a mapping, None if it is absent or empty."""
        found = self.fields().get(key)
        return None if found is None or found.value is None else found

    def elements(self) -> list[Cursor]:
        """Return the elements of a sequence, none for an empty value. Raises InvalidArgument."""
        if self.value is None:
            return []
        if not isinstance(self.value, Seq):
            raise self.refusal("must be a list")
        return [
            Cursor(value, f"{self.path}[{number}]", place)
            for number, (value, place) in enumerate(zip(self.value, self.value.places, strict=True))
        ]

    def texts(self) -> list[str]:
        """Return a list of texts; one text is a list of one. Raises InvalidArgument."""
        if isinstance(self.value, str | int | float):
            return [self.text()]
        return [each.text() for each in self.elements()]

    def text(self) -> str:
        """Return a text; numbers and truth values as they are written. Raises InvalidArgument."""
        if isinstance(self.value, bool):
            return "true" if self.value else "false"
        if isinstance(self.value, str | int | float):
            return str(self.value)
        raise self.refusal("must be a text" if self.value is not None else "is empty: give it a value")

    def integer(self) -> int:
        """Return a whole number. Raises InvalidArgument."""
        if isinstance(self.value, int) and not isinstance(self.value, bool):
            return self.value
        if isinstance(self.value, str) and self.value.strip().lstrip("-").isdecimal():
            return int(self.value)
        if isinstance(self.value, float) and self.value.is_integer():
            return int(self.value)
        raise self.refusal(f'must be a whole number, not "{self.value}"')

    def number(self) -> float:
        """Return a number. Raises InvalidArgument."""
        try:
            if not isinstance(self.value, bool):
                return float(self.value)
        except (TypeError, ValueError):
            pass
        raise self.refusal(f'must be a number, not "{self.value}"')

    def boolean(self) -> bool:
        """Return a truth value; a variable may have given it as a word. Raises InvalidArgument."""
        if isinstance(self.value, bool):
            return self.value
        if isinstance(self.value, str) and self.value.lower() in _WORDS:
            return _WORDS[self.value.lower()]
        raise self.refusal(f'must be true or false, not "{self.value}"')

    def parsed(self, parse: Callable[[str], T]) -> T:
        """Return its text read by `parse`; what that refuses is refused with the place."""
        try:
            return parse(self.text())
        except ValueError as error:
            raise self.refusal(str(error)) from None
        except ShoalError as error:
            if error.message.startswith(self.where):
                raise
            raise self.refusal(error.message) from None

    def pairs(self) -> dict[str, str | None]:
        """Return a mapping, or a list of `KEY=VALUE`; None where there is no value. Raises InvalidArgument."""
        if self.is_sequence:
            found: dict[str, str | None] = {}
            for each in self.elements():
                key, equals, value = each.text().partition("=")
                found[key] = value if equals else None
            return found
        return {key: None if each.value is None else each.text() for key, each in self.fields().items()}
