"""Runs seeds of the simulation of the whole cluster: one again, or very many on several cores.

python -m tests.sim.cluster_seeds --seed 17 [--verbose]                one history, with all that happened
python -m tests.sim.cluster_seeds --from 0 --count 1000 [--processes 2]
python -m tests.sim.cluster_seeds --mutation NAME                      which seed catches a fault in the code
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

SEEDS_PER_TASK = 5
# some megabytes of each history stay behind
TASKS_A_PROCESS_MOST = 10
# sets of strings are in another order with another hash seed
HASH_SEED = "0"


def run_seed(seed: int, mutation: str | None = None) -> str:
    """Run one history; returns what broke it, with the command that repeats it, or nothing."""
    from tests.sim.cluster_mutations import mutated
    from tests.sim.cluster_world import World

    try:
        with mutated(mutation):
            World(seed).run()
    except Exception as error:
        kind = "" if isinstance(error, AssertionError) else "".join(traceback.format_exception(error)[-4:])
        again = f"python -m tests.sim.cluster_seeds --seed {seed}" + (f" --mutation {mutation}" if mutation else "")
        return f"seed {seed}: {str(error) or repr(error)} {kind}\n  again: {again}"
    finally:
        gc.collect()
    return ""


def run_block(first: int, count: int) -> list[str]:
    return [broken for seed in range(first, first + count) if (broken := run_seed(seed))]


def run_many(first: int, count: int, processes: int, progress: bool = False) -> Iterator[str]:
    """Run seeds on several cores; yields what broke, as it breaks."""
    starts = range(first, first + count, SEEDS_PER_TASK)
    counts = [min(SEEDS_PER_TASK, first + count - start) for start in starts]
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=TASKS_A_PROCESS_MOST) as pool:
        for start, broken in zip(starts, pool.map(run_block, starts, counts), strict=True):
            yield from broken
            if progress and start % 50 == 0:
                print(f"up to {start}", file=sys.stderr, flush=True)


def first_seed_to_catch(mutation: str) -> str:
    """Say which of the first seeds catches a mutation, and by what; nothing if none does."""
    from tests.sim.cluster_mutations import MUTATIONS

    for seed in range(MUTATIONS[mutation].seeds_most):
        if broken := run_seed(seed, mutation):
            return broken.partition("\n")[0]
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--mutation", help="put this fault into the code; alone: which seed catches it")
    parser.add_argument("--digest", action="store_true", help="only what tells one history from another")
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--progress", action="store_true", help="say every now and then how many seeds are done")
    given = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        command = [sys.executable, "-m", "tests.sim.cluster_seeds", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": HASH_SEED}, check=False).returncode
    began = time.perf_counter()
    if given.seed is None and given.mutation is not None:
        caught = first_seed_to_catch(given.mutation)
        print(f"{given.mutation}: {caught or 'NOT CAUGHT'}")
        return 0 if caught else 1
    if given.seed is not None:
        from tests.sim.cluster_mutations import mutated
        from tests.sim.cluster_world import World

        world = World(given.seed, print if given.verbose else None)
        with mutated(given.mutation):
            world.run()
        if given.digest:
            print(sorted(world.judge.entries), world.judge.leaders, world.network.frames, world.loop.now)
            return 0
        seconds = time.perf_counter() - began
        print(f"seed {given.seed}: clean, {world.plan}, {world.loop.now:.0f} s in {seconds:.1f} s")
        print(dict(world.faults.done), dict(world.history.outcomes), dict(world.judge.seen), sep="\n")
        return 0
    broken = 0
    for text in run_many(given.first, given.count, given.processes, given.progress):
        broken += 1
        print(text, flush=True)
    seconds = time.perf_counter() - began
    print(f"{given.count} seeds, {broken} broken, {seconds:.0f} s, {given.count / seconds:.1f} seeds a second")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
