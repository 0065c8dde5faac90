"""YAML as Compose files have it."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.compose.documents import parse_document, plain_scalar
from shoal.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("22:22", "22:22"),
        ("on", "on"),
        ("yes", "yes"),
        ("no", "no"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("0440", 0o440),
        ("0o17", 15),
        ("0x1F", 31),
        ("089", "089"),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        ("2026-11-26", "2026-11-26"),
        (".inf", float("inf")),
        ("-.Inf", float("-inf")),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_words(text: str, value: Any) -> None:
    found = plain_scalar(text)
    assert (type(found), found) == (type(value), value)


def test_quoted_words_are_texts() -> None:
    document = parse_document("a: '12'\nb: \"true\"\nc: !!str 5\n", "c.yml")
    assert dict(document) == {"a": "12", "b": "true", "c": "5"}


def test_merge_keys_and_anchors() -> None:
    text = "x-a: &a {one: 1, two: 2}\nx-b: &b {two: 3, four: 4}\nfound: {<<: [*a, *b], one: 0}\n"
    assert dict(parse_document(text, "c.yml")["found"]) == {"one": 0, "two": 2, "four": 4}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "c.yml:2: "),
        ("a: 1\na: 2\n", 'c.yml:2: the key "a" stands twice'),
        ("- a\n", "c.yml: a Compose file is a mapping"),
        ("a: {<<: 1}\n", "c.yml:1: << needs a mapping"),
        ("{[a]: 1}\n", "c.yml:1: a key must be a text"),
        ("a: *nothing\n", "c.yml:1: found undefined alias"),
        ("a: " + "[" * 70 + "]" * 70, "too deep"),
        ("a: 1\n---\nb: 2\n", "c.yml:2: but found another document"),
    ],
)
def test_what_is_no_compose_file(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_document(text, "c.yml")
    assert message in caught.value.message


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    with pytest.raises(InvalidArgument, match="too deep or too large"):
        parse_document("\n".join(lines), "c.yml")
