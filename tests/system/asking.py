"""Requests without end, each on a connection of its own, from a network namespace: who answered, and when.

with asking("/run/netns/NAME", "127.0.0.1", 8080) as asked:
    ...
assert asked.failures() == []
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

CLIENTS = 2
PATIENCE_SECONDS = 5.0


class Asked:
    """What was answered: begin, end, text, and whether it is an answer."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, float, str, bool]] = []

    def failures(self) -> list[str]:
        """Return what went wrong."""
        return [text for _, _, text, is_answer in self.answers if not is_answer]

    def texts(self) -> list[str]:
        """Return the answers in order of their end."""
        return [text for _, _, text, _ in sorted(self.answers, key=lambda answer: answer[1])]

    def begun_after_first(self, text: str) -> set[str]:
        """Return what was answered to requests that began after the first answer `text` had come."""
        first = min(end for _, end, answer, _ in self.answers if answer == text)
        return {answer for begin, _, answer, _ in self.answers if begin > first}


@contextlib.contextmanager
def asking(namespace: str, address: str, port: int) -> Iterator[Asked]:
    """Ask from `namespace` (a path) until the end of the block; the answers are there after it."""
    words = ["nsenter", f"--net={namespace}", sys.executable, str(Path(__file__)), address, str(port)]
    asked = Asked()
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield asked
    finally:
        told, _ = process.communicate("")
        asked.answers = [(begin, end, text, good) for begin, end, text, good in map(json.loads, told.splitlines())]


def _ask(address: str, port: int, answers: list[tuple[float, float, str, bool]], stop: threading.Event) -> None:
    while not stop.is_set():
        begin = time.monotonic()
        try:
            connection = http.client.HTTPConnection(address, port, timeout=PATIENCE_SECONDS)
            connection.request("GET", "/")
            text, good = connection.getresponse().read().decode().strip(), True
            connection.close()
        except (OSError, http.client.HTTPException) as error:
            text, good = repr(error), False
        answers.append((begin, time.monotonic(), text, good))


def _main(address: str, port: int) -> None:
    answers: list[tuple[float, float, str, bool]] = []
    stop = threading.Event()
    clients = [threading.Thread(target=_ask, args=(address, port, answers, stop)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    sys.stdin.read()
    stop.set()
    for client in clients:
        client.join()
    for answer in answers:
        print(json.dumps(answer))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
