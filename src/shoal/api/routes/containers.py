"""`/containers`: the containers of this node."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from shoal.api.container_lookup import found_container
from shoal.api.context import CONTEXT
from shoal.api.filters import Filters, matches_labels, parse_filters
from shoal.api.requests import flag
from shoal.api.responses import empty_response, encode, json_response, list_response
from shoal.api.routing import Route, api_version
from shoal.api.streams import format_line, read_log_request, run_until_gone, stream_response, warning_line
from shoal.api.views.container import container_summary_view, container_view, health_word, state_word
from shoal.api.views.shared import Json
from shoal.api.views.task import TaskViews
from shoal.engine.log_options import log_details
from shoal.engine.protocol import Engine
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.container import Container
from shoal.model.objects import Task

FILTERS = frozenset(
    {
        "ancestor", "before", "expose", "exited", "health", "id", "is-task", "isolation", "label", "name", "network",
        "publish", "since", "status", "volume",
    }
)  # fmt: skip
STATUSES = frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"})
WAIT_CONDITIONS = frozenset({"", "not-running", "next-exit", "removed"})
UNKNOWN_EXIT_CODE = 255
TASK_LABEL = "com.docker.swarm.task.id"


def _engine(request: web.Request) -> Engine:
    return request.app[CONTEXT].engine


async def list_containers(request: web.Request) -> web.Response:
    """Answer with the containers that pass; without `all` or a status only those that run."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    for status in filters.get("status", ()):
        if status not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={status}'")
    show_all = flag(request, "all") or "status" in filters or "exited" in filters
    limit = _integer(request, "limit", 0)
    found = [
        container
        for container in _engine(request).list()
        if (show_all or limit > 0 or container.state.status == "running") and _passes(container, filters)
    ]
    now_ns = request.app[CONTEXT].clock.now_ns()
    shown = found[:limit] if limit > 0 else found
    return await list_response([container_summary_view(container, now_ns) for container in shown])


def _integer(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, "")
    if not text:
        return default
    if not text.lstrip("-").isdecimal() or len(text) > 18:
        raise InvalidArgument(f'invalid value for "{name}": "{text}" is no number')
    return int(text)


def _passes(container: Container, filters: Filters) -> bool:
    config = container.config
    tests: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("id", container.id.startswith),
        ("name", lambda value: value.removeprefix("/") in config.name),
        ("status", lambda value: state_word(container.state) == value),
        (
            "ancestor",
            lambda value: value in (config.image, container.image_id) or container.image_id == f"sha256:{value}",
        ),
        ("exited", lambda value: container.state.status == "exited" and str(container.state.exit_code) == value),
        ("is-task", lambda value: (TASK_LABEL in config.labels) == (value in ("1", "true"))),
        ("volume", lambda value: any(value in (mount.source, mount.target) for mount in config.mounts)),
        ("health", lambda value: health_word(container.state) == value),
    )
    for key, test in tests:
        if key in filters and not any(test(value) for value in filters[key]):
            return False
    return matches_labels(config.labels, filters.get("label", ()))


async def inspect(request: web.Request) -> web.Response:
    """Answer with a container; asked for by a task's id, with the task's own fields, too."""
    async with found_container(request) as found:
        view = container_view(found.container, request.app[CONTEXT].host().data_root)
    return json_response(await _with_task(request, found.container, view))


async def _with_task(request: web.Request, container: Container, view: Json) -> Json:
    """Add the fields of a task whose id was asked for: `docker inspect ID` looks for containers before tasks."""
    task_id = container.config.labels.get(TASK_LABEL, "")
    manager = request.app[CONTEXT].manager()
    task = manager.store.view.get(Task, task_id) if manager is not None else None
    if manager is None or task is None or not task_id.startswith(request.match_info["id"]):
        return view
    return view | TaskViews(manager.store.view).of(task)


async def logs(request: web.Request) -> web.StreamResponse:
    """Stream a container's output."""
    wanted = read_log_request(request)
    async with found_container(request) as found:
        container = found.container
        multiplexed = not container.config.tty
        response = stream_response(api_version(request), multiplexed=multiplexed)
        await response.prepare(request)

        async def send() -> None:
            details = log_details(container.config)
            try:
                async for line in found.logs(wanted.options):
                    await response.write(format_line(line, wanted, details, multiplexed=multiplexed))
            except Unavailable as error:
                warning = warning_line(error.message, request.app[CONTEXT].clock.now_ns())
                await response.write(format_line(warning, wanted, details, multiplexed=multiplexed))

        if await run_until_gone(request, send()):
            await response.write_eof()
        return response


async def start(request: web.Request) -> web.Response:
    """Start a container; 304 if it runs."""
    engine = _engine(request)
    container = engine.get(request.match_info["id"])
    if container.state.status == "running":
        return empty_response(304)
    await engine.start(container.id)
    return empty_response(204)


async def stop(request: web.Request) -> web.Response:
    """Stop a container; 304 if it does not run."""
    engine = _engine(request)
    container = engine.get(request.match_info["id"])
    if container.state.status != "running":
        return empty_response(304)
    await engine.stop(container.id, _timeout(request), request.query.get("signal") or None)
    return empty_response(204)


def _timeout(request: web.Request) -> float | None:
    return None if not request.query.get("t") else float(_integer(request, "t", 0))


async def restart(request: web.Request) -> web.Response:
    """Stop a container if it runs, and start it."""
    engine = _engine(request)
    container = engine.get(request.match_info["id"])
    if container.state.status == "running":
        await engine.stop(container.id, _timeout(request), request.query.get("signal") or None)
    await engine.start(container.id)
    return empty_response(204)


async def kill(request: web.Request) -> web.Response:
    """Send a signal to a container."""
    async with found_container(request) as found:
        await found.kill(request.query.get("signal") or "SIGKILL")
    return empty_response(204)


async def remove(request: web.Request) -> web.Response:
    """Remove a container."""
    engine = _engine(request)
    container = engine.get(request.match_info["id"])
    await engine.remove(container.id, flag(request, "force"))
    return empty_response(204)


async def pause(request: web.Request) -> web.Response:
    """Freeze a container."""
    await _engine(request).pause(request.match_info["id"])
    return empty_response(204)


async def unpause(request: web.Request) -> web.Response:
    """Let a frozen container go on."""
    await _engine(request).unpause(request.match_info["id"])
    return empty_response(204)


async def rename(request: web.Request) -> web.Response:
    """Give a container another name."""
    await _engine(request).rename(request.match_info["id"], request.query.get("name", ""))
    return empty_response(204)


async def wait(request: web.Request) -> web.StreamResponse:
    """Answer with the exit code once a container has ended; the headers go out at once, as clients expect."""
    condition = request.query.get("condition", "")
    if condition not in WAIT_CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    async with found_container(request) as found:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)

        async def send() -> None:
            answer: Json
            try:
                status = await found.wait()
                answer = {"StatusCode": status.code if status.code is not None else UNKNOWN_EXIT_CODE}
            except Unavailable as error:
                answer = {"StatusCode": UNKNOWN_EXIT_CODE, "Error": {"Message": error.message}}
            await response.write(encode(answer) + b"\n")

        if await run_until_gone(request, send()):
            await response.write_eof()
        return response


ROUTES = (
    Route("GET", "/containers/json", list_containers),
    Route("GET", "/containers/{id}/json", inspect),
    Route("GET", "/containers/{id}/logs", logs),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/wait", wait),
    Route("DELETE", "/containers/{id}", remove),
)
