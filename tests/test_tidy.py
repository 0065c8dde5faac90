"""What the repository promises of its own form."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LINES_A_FILE_MOST = 600
LINES_A_FUNCTION_MOST = 60
# one function that is one table, which would not be clearer in pieces
LONG_FUNCTIONS = {
    "src/shoal/api/views/info.py:info_view": "the fields of one reply, one a line",
    "src/shoal/cli/service_flags.py:_shared": "the flags of one command, one a line",
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
# folders and files that may sleep: they poll other processes or the kernel up to a deadline, or kill at chosen moments;
# in the simulation of the cluster the clock is virtual
SLEEPERS = ("tests/system/", "tests/conformance/", "tests/sim/cluster_")
UNFINISHED = re.compile(r"\b(TO[D]O|FIX[M]E|XX[X])\b")
WORKSPACE = "/" + "work/"
SLEEP = re.compile(r"\bsleep\((?!0\))")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        return [*SOURCES, *TESTS]
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_source_files(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_A_FILE_MOST
    assert path.stem not in VAGUE_NAMES
    assert path.parent.name not in VAGUE_NAMES
    # Before Python 3.12 it loses a cancellation that comes together with what is waited for: use asyncio.timeout.
    assert "asyncio.wait_for(" not in text
    tree = ast.parse(text)
    assert not text.strip() or ast.get_docstring(tree), "the first lines of a file say what it owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            known = f"{name_of(path)}:{node.name}" in LONG_FUNCTIONS
            assert lines <= LINES_A_FUNCTION_MOST or known, f"{node.name} has {lines} lines"


def test_the_list_of_long_functions_is_not_longer_than_needed() -> None:
    for key in LONG_FUNCTIONS:
        name, _, function = key.partition(":")
        tree = ast.parse((ROOT / name).read_text())
        found = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        lengths = [(n.end_lineno or 0) - n.lineno + 1 for n in found if n.name == function]
        assert max(lengths, default=0) > LINES_A_FUNCTION_MOST, f"{key} need not be listed"


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_tests_wait_on_conditions(path: Path) -> None:
    if path == Path(__file__).resolve():
        return
    assert path.stem not in VAGUE_NAMES
    assert name_of(path).startswith(SLEEPERS) or not SLEEP.search(path.read_text()), (
        "wait on a condition with a deadline"
    )


def test_nothing_committed_is_unfinished_or_of_one_machine() -> None:
    for path in committed():
        text = path.read_bytes().decode(errors="replace")
        assert WORKSPACE not in text, path
        if path.suffix == ".py":
            assert not UNFINISHED.search(text), path


def test_what_every_repository_has() -> None:
    for name in ("README.md", "CHANGELOG.md", "LICENSE"):
        assert (ROOT / name).read_text().strip(), name


def test_pages_made_from_the_source_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "diagrams"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
