"""The one shape of all leader loops: changes mark keys dirty, a plain function plans, one batch is written.

Loops never call each other and keep nothing that the store does not say: on a change of leader nothing but the store
carries over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog

from shoal.errors import NotLeader, ShoalError, Unavailable
from shoal.lib.backoff import Backoff
from shoal.lib.clock import Clock
from shoal.model.actions import Action
from shoal.model.base import Struct
from shoal.store.apply import Change
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

REASONS_LOGGED = 5


class Round(Struct):
    """What one look at some keys came to: actions, when to look again (nanoseconds), and why."""

    actions: Sequence[Action] = ()
    wake_at_ns: int | None = None
    why: Sequence[str] = ()


class LeaderLoop:
    """Follows the store and keeps one concern in order, as long as it is let run.

    Args:
        name: what stands in the log.
        store: read and written.
        clock: gives `now` to the plan.
        kinds: the kinds of object whose changes matter.
        keys_of_change: which keys a change makes dirty.
        all_keys: every key there is, for the start and after a gap in the feed.
        plan: looks at the view and a set of keys, and returns a round.
    """

    def __init__(
        self,
        name: str,
        store: Store,
        clock: Clock,
        kinds: tuple[str, ...],
        keys_of_change: Callable[[View, Change], Iterable[str]],
        all_keys: Callable[[View], Iterable[str]],
        plan: Callable[[View, Iterable[str], int], dict[str, Round]],
    ) -> None:
        self._name = name
        self._store = store
        self._clock = clock
        self._kinds = kinds
        self._keys_of_change = keys_of_change
        self._all_keys = all_keys
        self._plan = plan
        self._wake_at_ns: dict[str, int] = {}

    async def run(self) -> None:
        """Run until cancelled, or until this member ceases to lead (NotLeader)."""
        follower = self._store.follow(*self._kinds)
        dirty: dict[str, None] = dict.fromkeys(self._all_keys(self._store.view))
        backoff = Backoff(first_seconds=0.05, most_seconds=2.0)
        while True:
            dirty.update(dict.fromkeys(self._due()))
            if dirty:
                dirty = dict.fromkeys(await self._settle(tuple(dirty)))
                if dirty:
                    await asyncio.sleep(backoff.next_delay_seconds())
                else:
                    backoff.reset()
            batch = await follower.wait(self._seconds_to_wake() if not dirty else 0)
            if batch.gap:
                dirty.update(dict.fromkeys(self._all_keys(self._store.view)))
            for change in batch.changes:
                dirty.update(dict.fromkeys(self._keys_of_change(self._store.view, change)))

    async def _settle(self, keys: tuple[str, ...]) -> list[str]:
        """Plan and write for `keys`; returns those to look at again.

        What is refused is tried again key by key: one that cannot be written does not hold up the others.
        """
        try:
            await self._round(keys)
        except (NotLeader, Unavailable) as error:
            if isinstance(error, NotLeader):
                raise
            _log.info("a plan could not be written", loop=self._name, error=error.message)
            return list(keys)
        except ShoalError as error:
            # The world moved between the view and the entry: look again, at it as it is now.
            _log.info("a plan no longer held", loop=self._name, keys=len(keys), error=error.message)
            if len(keys) == 1:
                return list(keys)
            return [left for key in keys for left in await self._settle((key,))]
        return []

    async def _round(self, keys: tuple[str, ...]) -> None:
        now_ns = self._clock.now_ns()
        reasons: list[str] = []

        def plan(view: View) -> Sequence[Action]:
            actions: list[Action] = []
            reasons.clear()
            for key, round_ in self._plan(view, keys, now_ns).items():
                actions.extend(round_.actions)
                reasons.extend(round_.why)
                if round_.wake_at_ns is None:
                    self._wake_at_ns.pop(key, None)
                else:
                    self._wake_at_ns[key] = round_.wake_at_ns
            return actions

        await self._store.batch(plan)
        if reasons:
            _log.debug("decided", loop=self._name, count=len(reasons), why=reasons[:REASONS_LOGGED])

    def _due(self) -> list[str]:
        now_ns = self._clock.now_ns()
        due = [key for key, at_ns in self._wake_at_ns.items() if at_ns <= now_ns]
        for key in due:
            del self._wake_at_ns[key]
        return due

    def _seconds_to_wake(self) -> float | None:
        if not self._wake_at_ns:
            return None
        return max(0.0, (min(self._wake_at_ns.values()) - self._clock.now_ns()) / 1e9)
