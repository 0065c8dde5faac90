"""`/nodes`."""

from __future__ import annotations

from aiohttp import web

from shoal.api.context import ManagerView
from shoal.api.filters import Filters, matches_labels, matches_prefix, parse_filters
from shoal.api.requests import actor_of, flag, read_body, read_view, require_manager, version_number
from shoal.api.responses import empty_response, json_response, list_response
from shoal.api.routing import Route, Scope
from shoal.api.views.node import node_view
from shoal.api.views.shared import Json
from shoal.errors import InvalidArgument
from shoal.manager.lookup import find_node
from shoal.model.objects import Node
from shoal.model.specs import NodeSpec
from shoal.model.states import Role

FILTERS = frozenset({"id", "name", "label", "node.label", "role", "membership"})
MEMBERSHIPS = frozenset({"accepted", "pending"})


async def list_nodes(request: web.Request) -> web.Response:
    """Answer with the nodes that pass the filters."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    _check_values(filters)
    view = await read_view(request)
    manager = require_manager(request)
    nodes = sorted((node for node in view.find(Node) if _passes(node, filters)), key=lambda node: node.id)
    return await list_response([_view(node, manager) for node in nodes])


def _check_values(filters: Filters) -> None:
    for role in filters.get("role", ()):
        if role.lower() not in set(Role):
            raise InvalidArgument(f"Invalid role filter: '{role}'")
    for membership in filters.get("membership", ()):
        if membership.lower() not in MEMBERSHIPS:
            raise InvalidArgument(f"Invalid membership filter: '{membership}'")


def _passes(node: Node, filters: Filters) -> bool:
    roles = [role.lower() for role in filters.get("role", ())]
    memberships = [membership.lower() for membership in filters.get("membership", ())]
    return (
        matches_prefix(node.id, filters.get("id", ()))
        and matches_prefix(node.description.hostname, filters.get("name", ()))
        and matches_labels(node.description.engine_labels, filters.get("label", ()))
        and matches_labels(node.spec.labels, filters.get("node.label", ()))
        and (not roles or node.spec.role in roles)
        # a node is in the store only once it is accepted
        and (not memberships or "accepted" in memberships)
    )


def _view(node: Node, manager: ManagerView) -> Json:
    if node.manager_status is None:
        return node_view(node)
    return node_view(node, is_leader=node.id == manager.leader_node_id, reachability=manager.reachability(node.id))


async def inspect(request: web.Request) -> web.Response:
    """Answer with a node."""
    view = await read_view(request)
    return json_response(_view(find_node(view, request.match_info["id"]), require_manager(request)))


async def update(request: web.Request) -> web.Response:
    """Write a node's spec."""
    spec = await read_body(request, NodeSpec)
    version = version_number(request, "node")
    await read_view(request)
    control = require_manager(request).control
    await control.update_node(request.match_info["id"], version, spec, actor_of(request))
    return empty_response()


async def remove(request: web.Request) -> web.Response:
    """Remove a node."""
    await read_view(request)
    control = require_manager(request).control
    await control.remove_node(request.match_info["id"], flag(request, "force"), actor_of(request))
    return empty_response()


ROUTES = (
    Route("GET", "/nodes", list_nodes),
    Route("GET", "/nodes/{id}", inspect),
    Route("DELETE", "/nodes/{id}", remove, Scope.LEADER),
    Route("POST", "/nodes/{id}/update", update, Scope.LEADER),
)
