"""How long a short command takes from its start to its end, beside docker's through the same daemon.

Run: python bench/command_start.py [runs]. Wall time holds what the daemon needs for its answer; user and system time
are the command's own.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from engines import shoal

COMMANDS = (("--help",), ("version",), ("service", "ls"), ("node", "ls"))


def run_once(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return wall time and the command's own processor time, in milliseconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall * 1000, own * 1000


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    programs = [str(Path(sys.executable).with_name("shoal"))]
    docker = shutil.which("docker")
    if docker is not None:
        programs.append(docker)
    print(f"{'command':<22} {'wall, ms: median (least)':>26} {'user+sys, ms: median (least)':>30}")
    with shoal() as engine:
        environment = os.environ | {"DOCKER_HOST": f"unix://{engine.path}"}
        for words in COMMANDS:
            for program in programs:
                # the first one finds the program and its modules on the disk
                results = [run_once([program, *words], environment) for _ in range(runs + 1)][1:]
                cells = [f"{statistics.median(x):.0f} ({min(x):.0f})" for x in zip(*results, strict=True)]
                print(f"{' '.join([Path(program).name, *words]):<22} {cells[0]:>26} {cells[1]:>30}", flush=True)


if __name__ == "__main__":
    main()
