"""`/services/{id}/logs` and `/tasks/{id}/logs`: the output of tasks on any node, merged as it comes."""

from __future__ import annotations

import asyncio

from aiohttp import web

from shoal.api.context import CONTEXT, ApiContext
from shoal.api.requests import read_view, require_manager
from shoal.api.routing import Route, Scope, api_version
from shoal.api.streams import LogRequest, format_line, frame, read_log_request, run_until_gone, stream_response
from shoal.errors import ShoalError
from shoal.manager.lookup import find_service, find_task
from shoal.model.objects import Task
from shoal.model.states import TaskState
from shoal.store.feed import Follower
from shoal.store.view import View

# pieces of output that wait for a slow client; then the tasks' readers wait
QUEUE_PIECES = 256


async def service_logs(request: web.Request) -> web.StreamResponse:
    """Stream the output of a service's tasks; with `follow` also of tasks that start later."""
    wanted = read_log_request(request)
    view = await read_view(request)
    service = find_service(view, request.match_info["id"])
    container = service.spec.task_template.container_spec
    follower = require_manager(request).store.follow("task") if wanted.options.follow else None
    tasks = view.tasks_of_service(service.id)
    return await _stream(request, wanted, tasks, container is not None and container.tty, follower, service.id)


async def task_logs(request: web.Request) -> web.StreamResponse:
    """Stream the output of one task."""
    wanted = read_log_request(request)
    view = await read_view(request)
    task = find_task(view, request.match_info["id"])
    return await _stream(request, wanted, (task,), _has_terminal(view, task), None, "")


def _has_terminal(view: View, task: Task) -> bool:
    revision = view.revision(task.service_id, task.spec_version)
    container = revision.spec.task_template.container_spec if revision is not None else None
    return container is not None and container.tty


def _has_output(task: Task) -> bool:
    """Tell whether a task can have written something: it was given a node and its container was started."""
    return bool(task.node_id) and task.status.state >= TaskState.STARTING and task.status.state != TaskState.REJECTED


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
    if await run_until_gone(request, merger.run(response, selected, follower, service_id)):
        await response.write_eof()
    return response


class _Merger:
    """Readers of tasks on one side, one client on the other, a bounded queue between."""

    def __init__(self, context: ApiContext, wanted: LogRequest, *, multiplexed: bool) -> None:
        self._context = context
        self._wanted = wanted
        self._multiplexed = multiplexed
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(QUEUE_PIECES)
        self._readers: dict[str, asyncio.Task[None]] = {}

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
        attributes = {
            "com.docker.swarm.node.id": task.node_id,
            "com.docker.swarm.service.id": task.service_id,
            "com.docker.swarm.task.id": task.id,
        }
        try:
            async for line in self._context.task_logs(task.id, self._wanted.options):
                await self._queue.put(format_line(line, self._wanted, attributes, multiplexed=self._multiplexed))
        except ShoalError as error:
            text = f"Error grabbing logs: {error.message}\n".encode()
            await self._queue.put(frame("systemerr", text) if self._multiplexed else text)

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
    Route("GET", "/services/{id}/logs", service_logs, Scope.LEADER),
    Route("GET", "/tasks/{id}/logs", task_logs, Scope.LEADER),
)
