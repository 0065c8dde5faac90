"""Requests that only the leading manager answers go there, one hop (architecture.md 4.4).

A change is never sent twice: once bytes of it may have arrived, a lost connection is told to the client as it is.
Without a leader a request waits for one.
"""

from __future__ import annotations

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.requests import IS_FORWARDED
from shoal.api.routing import Handler
from shoal.errors import NotLeader

LEADER_HANDLERS: web.AppKey[frozenset[Handler]] = web.AppKey("shoal_leader_handlers")


@web.middleware
async def route_to_leader(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer here what this manager may answer, and hand the rest to the leader; a node that is no manager says so."""
    if request.match_info.handler not in request.app[LEADER_HANDLERS]:
        return await handler(request)
    return await at_leader(request, handler)


async def at_leader(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with `handler` where this manager leads or none is here, else with what the leader answers."""
    context = request.app[CONTEXT]
    manager = context.manager()
    if manager is None or manager.is_leader:
        return await handler(request)
    if request.app[IS_FORWARDED]:
        raise NotLeader("this manager leads no more: try again")
    try:
        return await context.forward(request)
    except NotLeader:
        # elected while the request waited
        return await handler(request)
