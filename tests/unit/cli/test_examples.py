"""Every command has an example, and the grammar reads it; the reference page is of this grammar."""

import shlex
from pathlib import Path

import click
import pytest

from shoal.cli.examples import EXAMPLES
from tests.reference import leaves, make_reference

REFERENCE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "commands.md"


def test_every_command_has_an_example_and_no_other():
    assert sorted(context.command_path.partition(" ")[2] for context, _ in leaves()) == sorted(EXAMPLES)


def words_after(path: str, example: str) -> list[str]:
    """Return the words that follow the command's path in its example."""
    words = shlex.split(example.replace("$(", " ").replace(')"', " ").replace('"', " "), comments=True)
    at = words.index("shoal") + 1 + len(path.split())
    ends = [words.index(mark) for mark in (">", "|") if mark in words[at:]]
    return words[at : min(ends, default=None)]


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path != "system dial-stdio"])
def test_an_example_is_what_the_grammar_reads(path):
    context, command = next(pair for pair in leaves() if pair[0].command_path == f"shoal {path}")
    assert f"shoal {path}" in EXAMPLES[path]
    made = command.make_context(context.info_name, words_after(path, EXAMPLES[path]), parent=context.parent)
    assert isinstance(made, click.Context)


def test_help_shows_it():
    context, command = next(pair for pair in leaves() if pair[0].command_path == "shoal service ls")
    assert "Example:\n  shoal service ls --format" in command.get_help(context)


def test_the_page_is_of_this_grammar():
    assert REFERENCE.read_text() == make_reference(), "run scripts/reference"
