"""A text stream for logs that never fails its writer."""

from __future__ import annotations

import contextlib
from typing import TextIO


class LossyStream:
    """A stream whose lines are lost when they cannot be written: a full disk or a closed pipe ends no process.

    Args:
        stream: takes what can be written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose it."""
        with contextlib.suppress(OSError):
            self._stream.flush()
