"""YAML as the Compose Specification reads it: YAML 1.2 scalars, and every value with the place it was written at.

`22:22` is a text, `on` is a text, `true` is a truth value. A number with a leading 0 is octal (`mode: 0440`), as every
reader of Compose files takes it. Merge keys (`<<`) and anchors work. Knows nothing of what the keys mean.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from shoal.errors import InvalidArgument
from shoal.model.base import Struct

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TEXT_TAG = "tag:yaml.org,2002:str"
DEPTH_MOST = 64
NODES_MOST = 100_000


class Place(Struct):
    """Where a value was written; line 0: it was not written."""

    file: str = ""
    line: int = 0


class Map(dict[str, Any]):
    """A mapping; `places` says where each key was written. `replaces`: it was marked with !override."""

    places: dict[str, Place]
    replaces: bool = False

    def __init__(self, values: dict[str, Any] | None = None, places: dict[str, Place] | None = None) -> None:
        super().__init__(values or {})
        self.places = dict(places or {})


class Seq(list[Any]):
    """A sequence; `places` says where each element was written."""

    places: list[Place]
    replaces: bool = False

    def __init__(self, values: list[Any] | None = None, places: list[Place] | None = None) -> None:
        super().__init__(values or [])
        self.places = list(places or [])


class Reset:
    """A value marked with !reset: what another file said there is taken away."""


def parse_document(text: str, file: str) -> Map:
    """Read a file of one document.

    Args:
        text: its content.
        file: its name, for messages.

    Raises:
        InvalidArgument: it is no YAML, no mapping at its top, too deep or too large; file and line are named.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise InvalidArgument(f"{file}{line}: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InvalidArgument(f"{file}: {error}") from None
    if node is None:
        return Map()
    value = _Builder(file).build(node, 0)
    if not isinstance(value, Map):
        raise InvalidArgument(f"{file}: a Compose file is a mapping, this is not one")
    return value


class _Builder:
    def __init__(self, file: str) -> None:
        self._file = file
        self._count = 0
        self._resolver = yaml.resolver.Resolver()

    def _place(self, node: yaml.Node) -> Place:
        return Place(file=self._file, line=node.start_mark.line + 1)

    def _fail(self, node: yaml.Node, text: str) -> InvalidArgument:
        return InvalidArgument(f"{self._file}:{node.start_mark.line + 1}: {text}")

    def build(self, node: yaml.Node, depth: int) -> Any:
        self._count += 1
        if depth > DEPTH_MOST or self._count > NODES_MOST:
            raise self._fail(node, "the file is too deep or too large")
        if node.tag == "!reset":
            return Reset()
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        if isinstance(node, yaml.SequenceNode):
            found = Seq(
                [self.build(each, depth + 1) for each in node.value], [self._place(each) for each in node.value]
            )
            found.replaces = node.tag == "!override"
            return found
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> Map:
        found, merged = Map(), Map()
        found.replaces = node.tag == "!override"
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._fail(key_node, "a key must be a text")
            key = str(key_node.value)
            if key == "<<" and key_node.style is None:
                self._merge(merged, value_node, depth)
                continue
            if key in found:
                raise self._fail(key_node, f'the key "{key}" stands twice')
            found[key] = self.build(value_node, depth + 1)
            found.places[key] = self._place(key_node)
        for key, value in merged.items():
            if key not in found:
                found[key], found.places[key] = value, merged.places[key]
        return found

    def _merge(self, merged: Map, node: yaml.Node, depth: int) -> None:
        """Take in what `<<` names: what stands first wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            value = self.build(source, depth + 1)
            if not isinstance(value, Map):
                raise self._fail(source, "<< needs a mapping, or a list of mappings")
            for key, each in value.items():
                if key not in merged:
                    merged[key], merged.places[key] = each, value.places[key]

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        # a plain word that is no text by YAML 1.1 and has the tag of one was given it: `!!str 5`
        implied = self._resolver.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
        is_tagged = node.tag == _TEXT_TAG and implied != _TEXT_TAG
        if node.style is not None or is_tagged or (node.tag.startswith("!") and node.tag != "!override"):
            return text
        return plain_scalar(text)


def plain_scalar(text: str) -> Any:
    """Return what an unquoted word is in YAML 1.2's core schema: null, a truth value, a number, or the word."""
    if _NULL.fullmatch(text):
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INTEGER.fullmatch(text):
        digits = text.lstrip("+-")
        sign = -1 if text.startswith("-") else 1
        if len(digits) > 1 and digits[0] == "0" and digits.isdecimal():
            return sign * int(digits, 8) if not set(digits) & {"8", "9"} else text
        return sign * int(digits, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text
