"""Runs in a container's namespace: floods its resolver with queries, or asks one after the other.

    names_flood.py flood NAME SECONDS QUERIES_A_SECOND     prints how many were sent
    names_flood.py ask NAME COUNT PAUSE_SECONDS            prints how many were answered, and the median in ms

Standard library only.
"""

import contextlib
import socket
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.dns import query, read

RESOLVER = ("127.0.0.11", 53)
BURST = 100
ANSWER_SECONDS = 5.0


def flood(name: str, seconds: float, rate: float) -> int:
    """Send queries at a rate and read no answer."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.connect(RESOLVER)
    channel.setblocking(False)
    message, sent, begin = query(name), 0, time.monotonic()
    while (passed := time.monotonic() - begin) < seconds:
        if sent >= passed * rate:
            time.sleep(BURST / rate / 4)
            continue
        for _ in range(BURST):
            with contextlib.suppress(BlockingIOError):
                channel.send(message)
            sent += 1
    return sent


def ask(name: str, count: int, pause_seconds: float) -> tuple[int, float]:
    """Return how many of the queries were answered with an address, and the median in ms of those that were."""
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.connect(RESOLVER)
    channel.settimeout(ANSWER_SECONDS)
    times = []
    for number in range(count):
        begin = time.perf_counter()
        channel.send(query(name, number=number))
        try:
            while (answer := read(channel.recv(4096))).number != number:
                pass
        except TimeoutError:
            continue
        if answer.records:
            times.append(time.perf_counter() - begin)
        time.sleep(pause_seconds)
    return len(times), 1e3 * statistics.median(times) if times else 0.0


if __name__ == "__main__":
    if sys.argv[1] == "flood":
        print(flood(sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
    else:
        print(*ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
