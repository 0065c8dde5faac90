"""Watches the health of an engine's containers: one waiting task a container, one probe of it at a time.

What is due when and what a result means is `core/health.py`; how a command is run is `probes.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from shoal.core.health import NO_RESULT_CODE, Check, after_result, check_of, next_delay_seconds, shown_output
from shoal.engine.events import NodeEvents
from shoal.engine.keeper.processes import is_ending
from shoal.engine.live import Live
from shoal.engine.probes import ProbeRefused, Probes
from shoal.engine.signals import SIGKILL_EXIT_CODE
from shoal.errors import Unavailable
from shoal.lib.clock import Clock
from shoal.lib.supervise import cancel_and_wait
from shoal.model.container import Container, Health, HealthResult

_log = structlog.get_logger(__name__)

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


class HealthChecks:
    """The checks of all containers of a node.

    Args:
        probes: runs them.
        clock: source of time.
        in_thread: runs blocking work on files.
        events: told of every container whose status has become another one.
    """

    def __init__(self, probes: Probes, clock: Clock, in_thread: InThread, events: NodeEvents) -> None:
        self._probes = probes
        self._clock = clock
        self._in_thread = in_thread
        self._events = events
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._random = random.Random()  # noqa: S311 - spreads work, keeps no secret

    def begin(self, live: Live, is_adopted: bool = False) -> None:
        """Check a container that runs from now on, if it is to be checked. `is_adopted`: it has run for a while."""
        check = check_of(live.container.config.healthcheck)
        if check is None or live.container.id in self._watching:
            return
        live.set_health(Health())
        watching = asyncio.create_task(self._watch(live, check, is_adopted), name="health checks")
        self._watching[live.container.id] = watching
        watching.add_done_callback(_log_failure)

    def end(self, container_id: str) -> None:
        """Check a container no more: it has ended."""
        watching = self._watching.pop(container_id, None)
        if watching is not None:
            watching.cancel()
            self._ending.add(watching)
            watching.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Check nothing any more."""
        await cancel_and_wait(*self._watching.values(), *self._ending)
        self._watching.clear()

    async def _watch(self, live: Live, check: Check, is_adopted: bool) -> None:
        container_id = live.container.id
        health, is_prepared = Health(), False
        try:
            while live.container.state.status == "running":
                age_ns = self._clock.now_ns() - live.container.state.started_at_ns
                chance = self._random.random()
                await asyncio.sleep(next_delay_seconds(check, health, age_ns, chance, is_adopted))
                is_adopted = False
                if live.container.state.status != "running" or live.container.state.paused:
                    continue
                is_prepared = is_prepared or await self._prepare(live.container, check)
                if is_prepared:
                    health = await self._check(live, check, health)
        finally:
            self._probes.let_go(container_id)
            await asyncio.shield(self._in_thread(lambda: self._probes.forget(container_id)))

    async def _prepare(self, container: Container, check: Check) -> bool:
        try:
            await self._in_thread(lambda: self._probes.prepare(container, check.arguments))
        except (OSError, ValueError) as error:
            _log.warning("a health check cannot be made", container_id=container.id, reason=str(error))
            return False
        return True

    async def _check(self, live: Live, check: Check, health: Health) -> Health:
        begun_ns = self._clock.now_ns()
        try:
            ended = await self._probes.run(live.container, check.timeout_ns / 1e9)
        except ProbeRefused as error:
            code, text = NO_RESULT_CODE, error.message
        except (Unavailable, OSError) as error:
            # nothing is known of the container: this one does not count
            _log.warning("a health check gave no result", container_id=live.container.id, reason=str(error))
            return health
        else:
            code, text = (NO_RESULT_CODE if ended.code is None else ended.code), shown_output(ended.output)
            if ended.code is None:
                text = f"Health check exceeded timeout ({check.timeout_ns / 1e9:g}s): {text}"
        if live.container.state.status != "running" or live.container.state.paused:
            return health
        if code == SIGKILL_EXIT_CODE and is_ending(live.container.state.pid):
            # it was killed with its container, whose end the keeper has yet to tell
            return health
        result = HealthResult(started_at_ns=begun_ns, ended_at_ns=self._clock.now_ns(), exit_code=code, output=text)
        changed = after_result(check, health, result, live.container.state.started_at_ns)
        live.set_health(changed)
        if changed.status != health.status:
            _log.info("health of a container", container_id=live.container.id, status=changed.status.value, code=code)
            self._events.tell(live.container, f"health_status: {changed.status.value}")
        return changed


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("health checks of a container ended", exc_info=error)
