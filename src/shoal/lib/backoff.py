"""Exponential back-off with a bound, without a clock of its own."""

from __future__ import annotations


class Backoff:
    """Delays that double from `first_seconds` to `most_seconds`; `reset` starts over."""

    def __init__(self, first_seconds: float = 0.1, most_seconds: float = 8.0, factor: float = 2.0) -> None:
        if not 0 < first_seconds <= most_seconds or factor < 1:
            raise ValueError("a back-off needs 0 < first_seconds <= most_seconds and factor >= 1")
        self._first_seconds = first_seconds
        self._most_seconds = most_seconds
        self._factor = factor
        self._next_seconds = first_seconds

    def next_delay_seconds(self) -> float:
        """Return how long to wait now, and wait longer the next time."""
        delay = self._next_seconds
        self._next_seconds = min(delay * self._factor, self._most_seconds)
        return delay

    def reset(self) -> None:
        """Start over from the first delay: what was tried has succeeded."""
        self._next_seconds = self._first_seconds
