"""`/containers`: the containers of this node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from aiohttp import web

from shoal.api.container_lookup import found_container
from shoal.api.context import CONTEXT, ApiContext
from shoal.api.filters import Filters, matches_labels, parse_boolean, parse_filters, parse_until, passes_labels
from shoal.api.requests import flag, read_body
from shoal.api.responses import empty_response, encode, json_response, list_response
from shoal.api.routing import Route, api_version
from shoal.api.streams import format_line, read_log_request, run_until_gone, stream_response, warning_line
from shoal.api.views.container import (
    container_summary_view,
    container_view,
    health_word,
    is_shown_running,
    size_view,
    state_word,
)
from shoal.api.views.shared import Json
from shoal.api.views.task import TaskViews
from shoal.core.platform import Platform, parse_platform
from shoal.core.validate.plain_container import plain_config, plain_warnings, updated_config
from shoal.core.validate.plain_network import parse_port
from shoal.engine.handles import LocalContainer
from shoal.engine.log_options import log_details
from shoal.engine.oci import MASKED_PATHS, READONLY_PATHS
from shoal.engine.protocol import Engine
from shoal.errors import Conflict, InvalidArgument, NotBuilt, NotFound, Unavailable
from shoal.model.container import Container, ContainerConfig, ImageRecord, WaitCondition
from shoal.model.container_request import ContainerRequest, HostConfig
from shoal.model.objects import Task

FILTERS = frozenset(
    {
        "ancestor", "before", "expose", "exited", "health", "id", "is-task", "isolation", "label", "name", "network",
        "publish", "since", "status", "volume",
    }
)  # fmt: skip
PRUNE_FILTERS = frozenset({"label", "label!", "until"})
STATUSES = frozenset({"created", "running", "paused", "restarting", "removing", "exited", "dead"})
HEALTH_WORDS = frozenset({"starting", "healthy", "unhealthy", "none"})
WAIT_CONDITIONS = {
    "": WaitCondition.NOT_RUNNING,
    "not-running": WaitCondition.NOT_RUNNING,
    "next-exit": WaitCondition.NEXT_EXIT,
    "removed": WaitCondition.REMOVED,
}
UNKNOWN_EXIT_CODE = 255
TASK_LABEL = "com.docker.swarm.task.id"


def _engine(request: web.Request) -> Engine:
    return request.app[CONTEXT].engine


async def list_containers(request: web.Request) -> web.Response:
    """Answer with the containers that pass; without `all` or a status only those that run."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    _check_filters(filters)
    show_all = flag(request, "all") or "status" in filters or "exited" in filters
    limit = _integer(request, "limit", 0)
    engine = _engine(request)
    later = max((engine.get(each).created_at_ns for each in filters.get("since", ())), default=None)
    earlier = min((engine.get(each).created_at_ns for each in filters.get("before", ())), default=None)
    found = [
        container
        for container in engine.list()
        if (later is None or container.created_at_ns > later)
        and (earlier is None or container.created_at_ns < earlier)
        and (show_all or limit > 0 or is_shown_running(container.state))
        and _passes(container, filters)
    ]
    shown = found[:limit] if limit > 0 else found
    return await list_response(await container_summaries(request.app[CONTEXT], shown, flag(request, "size")))


async def container_summaries(context: ApiContext, containers: Sequence[Container], with_sizes: bool) -> list[Json]:
    """Return containers of this node as lists show them; those that go away meanwhile are left out."""
    now_ns, data_root = context.clock.now_ns(), context.host().data_root
    if not with_sizes:
        return [container_summary_view(container, now_ns, data_root) for container in containers]
    views = []
    for container in containers:
        with contextlib.suppress(NotFound):
            views.append(container_summary_view(container, now_ns, data_root, await context.engine.size(container.id)))
    return views


