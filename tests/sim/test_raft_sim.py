"""Raft under every fault that a seed draws, and mutations of the core, which the same simulation must catch.

Faults: loss, delay, doubling, reordering, cuts (one-way, too), stalls, slow disks, crashes that lose unsynced writes or
tear them; meanwhile members change, the lead is handed over, snapshots are taken and logs compacted. Each seed is one
history, the same every time: a failing one is named with the command that repeats it.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.sim.raft_calm import run
from tests.sim.raft_mutations import MUTATIONS
from tests.sim.raft_seeds import first_seed_to_catch, run_many, run_seed

LONG_SEEDS = 20_000
LONG_BLOCKS = 20
# These take their time: the constellation is rare.
RARE = {"removed_member_keeps_what_it_knows"}


@pytest.mark.parametrize("block", range(10))
def test_seeds(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        run_seed(seed)


def test_histories_are_eventful() -> None:
    """What the seeds of CI go through: a simulation in which nothing happens proves nothing."""
    seen: Counter[str] = Counter()
    for seed in range(40):
        world = run(seed)
        referee = world.referee
        seen["entries"] += referee.committed
        seen["reads"] += referee.reads_served
        seen["leaders"] += len(referee.leaders)
        seen["snapshots restored"] += referee.restored
        seen["crashes"] += sum(member.life for member in world.members.values())
        seen["changes of members"] += len(set(referee.members.values()))
    assert seen["entries"] > 500
    assert seen["reads"] > 200
    assert seen["leaders"] > 80
    assert seen["snapshots restored"] > 10
    assert seen["crashes"] > 40
    assert seen["changes of members"] > 100


def test_a_seed_is_one_history() -> None:
    first, second = run(5), run(5)
    assert first.referee.states == second.referee.states
    assert first.now == second.now


@pytest.mark.parametrize("name", [name for name in MUTATIONS if name not in RARE])
def test_mutation_is_caught(name: str) -> None:
    assert first_seed_to_catch(name, MUTATIONS[name].seeds_most), f"{name} was not caught"


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(RARE))
def test_mutation_is_caught_in_time(name: str) -> None:
    assert first_seed_to_catch(name, MUTATIONS[name].seeds_most), f"{name} was not caught"


@pytest.mark.long
@pytest.mark.parametrize("block", range(LONG_BLOCKS))
def test_more_seeds(block: int) -> None:
    count = LONG_SEEDS // LONG_BLOCKS
    broken = list(run_many(100 + block * count, count, os.cpu_count() or 1))
    assert not broken, "\n".join(broken)
