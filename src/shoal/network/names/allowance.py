"""How much a container may ask: a bucket of tokens, filled with time. Pure: the time is an argument.

One answer from the tables costs a token; what costs the process more takes more.
"""

from __future__ import annotations

TOKENS_A_SECOND = 10_000.0
MOST_TOKENS = 1_000.0
# never wait for less than what makes a wake-up worth its while
LEAST_WAIT_SECONDS = 0.005


class Allowance:
    """See the module; starts full."""

    __slots__ = ("_most", "_rate", "_tokens", "_updated_at")

    def __init__(self, now_seconds: float, rate: float = TOKENS_A_SECOND, most: float = MOST_TOKENS) -> None:
        self._rate = rate
        self._most = most
        self._tokens = most
        self._updated_at = now_seconds

    def refill(self, now_seconds: float) -> float:
        """Add what the time since the last call gives; return how many tokens there are."""
        self._tokens = min(self._most, self._tokens + (now_seconds - self._updated_at) * self._rate)
        self._updated_at = now_seconds
        return self._tokens

    def spend(self, tokens: float) -> None:
        """Take tokens away; the bucket may owe some."""
        self._tokens -= tokens

    def wait_seconds(self) -> float:
        """Return how long until there is a token."""
        return max(LEAST_WAIT_SECONDS, (1 - self._tokens) / self._rate)