def _check_filters(filters: Filters) -> None:
    """Refuse values that no container can have. Raises InvalidArgument."""
    for key, words in (("status", STATUSES), ("health", HEALTH_WORDS)):
        for value in filters.get(key, ()):
            if value not in words:
                raise InvalidArgument(f"invalid filter '{key}={value}': use one of {', '.join(sorted(words))}")
    for value in filters.get("exited", ()):
        if not value.removeprefix("-").isdecimal():
            raise InvalidArgument(f"invalid filter 'exited={value}': write an exit code")
    for key in ("publish", "expose"):
        for value in filters.get(key, ()):
            _is_port(value, 0, "")
    parse_boolean(filters.get("is-task", ()), "is-task")


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
        ("is-task", lambda value: (TASK_LABEL in config.labels) == parse_boolean((value,), "is-task")),
        ("volume", lambda value: any(value in (mount.source, mount.target) for mount in config.mounts)),
        ("health", lambda value: health_word(container.state) == value),
        ("network", lambda value: _is_on(config, value)),
        ("publish", lambda value: any(_is_port(value, p.published_port, p.protocol) for p in config.host_ports)),
        ("expose", lambda value: any(_is_port(value, *port) for port in _exposed_ports(config))),
    )
    for key, test in tests:
        if key in filters and not any(test(value) for value in filters[key]):
            return False
    return matches_labels(config.labels, filters.get("label", ()))


def _is_on(config: ContainerConfig, network: str) -> bool:
    """Tell whether a container is on a network, by name or the beginning of an id."""
    if config.plain is not None and config.plain.network_mode == network:
        return True
    return any(network == each.name or each.network_id.startswith(network) for each in config.networks)


def _exposed_ports(config: ContainerConfig) -> list[tuple[int, str]]:
    exposed = config.plain.exposed_ports if config.plain is not None else ()
    return [*map(parse_port, exposed), *((port.target_port, port.protocol) for port in config.host_ports)]


def _is_port(text: str, number: int, protocol: str) -> bool:
    """Tell whether a port is that of a filter: `80`, `80/tcp`, `8000-8080/udp`."""
    wanted, _, of_protocol = text.partition("/")
    first, _, last = wanted.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        raise InvalidArgument(f"invalid port of a filter: {text}")
    return int(first) <= number <= int(last or first) and protocol == (of_protocol or "tcp")


async def inspect(request: web.Request) -> web.Response:
    """Answer with a container; asked for by a task's id, with the task's own fields, too."""
    async with found_container(request) as found:
        view = container_view(found.container, request.app[CONTEXT].host().data_root)
        if flag(request, "size") and isinstance(found, LocalContainer):
            view |= size_view(await _engine(request).size(found.container.id))
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
        if container.config.log_driver == "none":
            raise NotBuilt("configured logging driver does not support reading")
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

        await run_until_gone(request, send())
        return response


async def create(request: web.Request) -> web.Response:
    """Create a plain container; answers its id."""
    body = await read_body(request, ContainerRequest)
    config = plain_config(body, request.query.get("name", ""), MASKED_PATHS, READONLY_PATHS)
    _check_platform(_engine(request).images.get(body.image), body.image, request.query.get("platform", ""))
    container = await request.app[CONTEXT].containers.create(config)
    return json_response({"Id": container.id, "Warnings": list(plain_warnings(body))}, status=201)


def _check_platform(image: ImageRecord, name: str, text: str) -> None:
    """Refuse an image that is not of the platform asked for: clients pull it then. Raises NotFound."""
    if not text:
        return
    wanted, found = parse_platform(text), Platform(architecture=image.architecture, os=image.os, variant=image.variant)
    if not wanted.fits(found):
        raise NotFound(
            f"image with reference {name} was found but its platform ({found.text}) does not match the specified "
            f"platform ({wanted.text})"
        )


async def start(request: web.Request) -> web.Response:
    """Start a container; 304 if it runs."""
    started = await request.app[CONTEXT].containers.start(request.match_info["id"])
    return empty_response(204 if started else 304)


