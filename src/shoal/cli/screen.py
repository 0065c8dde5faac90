"""The terminal that our output is on, if it is one: its width, and colours. Nothing else asks for either.

Colours are few: green for what runs, red for what failed, yellow for what waits or is held back. They stand on a
terminal only, and not where NO_COLOR is set or TERM is `dumb`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TextIO

DUMB = "dumb"
RED = "31"
GREEN = "32"
YELLOW = "33"
_COLOURS = {
    GREEN: ("complete", "good", "ready", "running", "up"),
    RED: ("dead", "down", "failed", "orphaned", "problem", "rejected", "unreachable"),
    YELLOW: ("drain", "locked", "note", "pause", "paused", "pending", "restarting", "unknown"),
}
_COLOUR_OF = {word: colour for colour, words in _COLOURS.items() for word in words}


def terminal_width() -> int | None:
    """Return how many characters a line of the terminal holds; None if our output is on none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except (OSError, ValueError):
        # a pipe, a file, or what a test gave instead of one
        return None


def redraws(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether our output is on a terminal that lets what was written be written over."""
    return sys.stdout.isatty() and environment.get("TERM") != DUMB


def takes_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether colours may stand on a stream."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != DUMB


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Give a text a colour where the stream (standard output) takes one; an empty colour is none."""
    return f"\x1b[{colour}m{text}\x1b[0m" if text and colour and takes_colour(stream or sys.stdout) else text


def state_colour(text: str) -> str:
    """Return the colour of a state as lists have it, by its first word: `Running 3 minutes ago`; empty for none."""
    word, _, rest = text.lower().partition(" ")
    if rest.endswith("(unhealthy)"):
        return RED
    if rest.endswith("(paused)"):
        return YELLOW
    return _COLOUR_OF.get(word, "")


def share_colour(text: str) -> str:
    """Return the colour of `2/3 …`: yellow if fewer run than should."""
    running, _, rest = text.partition("/")
    wanted = rest.partition(" ")[0]
    return YELLOW if running.isdecimal() and wanted.isdecimal() and int(running) < int(wanted) else ""
