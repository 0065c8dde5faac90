"""Entry: `python -m shoal.network.names --exec-root DIRECTORY --name NAME --host-resolver-file FILE`.

The daemon starts it when none answers, or when the one that answers is of another version: then this one loads first,
sends the other away and takes its place in a moment. A lock held for life makes it the only one of its exec root.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import resource
import socket
import sys
import time
from pathlib import Path

import structlog

from shoal.lib.cgroups import move_to_own, remove_own
from shoal.lib.lossy_stream import LossyStream
from shoal.network.names import messages
from shoal.network.names.resolver import Resolver

OPTIONS = ("--exec-root", "--name", "--host-resolver-file")
# raft, the agent and the containers go first
NICENESS = 5
COLLECTION_THRESHOLDS = (50_000, 20, 50)
LOCK_SECONDS = 10.0
POLL_SECONDS = 0.005


def _arguments(words: list[str]) -> dict[str, str]:
    values = dict(zip(words[0::2], words[1::2], strict=False))
    if len(words) % 2 or set(values) != set(OPTIONS):
        sys.exit(f"usage: python -m shoal.network.names {' VALUE '.join(OPTIONS)} VALUE")
    return values


def _send_away(exec_root: Path) -> None:
    """Ask who serves this exec root to end."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(1.0)
        channel.connect(str(exec_root / messages.SOCKET_FILE))
        channel.sendall(messages.encode(messages.Stop()))
        channel.recv(1)


def _take_lock(exec_root: Path) -> None:
    """Become the only resolver of an exec root; the descriptor stays open for life."""
    lock = os.open(exec_root / messages.LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    asked = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                sys.exit("another resolver serves this exec root and does not end")
        else:
            return
        if not asked:
            asked = True
            _send_away(exec_root)
        # a lock cannot be waited for with a deadline
        time.sleep(POLL_SECONDS)


def _allow_many_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _configure_logging() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"], bool_as_flag=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(LossyStream(sys.stderr)),  # type: ignore[arg-type]
    )


def main() -> None:
    """Run the resolver until it is told to stop."""
    values = _arguments(sys.argv[1:])
    exec_root = Path(values["--exec-root"])
    os.chdir("/")
    _configure_logging()
    _take_lock(exec_root)
    move_to_own(values["--name"])
    os.nice(NICENESS)
    _allow_many_descriptors()
    # frozen objects by the ten thousand, which make no cycles, are not to set collections off
    gc.set_threshold(*COLLECTION_THRESHOLDS)

    async def run() -> None:
        await Resolver(exec_root, Path(values["--host-resolver-file"])).run()

    asyncio.run(run())
    remove_own(values["--name"])


if __name__ == "__main__":
    main()
