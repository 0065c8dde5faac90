"""`/services/{id}/logs` and `/tasks/{id}/logs`: the output of tasks on any node, merged as it comes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from functools import partial

from aiohttp import web

from shoal.api.context import CONTEXT, ApiContext
from shoal.api.requests import read_view, require_manager
from shoal.api.routing import Route, api_version
from shoal.api.streams import (
    LogRequest,
    format_line,
    read_log_request,
    run_until_gone,
    stream_response,
    warning_line,
)
from shoal.errors import ShoalError, Unavailable
from shoal.lib.backoff import Backoff
from shoal.manager.lookup import find_service, find_task
from shoal.model.base import replace
from shoal.model.container import LogOptions
from shoal.model.objects import Task
from shoal.model.states import TaskState
from shoal.store.feed import Follower
from shoal.store.view import View

# pieces of output that wait for a slow client; then the tasks' readers wait
QUEUE_PIECES = 256
# tasks of one node that are read at a time; of those that are followed all are
READERS_A_NODE_MOST = 32
RETRY_FIRST_SECONDS = 0.5
RETRY_MOST_SECONDS = 5.0
# Docker answers 500 to who asks for no stream of a service, 400 for a container
NO_STREAM = ShoalError


async def service_logs(request: web.Request) -> web.StreamResponse:
    """Stream the output of a service's tasks; with `follow` also of tasks that start later."""
    wanted = read_log_request(request, no_stream=NO_STREAM)
    view = await read_view(request)
    service = find_service(view, request.match_info["id"])
    container = service.spec.task_template.container_spec
    follower = require_manager(request).store.follow("task") if wanted.options.follow else None
    tasks = view.tasks_of_service(service.id)
    return await _stream(request, wanted, tasks, container is not None and container.tty, follower, service.id)


async def task_logs(request: web.Request) -> web.StreamResponse:
    """Stream the output of one task."""
    wanted = read_log_request(request, no_stream=NO_STREAM)
    view = await read_view(request)
    task = find_task(view, request.match_info["id"])
    return await _stream(request, wanted, (task,), _has_terminal(view, task), None, "")


def _has_terminal(view: View, task: Task) -> bool:
    revision = view.revision(task.service_id, task.spec_version)
    container = revision.spec.task_template.container_spec if revision is not None else None
    return container is not None and container.tty


def _has_output(task: Task) -> bool:
    """Tell whether a task can have written something: its container runs, or has run.

    One that is about to start is not read yet: what is followed ends with a container that does not run.
    """
    return bool(task.node_id) and task.status.state >= TaskState.RUNNING and task.status.state != TaskState.REJECTED


async def _stream(
    request: web.Request,
    wanted: LogRequest,
    tasks: tuple[Task, ...],
    has_terminal: bool,
    follower: Follower | None,
    service_id: str,
) -> web.StreamResponse:
    response = stream_response(api_version(request), multiplexed=not has_terminal)
    await response.prepare(request)
    merger = _Merger(request.app[CONTEXT], wanted, multiplexed=not has_terminal)
    selected = [task for task in tasks if _has_output(task)]
    await run_until_gone(request, merger.run(response, selected, follower, service_id))
    return response


class _Merger:
    """Readers of tasks on one side, one client on the other, a bounded queue between."""

    def __init__(self, context: ApiContext, wanted: LogRequest, *, multiplexed: bool) -> None:
        self._context = context
        self._wanted = wanted
        self._multiplexed = multiplexed
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_PIECES)
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(partial(asyncio.Semaphore, READERS_A_NODE_MOST))
        # nodes that do not answer
        self._missing: set[str] = set()

    async def run(
        self, response: web.StreamResponse, tasks: list[Task], follower: Follower | None, service_id: str
    ) -> None:
        """Send the output of `tasks` (with a `follower`: of later ones, too) until all has been sent."""
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write_to(response))
            self._start(group, tasks)
            if follower is not None:
                await self._follow(group, follower, service_id)
            await self._finished()
            writer.cancel()

    def _start(self, group: asyncio.TaskGroup, tasks: list[Task]) -> None:
        for task in tasks:
            if task.id not in self._readers:
                self._readers[task.id] = group.create_task(self._read(task))

    async def _follow(self, group: asyncio.TaskGroup, follower: Follower, service_id: str) -> None:
        """Start readers for tasks that come up, until the client goes away."""
        while True:
            batch = await follower.wait()
            changed = [change.new for change in batch.changes if isinstance(change.new, Task)]
            if batch.gap:
                manager = self._context.manager()
                changed = list(manager.store.view.tasks_of_service(service_id)) if manager is not None else []
            self._start(group, [task for task in changed if task.service_id == service_id and _has_output(task)])

    async def _read(self, task: Task) -> None:
        """Pass on the output of a task; while it is followed, a node that does not answer is asked again."""
        if not self._wanted.options.follow:
            async with self._turns[task.node_id]:
                if task.node_id not in self._missing:
                    await self._read_once(task, self._wanted.options)
            return
        backoff = Backoff(RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS)
        options = self._wanted.options
        while (last_ns := await self._read_once(task, options)) is not None:
            if last_ns:
                options = replace(options, since_ns=last_ns + 1, tail=None)
                backoff.reset()
            await asyncio.sleep(backoff.next_delay_seconds())
            manager = self._context.manager()
            if manager is None or manager.store.view.get(Task, task.id) is None:
                return

    async def _read_once(self, task: Task, options: LogOptions) -> int | None:
        """Pass on output until its end (None), or until the node does not answer (the time of the last line, or 0)."""
        attributes = {
            "com.docker.swarm.node.id": task.node_id,
            "com.docker.swarm.service.id": task.service_id,
            "com.docker.swarm.task.id": task.id,
        }
        last_ns = 0
        try:
            async for line in self._context.task_logs(task, options):
                last_ns = line.at_ns
                self._missing.discard(task.node_id)
                await self._queue.put(format_line(line, self._wanted, attributes, multiplexed=self._multiplexed))
        except ShoalError as error:
            is_missing = isinstance(error, Unavailable)
            is_known = is_missing and task.node_id in self._missing
            if is_missing:
                self._missing.add(task.node_id)
            if not is_known:
                # one line a node that does not answer, however many of its tasks are wanted
                warning = warning_line(error.message, self._context.clock.now_ns())
                await self._queue.put(format_line(warning, self._wanted, attributes, multiplexed=self._multiplexed))
            return last_ns if is_missing else None
        return None

    async def _finished(self) -> None:
        """Wait until every reader has ended and the client has everything."""
        if self._readers:
            await asyncio.wait(self._readers.values())
        await self._queue.join()

    async def _write_to(self, response: web.StreamResponse) -> None:
        while True:
            piece = await self._queue.get()
            await response.write(piece)
            self._queue.task_done()


ROUTES = (
    Route("GET", "/services/{id}/logs", service_logs),
    Route("GET", "/tasks/{id}/logs", task_logs),
)
