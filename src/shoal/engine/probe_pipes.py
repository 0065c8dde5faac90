"""The FIFOs between this daemon and a process that probes: asked on stdin, codes on stdout, what is said on stderr.

Output is read as it comes, so that no probe waits for us; its beginning is kept. Knows bytes, not containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

OUTPUT_BYTES_READ = 64 * 1024
OUTPUT_BYTES_KEPT = 8 * 1024
_ANSWER_BYTES_MOST = 64


class ProbePipes:
    """FIFOs in `directory`, made anew.

    Args:
        directory: where.
        takes_input: it is asked line by line, and answers with a line each; else all it says is output.
    """

    def __init__(self, directory: Path, takes_input: bool) -> None:
        self.names = ("stdin", "stdout", "stderr") if takes_input else ("stdout", "stderr")
        for name in ("stdin", "stdout", "stderr"):
            (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / "stderr", 0o600)
        if takes_input:
            os.mkfifo(directory / "stdin", 0o600)
            os.mkfifo(directory / "stdout", 0o600)
        else:
            # one FIFO under two names: what is said on both comes in its order
            os.link(directory / "stderr", directory / "stdout")
        self._loop = asyncio.get_running_loop()
        self._asking = _open(directory / "stdin") if takes_input else -1
        self._answers = _open(directory / "stdout") if takes_input else -1
        self._output = _open(directory / "stderr")
        self._kept = b""
        self._answered: asyncio.Future[int] | None = None
        self._part = b""
        self._loop.add_reader(self._output, self._read_output)
        if takes_input:
            self._loop.add_reader(self._answers, self._read_answer)

    def ask(self) -> None:
        """Ask for a probe; what was said before is forgotten."""
        self.take()
        self._part = b""
        self._answered = self._loop.create_future()
        # an empty FIFO has room for a byte
        os.write(self._asking, b"\n")

    async def answer(self) -> int:
        """Return the exit code of the probe that was asked for."""
        assert self._answered is not None, "it was asked"
        return await self._answered

    def take(self) -> bytes:
        """Return what was said since this was last called."""
        self._read_output()
        kept, self._kept = self._kept, b""
        return kept

    def close(self) -> None:
        """Close all; a process that waits to be asked ends."""
        for descriptor in (self._answers, self._output):
            if descriptor >= 0:
                self._loop.remove_reader(descriptor)
        for descriptor in {self._asking, self._answers, self._output} - {-1}:
            os.close(descriptor)
        self._asking = self._answers = self._output = -1
        if self._answered is not None:
            self._answered.cancel()

    def _read_output(self) -> None:
        if self._output >= 0:
            with contextlib.suppress(BlockingIOError):
                data = os.read(self._output, OUTPUT_BYTES_READ)
                self._kept += data[: OUTPUT_BYTES_KEPT - len(self._kept)]

    def _read_answer(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._part = (self._part + os.read(self._answers, OUTPUT_BYTES_READ))[-_ANSWER_BYTES_MOST:]
        line, newline, _ = self._part.partition(b"\n")
        if newline and self._answered is not None and not self._answered.done():
            self._answered.set_result(int(line) if line.strip().isdigit() else 1)


def _open(path: Path) -> int:
    # both ends: the other side may come and go, and never finds nobody there
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
