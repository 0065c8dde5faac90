"""`/networks`.

Networks of the swarm are written by the leader, those of the node alone here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.filters import Filters, matches_labels, parse_filters, parse_until, passes_labels
from shoal.api.forwarding import at_leader
from shoal.api.requests import IS_FORWARDED, NOT_IN_SWARM, actor_of, flag, read_body, read_view, require_manager
from shoal.api.responses import empty_response, json_response, list_response
from shoal.api.routing import Route
from shoal.api.views.network import local_network_views, local_view, network_view, verbose_view, with_containers
from shoal.api.views.shared import Json
from shoal.core.networks import GATEWAY_NAME, OVERLAY_DRIVER, PREDEFINED
from shoal.core.validate.plain_network import endpoint_request
from shoal.errors import Forbidden, InvalidArgument, NameConflict, NotBuilt, NotFound, NotLeader
from shoal.model.container_request import ConnectRequest, DisconnectRequest, EndpointSettings
from shoal.model.objects import Network
from shoal.model.specs import NetworkSpec
from shoal.model.states import LocalNodeState

FILTERS = frozenset({"id", "name", "driver", "scope", "type", "label", "dangling"})
PRUNE_FILTERS = frozenset({"label", "label!", "until"})
BUILTIN = frozenset({"bridge", "host", "none"})


async def _networks(request: web.Request) -> list[Json]:
    """Return swarm networks (on a manager) and the node's own, those of the swarm first."""
    context = request.app[CONTEXT]
    found: list[Json] = []
    if context.manager() is not None:
        view = await read_view(request)
        found += [network_view(network) for network in sorted(view.find(Network), key=lambda each: each.id)]
    containers = context.engine.list()
    known = {network["Id"] for network in found}
    own = (network for network in context.local_networks.list() if network.id not in known)
    found += [local_view(network, containers) for network in own]
    host, in_swarm = context.host(), context.local_state() == LocalNodeState.ACTIVE
    is_made = any(network["Name"] == GATEWAY_NAME for network in found)
    found += [
        network
        for network in local_network_views(host.daemon_id, host.way_out)
        if network["Name"] != GATEWAY_NAME or (in_swarm and not is_made)
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
    network = await _find(request, reference, scope)
    if network["Scope"] == "swarm" and network["Id"] not in PREDEFINED:
        network = await _with_use(request, network, flag(request, "verbose"))
    return json_response(network)


async def _with_use(request: web.Request, network: Json, verbose: bool) -> Json:
    """Return a swarm network with its containers on this node; `verbose`: with its services and peers, too."""
    context = request.app[CONTEXT]
    if context.manager() is None:
        return network
    view = await read_view(request)
    stored = view.get(Network, network["Id"])
    if stored is None:
        return network
    network = with_containers(network, view, context.node_id)
    copy = next((each for each in context.local_networks.list() if each.id == stored.id), None)
    if copy is not None:
        # as it is on this node
        network = local_view(copy, context.engine.list())
    return {**network, **verbose_view(stored, view)} if verbose else network


async def _find(request: web.Request, reference: str, scope: str) -> Json:
    """Return the network that a reference means. Raises NotFound, InvalidArgument (several)."""
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
            return matches[0]
    if scope == "swarm":
        # the swarm's copies of what every node has: found by those who ask for them only, as in Docker
        for predefined in PREDEFINED.values():
            if reference in (predefined.id, predefined.spec.name):
                return network_view(predefined)
    raise NotFound(f"network {reference} not found")


async def create(request: web.Request) -> web.StreamResponse:
    """Make a network, of this node alone unless it is an overlay or `scope` is swarm; answers its id."""
    spec = await read_body(request, NetworkSpec)
    if not spec.config_only and (spec.driver == OVERLAY_DRIVER or spec.scope == "swarm"):
        return await at_leader(request, _create_in_swarm)
    context = request.app[CONTEXT]
    manager = context.manager()
    if spec.name == GATEWAY_NAME and context.local_state() == LocalNodeState.ACTIVE:
        raise NameConflict(
            f"network with name {spec.name} already exists: every node of a swarm has it; to have another one, make it "
            "before the node joins"
        )
    if manager is not None and any(network.spec.name == spec.name for network in manager.store.view.find(Network)):
        raise NameConflict(f"network with name {spec.name} already exists")
    network_id = await context.local_networks.create(spec)
    return json_response({"Id": network_id, "Warning": ""}, status=201)


async def _create_in_swarm(request: web.Request) -> web.Response:
    if request.app[CONTEXT].manager() is None:
        raise Forbidden(NOT_IN_SWARM)
    spec = await read_body(request, NetworkSpec)
    await read_view(request)
    network_id = await require_manager(request).control.networks.create(spec, actor_of(request))
    return json_response({"Id": network_id, "Warning": ""}, status=201)


async def remove(request: web.Request) -> web.StreamResponse:
    """Remove a network that nothing uses."""
    local = request.app[CONTEXT].local_networks.find(request.match_info["id"])
    if local is None:
        return await at_leader(request, _remove_of_swarm)
    context = request.app[CONTEXT]
    if local.spec.name == GATEWAY_NAME and context.local_state() == LocalNodeState.ACTIVE:
        raise Forbidden(
            f"error while removing network: network {local.spec.name} id {local.id} has active endpoints: "
            "gateway_ingress-sbox; leave the swarm first"
        )
    await context.local_networks.remove(local)
    return empty_response(204)


async def _remove_of_swarm(request: web.Request) -> web.Response:
    network = await _find(request, request.match_info["id"], "")
    if network["Scope"] == "local":
        raise Forbidden(f"{network['Name']} is a pre-defined network and cannot be removed")
    await require_manager(request).control.networks.remove(network["Id"], actor_of(request))
    return empty_response(204)


async def connect(request: web.Request) -> web.Response:
    """Put a plain container of this node on a network of the swarm."""
    body = await read_body(request, ConnectRequest)
    reference = _attachable(request)
    endpoint = endpoint_request(reference, body.endpoint_config or EndpointSettings(), "EndpointConfig")
    await request.app[CONTEXT].containers.connect(_container(body.container), endpoint)
    return empty_response(200)


async def disconnect(request: web.Request) -> web.Response:
    """Take a plain container of this node off a network of the swarm."""
    body = await read_body(request, DisconnectRequest)
    await request.app[CONTEXT].containers.disconnect(_container(body.container), _attachable(request))
    return empty_response(200)


def _container(reference: str) -> str:
    if not reference:
        raise InvalidArgument("Container: name the container, by its id or its name")
    return reference


def _attachable(request: web.Request) -> str:
    """Return which network is meant. Raises NotBuilt: one that every node has of its own."""
    reference = request.match_info["id"]
    host = request.app[CONTEXT].host()
    for network in local_network_views(host.daemon_id, host.way_out):
        if reference in (network["Name"], network["Id"]):
            raise NotBuilt(
                f"network {network['Name']}: a container is on it from its creation (--network) or not at all; "
                "connecting and disconnecting is for networks that were made by hand"
            )
    return reference


async def prune(request: web.Request) -> web.Response:
    """Remove the networks that nothing uses: of the swarm, if this is a manager, and of this node."""
    filters = parse_filters(request.query.get("filters"), PRUNE_FILTERS)
    context = request.app[CONTEXT]
    until_ns = parse_until(filters.get("until", ()), context.clock.now_ns())

    def is_wanted(network: Network) -> bool:
        return passes_labels(network.spec.labels, filters) and (
            until_ns is None or network.meta.created_at_ns <= until_ns
        )

    removed: list[str] = []
    manager = context.manager()
    if manager is not None and (manager.is_leader or request.app[IS_FORWARDED]):
        removed += await _prune_of_swarm(request, is_wanted)
    elif manager is not None:
        try:
            status, body = await context.answer_of_leader(request)
            if status != HTTPStatus.OK:
                return web.Response(status=status, body=body, content_type="application/json")
            removed += json.loads(body)["NetworksDeleted"] or ()
        except NotLeader:
            # elected while the request waited
            removed += await _prune_of_swarm(request, is_wanted)
    if not request.app[IS_FORWARDED]:
        removed += await context.local_networks.prune(is_wanted)
    return json_response({"NetworksDeleted": removed or None})


async def _prune_of_swarm(request: web.Request, is_wanted: Callable[[Network], bool]) -> tuple[str, ...]:
    await read_view(request)
    return await require_manager(request).control.networks.prune(is_wanted, actor_of(request))


ROUTES = (
    Route("GET", "/networks", list_networks),
    Route("GET", "/networks/", list_networks),
    Route("POST", "/networks/create", create),
    Route("POST", "/networks/prune", prune),
    Route("GET", "/networks/{id}", inspect),
    Route("POST", "/networks/{id}/connect", connect),
    Route("POST", "/networks/{id}/disconnect", disconnect),
    Route("DELETE", "/networks/{id}", remove),
)
