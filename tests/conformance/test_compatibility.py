"""The page of flags names every flag of docker's swarm commands, and tests that are there."""

import ast
import re

import pytest

from tests.compatibility import NONE, PAGE, REFUSED, REPOSITORY, commands_in, known_flags, proofs, seen_in


def rows():
    return [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| command")
    ]


def test_every_flag_has_a_row():
    expected = {(command, names[0]) for command, flags in known_flags().items() for names in flags or (("–",),)}
    assert {(row[0], re.match("`?([^`,]+)", row[1])[1]) for row in rows()} == expected
    assert sum(len(flags) for flags in known_flags().values()) == 308


def test_what_is_refused_says_so():
    refused = {(row[0], row[1].split()[0].strip("`")) for row in rows() if "(refused: " in row[1]}
    assert refused == set(REFUSED)


def test_every_test_that_is_named_is_there():
    named = {cell for row in rows() for cell in row[2:] if cell != NONE}
    for test in named:
        path, _, name = test.partition("::")
        functions = {
            node.name
            for node in ast.walk(ast.parse((REPOSITORY / path).read_text()))
            if isinstance(node, ast.FunctionDef)
        }
        assert re.sub(r"^.*::", "", name) in functions, test


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["docker", "service", "ls", "-q"], [("service ls", {"--quiet"})]),
        (["docker", "stack", "down", "--detach=false", "x"], [("stack rm", {"--detach"})]),
        (["nsenter", "--net=/x", "docker", "node", "ps"], [("node ps", set())]),
        (["sh", "-c", "printf x | docker secret create -l a=b s -"], [("secret create", {"--label"})]),
        (["docker", "run", "--rm", "busybox"], [None]),
    ],
)
def test_flags_are_seen_in_what_is_run(words, expected):
    assert [seen_in(rest) for _, rest in commands_in(words)] == expected


def test_the_first_test_is_the_proof():
    lines = ['["a.py::test_a", ["docker", "node", "ls", "-q"]]', '["b.py::test_b", ["docker", "node", "ls", "-q"]]']
    assert proofs(lines) == {
        ("node ls", "", "docker"): "a.py::test_a",
        ("node ls", "--quiet", "docker"): "a.py::test_a",
    }
