"""How long the engine takes to create, start, stop and remove containers: `python bench/engine.py [COUNT]`, as root.

Prints; asserts nothing.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from tests.system.engine.conftest import make_rootfs, stream

from shoal.engine.engine import RuncEngine
from shoal.model.container import ContainerConfig


async def timed(what: str, count: int, one: Callable[[str], Awaitable[object]]) -> None:
    started = time.perf_counter()
    await asyncio.gather(*(one(f"bench-{number}") for number in range(count)))
    print(f"{what:<10} {count:>5} containers  {time.perf_counter() - started:7.3f} s")


async def longest_hold() -> None:
    """Print, when cancelled, the longest time that the event loop was held."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    finally:
        print(f"loop held  {longest * 1000:7.1f} ms at most")


def memory_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("Pss:"))


async def main(count: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="shoal-b-"))
    engine = RuncEngine(directory / "data", directory / "exec", directory / "images", "bench")
    started = time.perf_counter()
    await engine.start_up()
    print(f"start-up of engine and keeper   {time.perf_counter() - started:7.3f} s")
    started = time.perf_counter()
    await engine.images.import_root(stream(make_rootfs()), "bench")
    print(f"import of busybox               {time.perf_counter() - started:7.3f} s")
    hold = asyncio.create_task(longest_hold())

    async def create(name: str) -> None:
        await engine.create(ContainerConfig(name=name, image="bench", command=("sleep", "1000")))

    await timed("create", count, create)
    await timed("start", count, engine.start)
    print(f"keeper's memory (Pss) {memory_of(engine.keeper_pid)}")
    await timed("kill", count, lambda name: engine.stop(name, timeout_seconds=0))
    await timed("remove", count, engine.remove)
    hold.cancel()
    await asyncio.gather(hold, return_exceptions=True)
    await engine.close(stop_keeper=True)
    shutil.rmtree(directory)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
