"""`/events`: the swarm's events, those kept and those to come."""

from __future__ import annotations

import asyncio

from aiohttp import web

from shoal.api.context import CONTEXT, ManagerView
from shoal.api.filters import Filters, matches_labels, parse_filters
from shoal.api.responses import encode
from shoal.api.routing import Route
from shoal.api.streams import run_until_gone
from shoal.api.views.event import event_view
from shoal.errors import InvalidArgument
from shoal.lib.clock import NANOSECONDS_PER_SECOND
from shoal.lib.units import parse_time_ns
from shoal.model.base import Struct
from shoal.model.events import Event

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
    if await run_until_gone(request, _send(request, response, wanted)):
        await response.write_eof()
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
    context = request.app[CONTEXT]
    manager = context.manager()
    now_ns = context.clock.now_ns()
    remaining = None if wanted.until_ns is None else (wanted.until_ns - now_ns) / NANOSECONDS_PER_SECOND
    if manager is None:
        # no events of the swarm come by here: keep the stream open as Docker does
        await asyncio.sleep(max(0.0, remaining) if remaining is not None else float("inf"))
        return
    try:
        async with asyncio.timeout(None if remaining is None else max(0.0, remaining)):
            await _send_from(manager, response, wanted)
    except TimeoutError:
        return


async def _send_from(manager: ManagerView, response: web.StreamResponse, wanted: _Wanted) -> None:
    follower = manager.store.follow(*KINDS)
    kept = manager.store.view.events()
    last_index = kept[-1].index if kept else 0
    if wanted.since_ns is not None:
        await _write(response, [event for event in kept if _passes(event, wanted)])
    if wanted.until_ns is not None and kept and kept[-1].at_ns > wanted.until_ns:
        return
    while True:
        await follower.wait()
        fresh = [event for event in manager.store.view.events() if event.index > last_index]
        if fresh:
            last_index = fresh[-1].index
            await _write(response, [event for event in fresh if _passes(event, wanted)])


async def _write(response: web.StreamResponse, events: list[Event]) -> None:
    if events:
        await response.write(b"".join(encode(event_view(event)) + b"\n" for event in events))


def _passes(event: Event, wanted: _Wanted) -> bool:
    if wanted.since_ns is not None and event.at_ns < wanted.since_ns:
        return False
    if wanted.until_ns is not None and event.at_ns > wanted.until_ns:
        return False
    return _passes_filters(event, wanted.filters)


def _passes_filters(event: Event, filters: Filters) -> bool:
    if "scope" in filters and "swarm" not in filters["scope"]:
        return False
    if "type" in filters and event.kind not in filters["type"]:
        return False
    if "event" in filters and event.action not in filters["event"]:
        return False
    if "label" in filters and not matches_labels(event.attributes, filters["label"]):
        return False
    asked = [key for key in OBJECT_KEYS if key in filters]
    if not asked:
        return True
    names = filters.get(event.kind, ())
    return any(event.id.startswith(name) or event.attributes.get("name") == name for name in names)


ROUTES = (Route("GET", "/events", events),)
