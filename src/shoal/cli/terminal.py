"""A person's terminal joined to a program in a container: keys there, output here, and the size of the window."""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

from shoal.client.connection import CHUNK_BYTES
from shoal.client.hijacking import HijackedStream
from shoal.client.streams import STDERR, read_frames

Resize = Callable[[int, int], None]


def join_streams(stream: HijackedStream, *, has_terminal: bool, sends_input: bool, resize: Resize | None) -> None:
    """Carry bytes both ways until the program's output ends.

    Args:
        stream: the program's.
        has_terminal: it runs on a terminal of its own: its output is one stream, as it comes.
        sends_input: our standard input is the program's.
        resize: tells it the height and width of our window, at first and whenever they change.
    """
    with raw_terminal(enabled=has_terminal and sends_input), following_window(resize):
        if sends_input:
            # it reads until our input ends or we do: nobody waits for it
            threading.Thread(target=_send_input, args=(stream,), daemon=True).start()
        if has_terminal:
            while part := stream.read(CHUNK_BYTES):
                _write(sys.stdout.buffer, part)
            return
        for number, payload in read_frames(stream):
            _write(sys.stderr.buffer if number == STDERR else sys.stdout.buffer, payload)


def window_size() -> tuple[int, int]:
    """Return height and width of the terminal our output is on: not what COLUMNS and LINES say of another one."""
    size = os.get_terminal_size(sys.stdout.fileno())
    return size.lines, size.columns


@contextmanager
def raw_terminal(*, enabled: bool) -> Iterator[None]:
    """Have every key passed on as it is typed, and the terminal as it was afterwards."""
    descriptor = sys.stdin.fileno() if enabled else -1
    if not enabled or not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def following_window(resize: Resize | None) -> Iterator[None]:
    """Tell the size of the window now and whenever it changes."""
    if resize is None or not sys.stdout.isatty():
        yield
        return

    def tell(_signal: int = 0, _frame: FrameType | None = None) -> None:
        resize(*window_size())

    before = signal.signal(signal.SIGWINCH, tell)
    try:
        tell()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def _send_input(stream: HijackedStream) -> None:
    while part := os.read(sys.stdin.fileno(), CHUNK_BYTES):
        stream.send(part)
    stream.close_input()


def _write(target: IO[bytes], data: bytes) -> None:
    target.write(data)
    target.flush()
