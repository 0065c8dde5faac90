"""The daemon's log on a disk that is full: found by `tests/system/chaos.py`."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import asyncio, structlog
from shoal.daemon.logs import configure_logging
from shoal.lib.supervise import supervise

configure_logging("info")

async def part():
    structlog.get_logger("test").info("a line that nobody can write")
    print("went on")

asyncio.run(supervise("part", part))
"""


def test_a_full_disk_under_the_log_ends_no_part_of_the_daemon() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "went on\n")
