"""Writes what a daemon answers: `python -m tests.conformance.differential.record HOST [FILE]` (docker.txt if none).

The daemon at HOST must have the image busybox and be in no swarm.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from tests.conformance.differential.script import HERE, run_script

RECORDING = HERE / "docker.txt"
DIFFERENCES = HERE / "shoal.txt"


class Answer(NamedTuple):
    """A command, what it printed (and its exit code if that was not 0), and why it is not as Docker has it, if so."""

    command: str
    output: str
    reason: str


def write_transcript(host: str, path: Path) -> None:
    """Run the script against `host` and write what came of it."""
    with path.open("w") as file:
        for step, outcome in run_script(host):
            file.write(f"$ {step.command}\n{outcome}")
            file.flush()


def read_transcript(path: Path) -> list[Answer]:
    """Return the answers of a transcript, in order; lines that begin with `# ` before a command are the reason."""
    answers: list[Answer] = []
    reason = ""
    for line in path.read_text().splitlines(keepends=True):
        if line.startswith("# "):
            reason = line[2:].strip()
        elif line.startswith("$ "):
            answers.append(Answer(line[2:].rstrip("\n"), "", reason))
            reason = ""
        else:
            answers[-1] = answers[-1]._replace(output=answers[-1].output + line)
    return answers


if __name__ == "__main__":
    write_transcript(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else RECORDING)
