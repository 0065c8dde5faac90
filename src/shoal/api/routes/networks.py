"""`/networks` and `/volumes`, as far as they can be read; making them comes with overlay networks and volumes."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.filters import Filters, matches_labels, parse_filters
from shoal.api.requests import read_view
from shoal.api.responses import json_response, list_response
from shoal.api.routing import Route
from shoal.api.views.network import local_network_views, network_view
from shoal.api.views.shared import Json
from shoal.errors import InvalidArgument, NotFound
from shoal.model.objects import Network
from shoal.model.states import LocalNodeState

FILTERS = frozenset({"id", "name", "driver", "scope", "type", "label", "dangling"})
VOLUME_FILTERS = frozenset({"name", "driver", "label", "dangling"})
BUILTIN = frozenset({"bridge", "host", "none"})


async def _networks(request: web.Request) -> list[Json]:
    """Return swarm networks (on a manager) and the node's own, those of the swarm first."""
    context = request.app[CONTEXT]
    found: list[Json] = []
    if context.manager() is not None:
        view = await read_view(request)
        found += [network_view(network) for network in sorted(view.find(Network), key=lambda each: each.id)]
    in_swarm = context.local_state() == LocalNodeState.ACTIVE
    found += [
        network
        for network in local_network_views(context.host().daemon_id)
        if in_swarm or network["Name"] != "docker_gwbridge"
    ]
    return found


async def list_networks(request: web.Request) -> web.Response:
    """Answer with the networks that pass the filters."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    for kind in filters.get("type", ()):
        if kind not in ("builtin", "custom"):
            raise InvalidArgument(f"invalid filter: 'type'='{kind}'")
    return await list_response(network for network in await _networks(request) if _passes(network, filters))


def _passes(network: Json, filters: Filters) -> bool:
    kind = "builtin" if network["Name"] in BUILTIN else "custom"
    equals = (
        ("driver", network["Driver"]),
        ("scope", network["Scope"]),
        ("type", kind),
    )
    if any(value not in filters[key] for key, value in equals if key in filters):
        return False
    if "name" in filters and not any(name in network["Name"] for name in filters["name"]):
        return False
    if "id" in filters and not any(network["Id"].startswith(id_) for id_ in filters["id"]):
        return False
    return matches_labels(network["Labels"] or {}, filters.get("label", ()))


async def inspect(request: web.Request) -> web.Response:
    """Answer with a network, found by id, name or unique beginning of its id."""
    reference, scope = request.match_info["id"], request.query.get("scope", "")
    candidates = [network for network in await _networks(request) if not scope or network["Scope"] == scope]
    tests: tuple[Callable[[Json], bool], ...] = (
        lambda network: network["Id"] == reference,
        lambda network: network["Name"] == reference,
        lambda network: network["Id"].startswith(reference),
    )
    for test in tests:
        matches = [network for network in candidates if test(network)]
        if len(matches) > 1:
            raise InvalidArgument(f"network {reference} is ambiguous ({len(matches)} matches found based on ID prefix)")
        if matches:
            return json_response(matches[0])
    raise NotFound(f"network {reference} not found")


async def list_volumes(request: web.Request) -> web.Response:
    """Answer with no volumes: they are not built yet."""
    parse_filters(request.query.get("filters"), VOLUME_FILTERS)
    return json_response({"Volumes": [], "Warnings": None})


async def inspect_volume(request: web.Request) -> web.Response:
    """Say that there is no such volume."""
    raise NotFound(f"get {request.match_info['name']}: no such volume")


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/", list_networks),
    Route("GET", "/networks/{id}", inspect),
    Route("GET", "/volumes", list_volumes),
    Route("GET", "/volumes/{name}", inspect_volume),
)
