"""Which test proves which flag of docker's swarm commands: `docs/reference/compatibility.md`.

A run of the tests with SHOAL_COMMANDS_FILE=FILE writes what they ran there, a line a command (`conftest.py`);
`scripts/compatibility FILE` makes the page of it, and `conformance/test_compatibility.py` holds the page to the tests.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FLAGS = REPOSITORY / "tests" / "conformance" / "docker_flags.txt"
PAGE = REPOSITORY / "docs" / "reference" / "compatibility.md"
NONE = "none"
ALIASES = {"list": "ls", "remove": "rm", "down": "rm", "up": "deploy"}
HEAD = """# Compatibility with docker's swarm commands

Made by `scripts/compatibility` of a run of all tests: every flag of the {commands} commands of `docker` that work on a
swarm, and a test that gives it to the stock `docker`, or to `shoal`, which has all of them, too. {proven} of {flags}
flags have one; a row without says `none`. Of these {refused} are refused, with what to do instead: their rows say why.
A command without flags of its own stands with `–`.

| command | flag | docker | shoal |
|---|---|---|---|
"""
# what a test shows to be refused
REFUSED = {
    ("network connect", "--link"): "refused: on every network containers find each other by name and by `--alias`",
    ("network connect", "--link-local-ip"): "refused: addresses are those of the network's own ranges (`--ip`)",
}
_CUT = re.compile(r"[|;&]|\$\(|\)")


def known_flags() -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return every command with its flags, each with its spellings."""
    found = {}
    for line in FLAGS.read_text().splitlines():
        command, _, rest = line.partition(":")
        found[command] = tuple(tuple(word.split(",")) for word in rest.split())
    return found


def commands_in(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield program (`docker` or `shoal`) and what follows, of every such command in an argument list."""
    if words[:2] == ["sh", "-c"] or words[:2] == ["bash", "-c"]:
        for part in _CUT.split(words[2]):
            try:
                inner = shlex.split(part)
            except ValueError:
                inner = part.split()
            yield from commands_in(inner)
        return
    for at, word in enumerate(words):
        if word == "docker" or word.endswith("/docker"):
            yield "docker", list(words[at + 1 :])
            return
        if word == "shoal.cli.main":
            yield "shoal", list(words[at + 1 :])
            return


def seen_in(words: Sequence[str]) -> tuple[str, set[str]] | None:
    """Return the swarm command an argument list is, and the flags it gives; None if it is none."""
    if len(words) < 2:
        return None
    command = f"{words[0]} {ALIASES.get(words[1], words[1])}"
    spellings = known_flags().get(command)
    if spellings is None:
        return None
    given = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
    given |= {f"-{letter}" for word in given if re.fullmatch(r"-[a-z]{2,}", word) for letter in word[1:]}
    return command, {names[0] for names in spellings if given & set(names)}


def proofs(lines: Iterable[str]) -> dict[tuple[str, str, str], str]:
    """Return for (command, flag, program) the first test that gave it; flag "" is the command itself."""
    found: dict[tuple[str, str, str], str] = {}
    for line in lines:
        test, words = json.loads(line)
        for program, rest in commands_in(words):
            seen = seen_in(rest)
            for flag in ("", *sorted(seen[1])) if seen else ():
                found.setdefault((seen[0] if seen else "", flag, program), test)
    return found


def make_page(lines: Iterable[str]) -> str:
    """Return the page."""
    by_whom = proofs(lines)
    rows, proven, count = [], 0, 0
    for command, spellings in known_flags().items():
        for names in spellings or (("",),):
            tests = [by_whom.get((command, names[0], program), NONE) for program in ("docker", "shoal")]
            flag = ", ".join(f"`{name}`" for name in names if name) or "–"
            if (command, names[0]) in REFUSED:
                flag += f" ({REFUSED[command, names[0]]})"
            rows.append(f"| {command} | {flag} | {tests[0]} | {tests[1]} |\n")
            count += bool(names[0])
            proven += bool(names[0]) and tests != [NONE, NONE]
    return HEAD.format(commands=len(known_flags()), proven=proven, flags=count, refused=len(REFUSED)) + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(make_page(Path(sys.argv[1]).read_text().splitlines()))
