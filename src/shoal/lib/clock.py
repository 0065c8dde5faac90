"""Time as an argument: who needs the time is given a `Clock`."""

from __future__ import annotations

import time
from typing import Protocol

NANOSECONDS_PER_SECOND = 1_000_000_000


class Clock(Protocol):
    """A source of time."""

    def now_ns(self) -> int:
        """Wall-clock time, nanoseconds since the Unix epoch (UTC)."""

    def monotonic(self) -> float:
        """Seconds since some fixed point, never going back."""


class SystemClock:
    """The clock of the machine."""

    def now_ns(self) -> int:
        """Wall-clock time, nanoseconds since the Unix epoch (UTC)."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Seconds since some fixed point, never going back."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to: for tests and the simulation."""

    def __init__(self, now_ns: int = 1_700_000_000 * NANOSECONDS_PER_SECOND) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Wall-clock time, nanoseconds since the Unix epoch (UTC)."""
        return self._now_ns

    def monotonic(self) -> float:
        """Seconds since the epoch, as the same hand moves both."""
        return self._now_ns / NANOSECONDS_PER_SECOND

    def advance(self, seconds: float) -> None:
        """Move time forward by `seconds`."""
        self._now_ns += int(seconds * NANOSECONDS_PER_SECOND)
