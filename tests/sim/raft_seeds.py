"""Runs seeds of the raft simulation: one again, or very many on all cores.

python -m tests.sim.raft_seeds --seed 17 [--mutation NAME]      one history, with the traceback of what broke
python -m tests.sim.raft_seeds --from 0 --count 20000 [--processes 2]
python -m tests.sim.raft_seeds --mutations                      how many seeds each mutation takes to be caught
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from tests.sim.raft_calm import run
from tests.sim.raft_mutations import MUTATIONS, mutated

SEEDS_PER_TASK = 50


def run_seed(seed: int, mutation: str | None = None) -> None:
    """Run one history; what breaks it is told with the command that repeats it. Raises AssertionError."""
    try:
        with mutated(mutation):
            run(seed)
    except Exception as error:
        again = f"python -m tests.sim.raft_seeds --seed {seed}" + (f" --mutation {mutation}" if mutation else "")
        raise AssertionError(f"seed {seed}: {error!r}; again: {again}") from error


def run_block(first: int, count: int) -> list[str]:
    """Run some seeds; returns what broke."""
    broken = []
    for seed in range(first, first + count):
        try:
            run_seed(seed)
        except AssertionError as error:
            broken.append(str(error))
    return broken


def run_many(first: int, count: int, processes: int) -> Iterator[str]:
    """Run seeds on several cores; yields what broke, as it breaks."""
    starts = range(first, first + count, SEEDS_PER_TASK)
    counts = [min(SEEDS_PER_TASK, first + count - start) for start in starts]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for broken in pool.map(run_block, starts, counts):
            yield from broken


def first_seed_to_catch(mutation: str, seeds_most: int) -> tuple[int, str] | None:
    """Return the first seed that catches a mutation, and by what; None if none of the first ones does."""
    for seed in range(seeds_most):
        try:
            with mutated(mutation):
                run(seed)
        except AssertionError as error:
            return seed, str(error)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--mutation", choices=sorted(MUTATIONS))
    parser.add_argument("--mutations", action="store_true")
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    began = time.perf_counter()
    if given.seed is not None:
        with mutated(given.mutation):
            world = run(given.seed)
        print(f"seed {given.seed}: clean, {world.referee.committed} entries, {world.now} rounds, {world.plan}")
        return 0
    if given.mutations:
        for name, mutation in MUTATIONS.items():
            caught = first_seed_to_catch(name, mutation.seeds_most)
            print(f"{name}: " + ("NOT CAUGHT" if caught is None else f"seed {caught[0]}: {caught[1]}"), flush=True)
        return 0
    broken = 0
    for text in run_many(given.first, given.count, given.processes):
        broken += 1
        print(text, flush=True)
    seconds = time.perf_counter() - began
    print(f"{given.count} seeds, {broken} broken, {seconds:.0f} s, {given.count / seconds:.0f} seeds a second")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