async def stop(request: web.Request) -> web.Response:
    """Stop a container; 304 if it does not run."""
    signal = request.query.get("signal") or None
    stopped = await request.app[CONTEXT].containers.stop(request.match_info["id"], _timeout(request), signal)
    return empty_response(204 if stopped else 304)


def _timeout(request: web.Request) -> float | None:
    return None if not request.query.get("t") else float(_integer(request, "t", 0))


async def restart(request: web.Request) -> web.Response:
    """Stop a container if it runs, and start it."""
    signal = request.query.get("signal") or None
    await request.app[CONTEXT].containers.restart(request.match_info["id"], _timeout(request), signal)
    return empty_response(204)


async def update(request: web.Request) -> web.Response:
    """Give a plain container other limits, or another restart policy."""
    body = await read_body(request, HostConfig)
    await request.app[CONTEXT].containers.update(request.match_info["id"], lambda config: updated_config(config, body))
    return json_response({"Warnings": None})


async def kill(request: web.Request) -> web.Response:
    """Send a signal to a container."""
    signal = request.query.get("signal") or "SIGKILL"
    async with found_container(request) as found:
        if isinstance(found, LocalContainer):
            await request.app[CONTEXT].containers.note_signal(found.container.id, signal)
        await found.kill(signal)
    return empty_response(204)


async def remove(request: web.Request) -> web.Response:
    """Remove a container."""
    if flag(request, "link"):
        raise NotBuilt("link: links between containers are not built, so there are none to remove")
    await request.app[CONTEXT].containers.remove(request.match_info["id"], flag(request, "force"))
    return empty_response(204)


async def prune(request: web.Request) -> web.Response:
    """Remove the containers that have ended or were never started."""
    filters = parse_filters(request.query.get("filters"), PRUNE_FILTERS)
    context = request.app[CONTEXT]
    until_ns = parse_until(filters.get("until", ()), context.clock.now_ns())
    removed: list[str] = []
    freed_bytes = 0
    for container in context.engine.list():
        labels = container.config.labels
        if is_shown_running(container.state) or TASK_LABEL in labels:
            # what a task has left is its node's to remove: its log is still asked for
            continue
        if passes_labels(labels, filters) and (until_ns is None or container.created_at_ns <= until_ns):
            with contextlib.suppress(NotFound, Conflict):
                size = await context.engine.size(container.id)
                await context.containers.remove(container.id)
                removed.append(container.id)
                freed_bytes += size.written_bytes
    return json_response({"ContainersDeleted": removed or None, "SpaceReclaimed": freed_bytes})


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
                status = await found.wait(WAIT_CONDITIONS[condition])
                answer = {"StatusCode": status.code if status.code is not None else UNKNOWN_EXIT_CODE}
            except Unavailable as error:
                answer = {"StatusCode": UNKNOWN_EXIT_CODE, "Error": {"Message": error.message}}
            await response.write(encode(answer) + b"\n")

        await run_until_gone(request, send())
        return response


ROUTES = (
    Route("POST", "/containers/create", create),
    Route("POST", "/containers/prune", prune),
    Route("GET", "/containers/json", list_containers),
    Route("GET", "/containers/{id}/json", inspect),
    Route("GET", "/containers/{id}/logs", logs),
    Route("POST", "/containers/{id}/start", start),
    Route("POST", "/containers/{id}/stop", stop),
    Route("POST", "/containers/{id}/restart", restart),
    Route("POST", "/containers/{id}/kill", kill),
    Route("POST", "/containers/{id}/update", update),
    Route("POST", "/containers/{id}/pause", pause),
    Route("POST", "/containers/{id}/unpause", unpause),
    Route("POST", "/containers/{id}/rename", rename),
    Route("POST", "/containers/{id}/wait", wait),
    Route("DELETE", "/containers/{id}", remove),
)
