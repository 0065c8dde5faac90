"""Waiting for a condition on what a member knows, looked at whenever the member did something and at each tick."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Conditions:
    """Who waits for what."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds`, a quick condition, is true; raises what it raises."""
        if holds():
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((holds, waiting))
        await waiting

    def settle(self) -> None:
        """Look at all conditions."""
        looked_at, self._waiting = self._waiting, []
        for holds, waiting in looked_at:
            if waiting.done():
                continue
            try:
                if holds():
                    waiting.set_result(None)
                else:
                    self._waiting.append((holds, waiting))
            except Exception as error:
                waiting.set_exception(error)

    def fail(self, error: Exception) -> None:
        """Fail all who wait."""
        failed, self._waiting = self._waiting, []
        for _, waiting in failed:
            if not waiting.done():
                waiting.set_exception(error)
