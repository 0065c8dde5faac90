"""`/events`: the events of the swarm and of this node's containers, those kept and those to come."""

from __future__ import annotations

import asyncio

from aiohttp import web

from shoal.api.context import CONTEXT, ManagerView
from shoal.api.filters import Filters, matches_labels, parse_filters
from shoal.api.responses import encode
from shoal.api.routing import Route
from shoal.api.streams import run_until_gone
from shoal.api.views.event import event_view, scope_of
from shoal.engine.events import EventFollower
from shoal.errors import InvalidArgument
from shoal.lib.clock import NANOSECONDS_PER_SECOND
from shoal.lib.units import parse_time_ns
from shoal.model.base import Struct
from shoal.model.events import Event
from shoal.store.feed import Follower

FILTERS = frozenset(
    {
        "type", "event", "scope", "node", "service", "secret", "config", "network", "label", "container", "image",
        "volume", "plugin", "daemon",
    }
)  # fmt: skip
KINDS = ("node", "service", "secret", "config", "network")
OBJECT_KEYS = (*KINDS, "container", "image", "volume", "plugin", "daemon")


class _Wanted(Struct):
    filters: dict[str, tuple[str, ...]]
    since_ns: int | None
    until_ns: int | None


async def events(request: web.Request) -> web.StreamResponse:
    """Stream events until the client goes away or `until` is reached."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    wanted = _Wanted(filters=dict(filters), since_ns=_time(request, "since"), until_ns=_time(request, "until"))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await run_until_gone(request, _send(request, response, wanted))
    return response


def _time(request: web.Request, name: str) -> int | None:
    text = request.query.get(name, "")
    if not text:
        return None
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise InvalidArgument(f'invalid value for "{name}": {error}') from None


async def _send(request: web.Request, response: web.StreamResponse, wanted: _Wanted) -> None:
    """Send the events kept since `since`, then those that come until `until`."""
    context = request.app[CONTEXT]
    manager = context.manager()
    follower = manager.store.follow(*KINDS) if manager is not None else None
    kept = manager.store.view.events() if manager is not None else ()
    of_containers = context.engine.events
    containers = of_containers.follow()
    try:
        if wanted.since_ns is not None:
            both = sorted((*kept, *of_containers.kept()), key=lambda event: event.at_ns)
            await _write(response, both, wanted)
        remaining = None
        if wanted.until_ns is not None:
            remaining = (wanted.until_ns - context.clock.now_ns()) / NANOSECONDS_PER_SECOND
            if remaining <= 0:
                return
        async with asyncio.timeout(remaining), asyncio.TaskGroup() as group:
            group.create_task(_send_of_containers(containers, response, wanted))
            if manager is not None and follower is not None:
                group.create_task(_send_later(manager, follower, response, wanted, kept[-1].index if kept else 0))
    except TimeoutError:
        return
    except ExceptionGroup as error:
        # the client has gone, most likely: who waits for that knows single errors
        raise error.exceptions[0] from None
    finally:
        of_containers.leave(containers)


async def _send_of_containers(follower: EventFollower, response: web.StreamResponse, wanted: _Wanted) -> None:
    while True:
        await _write(response, await follower.wait(), wanted)


async def _send_later(
    manager: ManagerView, follower: Follower, response: web.StreamResponse, wanted: _Wanted, last_index: int
) -> None:
    while True:
        await follower.wait()
        fresh = [event for event in manager.store.view.events() if event.index > last_index]
        if fresh:
            last_index = fresh[-1].index
            await _write(response, fresh, wanted)


async def _write(response: web.StreamResponse, events: list[Event], wanted: _Wanted) -> None:
    passing = [event for event in events if _passes(event, wanted)]
    if passing:
        await response.write(b"".join(encode(event_view(event)) + b"\n" for event in passing))


def _passes(event: Event, wanted: _Wanted) -> bool:
    if wanted.since_ns is not None and event.at_ns < wanted.since_ns:
        return False
    if wanted.until_ns is not None and event.at_ns > wanted.until_ns:
        return False
    return _passes_filters(event, wanted.filters)


def _passes_filters(event: Event, filters: Filters) -> bool:
    if "scope" in filters and scope_of(event) not in filters["scope"]:
        return False
    if "type" in filters and event.kind not in filters["type"]:
        return False
    # `health_status: healthy` is found as `health_status`, too
    words = (event.action, event.action.partition(":")[0])
    if "event" in filters and not any(word in filters["event"] for word in words):
        return False
    if "label" in filters and not matches_labels(event.attributes, filters["label"]):
        return False
    asked = [key for key in OBJECT_KEYS if key in filters]
    if not asked:
        return True
    if event.attributes.get("image", "\0") in filters.get("image", ()):
        return True
    names = filters.get(event.kind, ())
    return any(event.id.startswith(name) or event.attributes.get("name") == name for name in names)


ROUTES = (Route("GET", "/events", events),)
