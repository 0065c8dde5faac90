"""Keep a coroutine running: restart it after a failure, with back-off, and say so.

Cancellation is the only stop signal and is never swallowed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shoal.lib.backoff import Backoff

_log = structlog.get_logger(__name__)

STABLE_AFTER_SECONDS = 10.0


async def supervise(name: str, run: Callable[[], Awaitable[None]], backoff: Backoff | None = None) -> None:
    """Run `run` until it returns; when it raises, log the reason, wait, and run it again.

    Args:
        name: what stands in the log.
        run: makes a new awaitable for each try.
        backoff: delays between tries; it starts over when a try lived `STABLE_AFTER_SECONDS`.
    """
    backoff = backoff or Backoff()
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await run()
        except asyncio.CancelledError:
            raise
        except Exception:
            if loop.time() - started > STABLE_AFTER_SECONDS:
                backoff.reset()
            delay = backoff.next_delay_seconds()
            _log.exception("restarting after a failure", part=name, delay_seconds=delay)
            await asyncio.sleep(delay)
        else:
            return


async def cancel_and_wait(*tasks: asyncio.Task[None] | None) -> None:
    """Cancel `tasks` and wait until all have ended; what they raise on the way is not of interest any more."""
    known = [task for task in tasks if task is not None]
    for task in known:
        task.cancel()
    if known:
        await asyncio.gather(*known, return_exceptions=True)
