"""The terminal that our output is on, if it is one. Nothing else asks how wide it is."""

from __future__ import annotations

import os
import sys


def is_terminal() -> bool:
    """Return whether a person reads our output."""
    return sys.stdout.isatty()


def terminal_width() -> int | None:
    """Return how many characters a line of the terminal holds; None if our output is on none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        # a pipe, a file, or what a test gave instead of one
        return None
