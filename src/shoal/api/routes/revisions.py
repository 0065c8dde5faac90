"""`/shoal/services/…`: revisions, canaries, balance and fit of services, which Docker's API does not have."""

from __future__ import annotations

import time
from collections import Counter

from aiohttp import web

from shoal.api.requests import actor_of, read_body, read_view, require_manager, version_number
from shoal.api.responses import empty_response, json_response
from shoal.api.routing import Route, Scope
from shoal.api.views.rebalancing import proposal_view
from shoal.api.views.service import service_spec_view
from shoal.api.views.shared import time_text
from shoal.core.schedule.fit import plan_fit
from shoal.core.schedule.nodes import survey
from shoal.errors import InvalidArgument
from shoal.manager.lookup import find_service
from shoal.manager.rebalancing import check_replicated, propose
from shoal.model.objects import Node, Service
from shoal.model.requests import FitRequest


async def history(request: web.Request) -> web.Response:
    """Answer with the specs of a service that are kept, the newest first."""
    view = await read_view(request)
    service = find_service(view, request.match_info["id"])
    revisions = sorted(view.revisions_of(service.id), key=lambda revision: -revision.spec_version)
    tasks = Counter(task.spec_version for task in view.tasks_of_service(service.id) if task.is_wanted)
    return json_response(
        [
            {
                "Revision": revision.spec_version,
                "CreatedAt": time_text(revision.meta.created_at_ns),
                "Current": revision.spec_version == service.spec_version,
                "Tasks": tasks[revision.spec_version],
                "Spec": service_spec_view(revision.spec),
            }
            for revision in revisions
        ]
    )


async def roll_back(request: web.Request) -> web.Response:
    """Lead a service back to the revision `to`."""
    text = request.query.get("to", "")
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidArgument(f'invalid revision "{text}" in `to`: give a number of the history')
    version = version_number(request, "service")
    await read_view(request)
    control = require_manager(request).control
    await control.roll_back_service(request.match_info["id"], version, int(text), actor_of(request))
    return empty_response()


async def promote(request: web.Request) -> web.Response:
    """Let an update go on from its canaries to the rest."""
    await read_view(request)
    await require_manager(request).control.promote_service(request.match_info["id"], actor_of(request))
    return empty_response()


async def look_at_balance(request: web.Request) -> web.Response:
    """Answer with what would move for a service's tasks to be spread evenly."""
    view = await read_view(request)
    service = find_service(view, request.match_info["id"])
    check_replicated(service)
    return json_response(proposal_view(view, service, propose(view, service, time.time_ns())))


async def rebalance(request: web.Request) -> web.Response:
    """Have a service's tasks spread evenly; answers with what will move."""
    view = await read_view(request)
    service = find_service(view, request.match_info["id"])
    check_replicated(service)
    proposal = propose(view, service, time.time_ns())
    await require_manager(request).control.rebalance_service(service.id, actor_of(request))
    return json_response(proposal_view(view, service, proposal))


async def look_at_fit(request: web.Request) -> web.Response:
    """Answer with how many tasks of services that are to be made or changed would have a node, and why not all."""
    asked = await read_body(request, FitRequest)
    view = await read_view(request)

    def service_of(id_: str) -> Service | None:
        return view.get(Service, id_)

    infos = survey(view.find(Node), view.tasks_of_node, view.revision_of, service_of, time.time_ns())
    found = plan_fit(asked.services, infos, lambda name: view.by_name(Service, name), view.tasks_of_service)
    return json_response(
        [
            {"Name": fit.name, "Wanted": fit.wanted, "Placed": fit.placed, "Explanation": fit.explanation}
            for fit in found
        ]
    )


ROUTES = (
    Route("POST", "/shoal/services/fit", look_at_fit),
    Route("GET", "/shoal/services/{id}/rebalance", look_at_balance),
    Route("POST", "/shoal/services/{id}/rebalance", rebalance, Scope.LEADER),
    Route("GET", "/shoal/services/{id}/history", history),
    Route("POST", "/shoal/services/{id}/rollback", roll_back, Scope.LEADER),
    Route("POST", "/shoal/services/{id}/promote", promote, Scope.LEADER),
)
