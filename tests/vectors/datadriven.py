"""Reads etcd's data-driven test files: a command, its input lines, `----`, the expected output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ARGUMENT = re.compile(r"(\S+?)=(\([^)]*\)|\S+)")


@dataclass(frozen=True)
class Case:
    """One case of a file; `arguments` are the `key=value` words, `words` the others."""

    file: str
    line: int
    command: str
    words: tuple[str, ...]
    arguments: dict[str, str]
    input: str
    expected: str

    def numbers(self, key: str) -> list[str]:
        return [part.strip() for part in self.arguments.get(key, "").strip("()").split(",") if part.strip()]


def vectors_folder(name: str) -> Path:
    """Return a folder of the shared vectors; skips the test where they are absent."""
    given = os.environ.get("SHOAL_VECTORS")
    root = Path(__file__).resolve().parents[2]
    candidates = [Path(given)] if given else [root / "shared" / "vectors", root.parent / "shared" / "vectors"]
    for candidate in candidates:
        if (candidate / name).is_dir():
            return candidate / name
    pytest.skip(f"the vectors {name} are not here: set SHOAL_VECTORS to their folder")


def read_cases(path: Path) -> Iterator[Case]:
    """Iterate over the cases of a file. Output ends at an empty line, or at a second `----` if it began with two."""
    lines = path.read_text().split("\n")
    position = 0
    while position < len(lines):
        line = lines[position].strip()
        if not line or line.startswith("#"):
            position += 1
            continue
        start = position
        while lines[position].rstrip() != "----":
            position += 1
        head, *inputs = lines[start:position]
        position += 1
        ends: tuple[str, ...] = ("",)
        if position < len(lines) and lines[position].rstrip() == "----":
            position += 1
            ends = ("----",)
        output: list[str] = []
        while position < len(lines) and lines[position].rstrip() not in ends:
            output.append(lines[position].rstrip())
            position += 1
        position += 2 if ends == ("----",) else 1
        arguments = dict(ARGUMENT.findall(head))
        words = ARGUMENT.sub("", head).split()
        yield Case(
            file=path.name,
            line=start + 1,
            command=words[0],
            words=tuple(words[1:]),
            arguments=arguments,
            input="\n".join(inputs),
            expected="\n".join(output),
        )
