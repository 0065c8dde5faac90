"""The whole cluster under faults on a virtual clock: managers, agents, fake engines, and clients that write and read.

Faults: leaders, daemons and hosts that die, lost and full disks, cuts (one-way, too), stopped and slow processes,
drained nodes, changes of roles. Each seed is one history, the same every time: a failing one is named with the command
that repeats it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.cluster_mutations import MUTATIONS

REPOSITORY = Path(__file__).resolve().parents[2]
CI_SEEDS = 6
LONG_SEEDS = 1000
LONG_BLOCKS = 10


def run_seeds(first: int, count: int) -> None:
    """Run seeds in processes of their own, whose hash seed is known."""
    command = [sys.executable, "-m", "tests.sim.cluster_seeds", "--from", str(first), "--count", str(count)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_seeds() -> None:
    run_seeds(0, CI_SEEDS)


def test_a_seed_is_one_history() -> None:
    def history(seed: int) -> str:
        command = [sys.executable, "-m", "tests.sim.cluster_seeds", "--seed", str(seed), "--digest"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert history(2) == history(2) != history(3)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_mutation_is_caught(name: str) -> None:
    command = [sys.executable, "-m", "tests.sim.cluster_seeds", "--mutation", name]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("block", range(LONG_BLOCKS))
def test_more_seeds(block: int) -> None:
    count = LONG_SEEDS // LONG_BLOCKS
    run_seeds(CI_SEEDS + block * count, count)
