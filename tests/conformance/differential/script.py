"""Reads the script and runs it: what commands print and how they end, with all masked that no two runs share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SCRIPT = HERE / "script.txt"
FILES = HERE / "files"
COMMAND_SECONDS = 60
WAIT_SECONDS = 60
POLL_SECONDS = 0.1
API_VERSION = "1.45"

_MASKS: tuple[tuple[str, str], ...] = (
    # what Docker puts before the texts of its inner services; docs/reference/differences.md has it
    (r"rpc error: code = \w+ desc = ", ""),
    # the command's own help
    (r"\n+Usage:  docker (.|\n)*", "\n"),
    # progress is drawn as fast as it comes
    (r"(?m)^(overall progress|\d+/\d+: |verify: Waiting|rollback: |service rolled back: ).*\n", ""),
    (r"-----BEGIN CERTIFICATE-----(.|\n)*?-----END CERTIFICATE-----", "CERTIFICATE"),
    (r"SWMKEY-1-\S+", "UNLOCK-KEY"),
    (r"SWMTKN-1-\S+", "TOKEN"),
    (r"(?m)^( Issuer (Public Key|Subject):\t| (Log|Network|Volume):\t\t|( CPUs:|\s*Memory:)\t+).*", r"\1VALUE"),
    (r"sha256:[0-9a-f]{64}", "DIGEST"),
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b(?=[a-z]*[0-9])[a-z0-9]{25}\b", "ID"),
    (r"\b(?=[a-z]*[0-9])[a-z0-9]{12}\b(?![\w./-])", "ID"),
    (r"(?m)^[a-z0-9]{12}(?=$|  | \*)", "ID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.0-9]*( \+0000 UTC|Z|\+00:00)?", "TIME"),
    (r"(Less than a second|About an? (second|minute|hour)|\d+ (seconds?|minutes?|hours?)) ago", "SOME TIME ago"),
    (r"\b(10|127|172|192)\.\d+\.\d+\.\d+\b", "ADDRESS"),
    (r'(vxlanid_list":)"\d+"', r'\1"N"'),
    (r'"(TasksInitialized|Index)":\d+', r'"\1":N'),
    (r"[\d.]+([KMG]iB) left", r"N\1 left"),
    # the width of a column follows from what is masked
    (r"(?m) +$", ""),
    (r" {2,}", "  "),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A line of the script: its kind (`$`, `do`, `until`, `==`), the command or title, and what `until` waits for."""

    kind: str
    command: str
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed on both streams, masked, and its exit code."""

    output: str
    exit_code: int

    def __str__(self) -> str:
        return self.output + (f"[exit {self.exit_code}]\n" if self.exit_code else "")


def read_script(text: str) -> list[Step]:
    """Return the steps of a script.

    Raises:
        ValueError: a line is none.
    """
    steps = []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if not line or kind == "#":
            continue
        if kind not in {"$", "do", "until", "=="}:
            raise ValueError(f"no step: {line!r}")
        command, _, expected = rest.partition(" == ") if kind == "until" else (rest, "", "")
        steps.append(Step(kind, command, expected))
    return steps


def mask(text: str, names: Mapping[str, str]) -> str:
    """Return `text` without what differs from run to run.

    Args:
        text: what a command printed.
        names: what stands for what, beside ids, times and addresses: the name of the host, the scratch directory.
    """
    for name, stand_in in names.items():
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", stand_in, text)
    for pattern, stand_in in _MASKS:
        text = re.sub(pattern, stand_in, text)
    return text if not text or text.endswith("\n") else text + "\n"


def run_script(host: str) -> Iterator[tuple[Step, Outcome]]:
    """Run the whole script against a daemon that has the image busybox and is in no swarm.

    Args:
        host: as DOCKER_HOST has it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(FILES, scratch, dirs_exist_ok=True)
        environment = {**os.environ, "DOCKER_HOST": host, "DOCKER_API_VERSION": API_VERSION, "SCRATCH": scratch}
        environment["DOCKER_CONFIG"] = f"{scratch}/docker"
        name, version = _run("docker info --format '{{.Name}} {{.ServerVersion}}'", environment).stdout.split()
        names = {scratch: "SCRATCH", name: "HOST", version: "VERSION"}
        for step in read_script(SCRIPT.read_text()):
            if step.kind == "$":
                done = _run(step.command, environment)
                yield step, Outcome(mask(done.stdout, names), done.returncode)
            elif step.kind == "do":
                done = _run(step.command, environment)
                assert done.returncode == 0, f"{step.command}: {done.stdout}"
            elif step.kind == "until":
                seen = _wait(step, environment)
                if seen != step.expected:
                    yield step, Outcome(f"waited {WAIT_SECONDS} s for {step.expected!r}, saw {seen!r}\n", 0)


def _wait(step: Step, environment: Mapping[str, str]) -> str:
    deadline = time.monotonic() + WAIT_SECONDS
    while (seen := _run(step.command, environment).stdout.strip()) != step.expected and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return seen


def _run(command: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment, timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
