"""An event loop of asyncio on a virtual clock, and processes in it that can be stopped, slowed and killed.

Time stands still while anything is ready and jumps to the next timer when nothing is. No socket and no thread: what is
handed to an executor is done in the loop, after a time that the process' disk takes. Every callback belongs to the
process in whose context it was made, so that a process is killed by never calling anything of it again: no `finally`
of it runs, as after a kill -9.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import inspect
import itertools
from collections.abc import Callable
from typing import Any

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
CALLBACKS_AT_ONCE_MOST = 300_000
CANCELLED_AGAIN_ROUNDS = 200


class Frozen(AssertionError):
    """The simulation goes on for ever without time passing, or waits for what never comes."""


class Process:
    """One life of a daemon. `write_seconds`: draws how long its disk takes."""

    def __init__(self, name: str, write_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.name = name
        self.is_alive = True
        self.is_stopped = False
        self.slow_seconds = 0.0
        self.disk_error: Exception | None = None
        self.write_seconds = write_seconds
        self.free_at = 0.0
        self.parked: list[asyncio.Handle] = []
        self.context = contextvars.Context()
        self.context.run(PROCESS.set, self)


class _Numbered:
    """What is kept in sets goes through them in the same order each time: not by its address in memory."""

    numbers = itertools.count(1)

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Any:
        made = super().__new__(cls)
        made.number = next(_Numbered.numbers)
        return made

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class NumberedTask(_Numbered, asyncio.Task):  # type: ignore[type-arg]
    pass


class NumberedFuture(_Numbered, asyncio.Future):  # type: ignore[type-arg]
    pass


class _NoSelector:
    """There is nothing to wait for but time."""

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `now` is its time, in seconds from its beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = _NoSelector()
        self._at_once = 0
        _Numbered.numbers = itertools.count(1)
        # at the end even the dead are run, so that their tasks can be cancelled
        self.wakes_the_dead = False
        self.neutral = contextvars.Context()
        self.all_tasks: set[asyncio.Task[Any]] = set()
        self.set_task_factory(self._make_task)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **keywords: Any) -> asyncio.Task[Any]:
        task = NumberedTask(coroutine, loop=loop, **keywords)
        self.all_tasks.add(task)
        task.add_done_callback(self.all_tasks.discard, context=self.neutral)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(loop=self)

    def time(self) -> float:
        return self.now

    def _process_events(self, _events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, _executor: Any, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = self.create_future()
        process = PROCESS.get()

        def work() -> None:
            try:
                if process is not None and process.disk_error is not None:
                    raise process.disk_error
                result = function(*arguments)
            except Exception as error:
                if not done.cancelled():
                    done.set_exception(error)
            else:
                if not done.cancelled():
                    done.set_result(result)

        self.call_later(process.write_seconds() if process is not None else 0.0, work)
        return done

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        del timeout

    def resume(self, process: Process) -> None:
        """Let a stopped process go on with all that came meanwhile."""
        process.is_stopped = False
        parked, process.parked = process.parked, []
        self._ready.extend(parked)

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready and not self._stopping:
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False
            if not scheduled:
                raise Frozen("everything waits, and nothing is to come")
            if scheduled[0]._when > self.now:
                self.now = scheduled[0]._when
                self._at_once = 0
        while scheduled and scheduled[0]._when <= self.now:
            timer = heapq.heappop(scheduled)
            timer._scheduled = False
            ready.append(timer)
        self._at_once += len(ready)
        if self._at_once > CALLBACKS_AT_ONCE_MOST:
            raise Frozen(f"{self._at_once} callbacks at one moment, {self.now:.3f} s: {list(ready)[:3]}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self._run_of_process(handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        del handle  # it is left out when its time comes

    def _run_of_process(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(PROCESS)
        if process is None or self.wakes_the_dead:
            handle._run()
        elif not process.is_alive:
            return
        elif process.is_stopped:
            process.parked.append(handle)
        elif process.slow_seconds:
            process.free_at = max(process.free_at, self.now) + process.slow_seconds
            self.call_at(process.free_at, self._run_late, process, handle, context=self.neutral)
        elif process.free_at > self.now:
            # no longer slow: in turn after what still waits
            self.call_at(process.free_at, self._run_late, process, handle, context=self.neutral)
        else:
            handle._run()

    def _run_late(self, process: Process, handle: asyncio.Handle) -> None:
        if handle._cancelled or not (process.is_alive or self.wakes_the_dead):
            return
        if process.is_stopped:
            process.parked.append(handle)
        else:
            handle._run()

    def bury(self, rounds_most: int = 20_000) -> None:
        """Cancel all tasks of all processes, dead ones too, and run until they have ended."""
        self.wakes_the_dead = True
        self.set_exception_handler(lambda _loop, _context: None)
        for round_ in range(rounds_most):
            if round_ % CANCELLED_AGAIN_ROUNDS == 0:
                # those, too, that the end of others has begun
                for task in tuple(self.all_tasks):
                    task.cancel()
            if not self.all_tasks:
                break
            self._at_once = 0
            asyncio._set_running_loop(self)
            try:
                self._run_once()
            except Frozen:
                break
            finally:
                asyncio._set_running_loop(None)
        for task in self.all_tasks:
            # one whose process died before its first step
            if inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:
                task.get_coro().close()
            task._log_destroy_pending = False
