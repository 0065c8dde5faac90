"""What the swarm allows its services on a node, asked once more where a container is made.

A service was checked when it was written; by the time a task of it starts the swarm may allow less.
"""

from __future__ import annotations

import asyncio

from shoal.core.privileges import Privileges, check_allowed, powers_of


class NodePolicy:
    """What this node's managers allow; in memory only."""

    def __init__(self) -> None:
        self._allowed: frozenset[str] | None = None
        self._heard = asyncio.Event()

    def take(self, allowed: tuple[str, ...] | None) -> None:
        """Take what a manager says; None: it is of a version that does not say it."""
        self._allowed = frozenset(allowed) if allowed is not None else None
        self._heard.set()

    async def check(self, privileges: Privileges) -> None:
        """Refuse what the swarm does not allow; a daemon that has just started waits for a manager's word.

        Raises:
            Forbidden: it does not.
        """
        if not powers_of(privileges):
            return
        await self._heard.wait()
        if self._allowed is not None:
            check_allowed(privileges, self._allowed)
