"""`/services` (their logs: logs.py)."""

from __future__ import annotations

from aiohttp import web

from shoal.api.filters import Filters, matches_labels, matches_prefix, parse_filters
from shoal.api.requests import actor_of, flag, read_body, read_view, registry_auth, require_manager, version_number
from shoal.api.responses import ENCODED_SERVICES, empty_response, json_response, list_response
from shoal.api.routing import Route, Scope
from shoal.api.views.service import service_status, service_view
from shoal.api.views.shared import Json
from shoal.core.validate.service import warnings_of
from shoal.errors import InvalidArgument
from shoal.manager.lookup import find_service
from shoal.manager.service_plans import ServiceUpdate
from shoal.model.objects import Node, Service
from shoal.model.specs import ServiceMode, ServiceSpec
from shoal.model.states import NodeState
from shoal.store.view import View

FILTERS = frozenset({"id", "name", "label", "mode", "runtime"})
MODES = ("replicated", "global", "replicated-job", "global-job")


async def list_services(request: web.Request) -> web.Response:
    """Answer with the services that pass the filters; with `status` also how many tasks run."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    for mode in filters.get("mode", ()):
        if mode not in MODES:
            raise InvalidArgument(f"invalid filter 'mode={mode}': use one of {', '.join(MODES)}")
    with_status, with_defaults = flag(request, "status"), flag(request, "insertDefaults")
    view = await read_view(request)
    down = frozenset(node.id for node in view.find(Node) if node.status.state == NodeState.DOWN)
    services = sorted((each for each in view.find(Service) if _passes(each, filters)), key=lambda each: each.id)
    if not with_status and not with_defaults:
        known = request.app[ENCODED_SERVICES]
        return await list_response([known.of(service, lambda each: _view(view, each, False)) for service in services])
    views = [
        _view(
            view,
            service,
            with_defaults,
            service_status(service, view.tasks_of_service(service.id), down) if with_status else None,
        )
        for service in services
    ]
    return await list_response(views)


def _passes(service: Service, filters: Filters) -> bool:
    runtimes = filters.get("runtime", ())
    modes = filters.get("mode", ())
    return (
        matches_prefix(service.id, filters.get("id", ()))
        and matches_prefix(service.spec.name, filters.get("name", ()))
        and matches_labels(service.spec.labels, filters.get("label", ()))
        and (not modes or _mode_word(service.spec.mode) in modes)
        and (not runtimes or "container" in runtimes)
    )


def _mode_word(mode: ServiceMode) -> str:
    if mode.global_ is not None:
        return "global"
    if mode.replicated_job is not None:
        return "replicated-job"
    return "global-job" if mode.global_job is not None else "replicated"


def _view(view: View, service: Service, with_defaults: bool, status: Json | None = None) -> Json:
    previous = view.revision(service.id, service.previous_spec_version) if service.previous_spec_version else None
    return service_view(
        service, previous.spec if previous is not None else None, with_defaults=with_defaults, status=status
    )


async def create(request: web.Request) -> web.Response:
    """Make a service; answers its id."""
    spec = await read_body(request, ServiceSpec)
    control = require_manager(request).control
    service_id = await control.create_service(spec, registry_auth(request), actor_of(request))
    return json_response({"ID": service_id, "Warnings": warnings_of(spec) or None}, status=201)


async def inspect(request: web.Request) -> web.Response:
    """Answer with a service."""
    view = await read_view(request)
    service = find_service(view, request.match_info["id"])
    return json_response(_view(view, service, flag(request, "insertDefaults")))


async def update(request: web.Request) -> web.Response:
    """Write a service's spec, or go back to the one before."""
    spec = await read_body(request, ServiceSpec)
    change = ServiceUpdate(
        version=version_number(request, "service"),
        spec=spec,
        registry_auth=registry_auth(request),
        registry_auth_from=request.query.get("registryAuthFrom", ""),
        rollback=request.query.get("rollback", ""),
    )
    await read_view(request)
    await require_manager(request).control.update_service(request.match_info["id"], change, actor_of(request))
    return json_response({"Warnings": warnings_of(spec) or None})


async def remove(request: web.Request) -> web.Response:
    """Remove a service."""
    await read_view(request)
    await require_manager(request).control.remove_service(request.match_info["id"], actor_of(request))
    return empty_response()


ROUTES = (
    Route("GET", "/services", list_services),
    Route("POST", "/services/create", create, Scope.LEADER),
    Route("GET", "/services/{id}", inspect),
    Route("DELETE", "/services/{id}", remove, Scope.LEADER),
    Route("POST", "/services/{id}/update", update, Scope.LEADER),
)
