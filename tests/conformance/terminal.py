"""A program on a terminal of its own, typed at by a test."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PATIENCE_SECONDS = 20.0


class Terminal:
    """A running program; `said` is all it has said."""

    def __init__(self, pid: int, master: int) -> None:
        self.pid = pid
        self.said = ""
        self._master = master

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def resize(self, height: int, width: int) -> None:
        """Give the terminal another size, and tell the program."""
        termios.tcsetwinsize(self._master, (height, width))
        os.kill(self.pid, signal.SIGWINCH)

    def wait_for(self, text: str) -> None:
        """Wait until it says `text`, after what was waited for last."""
        start, deadline = len(self.said), time.monotonic() + PATIENCE_SECONDS
        while text not in self.said[start:]:
            assert time.monotonic() < deadline, f"never said: {text!r}; said: {self.said!r}"
            assert self._read(), f"ended without saying {text!r}; said: {self.said!r}"

    def type_until(self, text: str, wanted: str) -> None:
        """Type `text` again and again until it says `wanted`: what it reacts to may need a moment."""
        start, deadline = len(self.said), time.monotonic() + PATIENCE_SECONDS
        while wanted not in self.said[start:]:
            assert time.monotonic() < deadline, f"never said: {wanted!r}; said: {self.said!r}"
            self.type(text)
            self._read(0.3)

    def _read(self, seconds: float = 1.0) -> bool:
        """Take what is said within `seconds`; False at the end."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 4096)
        except OSError:
            return False
        self.said += data.decode(errors="replace")
        return bool(data)

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._read():
            assert time.monotonic() < deadline, f"it does not end; said: {self.said!r}"
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End it if it still runs."""
        os.close(self._master)
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@contextmanager
def on_terminal(*command: str, environment: Mapping[str, str], size: tuple[int, int] = (30, 100)) -> Iterator[Terminal]:
    """Run a command on a terminal of `size` (height, width)."""
    # stopped until the terminal has its size: a program asks for that first of all
    reading, writing = os.pipe()
    pid, master = pty.fork()
    if pid == 0:
        os.read(reading, 1)
        os.execvpe(command[0], list(command), {**os.environ, **environment})
    termios.tcsetwinsize(master, size)
    os.write(writing, b"x")
    os.close(reading)
    os.close(writing)
    terminal = Terminal(pid, master)
    try:
        yield terminal
    finally:
        terminal.close()


def check_shell(terminal: Terminal) -> None:
    """Talk to a shell in a container: it knows the size of the window, hears of another, and its exit code comes back.

    The terminal is 30 by 100 at first.
    """
    terminal.wait_for("# ")
    terminal.type("stty size\n")
    terminal.wait_for("30 100")
    terminal.resize(11, 77)
    terminal.type_until("stty size\n", "11 77")
    terminal.type("exit 5\n")
    assert terminal.wait() == 5
