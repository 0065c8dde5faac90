"""`/secrets` and `/configs`."""

from __future__ import annotations

from aiohttp import web

from shoal.api.filters import Filters, matches_labels, parse_filters
from shoal.api.requests import actor_of, read_body, read_view, require_manager, version_number
from shoal.api.responses import empty_response, json_response, list_response
from shoal.api.routing import Route, Scope
from shoal.api.views.payload import config_view, secret_view
from shoal.manager.lookup import find_config, find_secret
from shoal.model.objects import Config, Secret
from shoal.model.specs import ConfigSpec, SecretSpec

FILTERS = frozenset({"id", "name", "names", "label"})


def _passes(value: Secret | Config, filters: Filters) -> bool:
    """Names, beginnings of names and of ids are alternatives; labels must hold besides."""
    named = "name" in filters or "names" in filters or "id" in filters
    hit = (
        value.spec.name.startswith(filters.get("name") or ("\0",))
        or value.spec.name in filters.get("names", ())
        or value.id.startswith(filters.get("id") or ("\0",))
    )
    return (hit or not named) and matches_labels(value.spec.labels, filters.get("label", ()))


async def list_secrets(request: web.Request) -> web.Response:
    """Answer with the secrets that pass the filters, without data."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    view = await read_view(request)
    found = sorted((each for each in view.find(Secret) if _passes(each, filters)), key=lambda each: each.id)
    return await list_response(map(secret_view, found))


async def list_configs(request: web.Request) -> web.Response:
    """Answer with the configs that pass the filters."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    view = await read_view(request)
    found = sorted((each for each in view.find(Config) if _passes(each, filters)), key=lambda each: each.id)
    return await list_response(map(config_view, found))


async def create_secret(request: web.Request) -> web.Response:
    """Make a secret; answers its id."""
    spec = await read_body(request, SecretSpec)
    payloads = require_manager(request).control.payloads
    return json_response({"ID": await payloads.create_secret(spec, actor_of(request))}, status=201)


async def create_config(request: web.Request) -> web.Response:
    """Make a config; answers its id."""
    spec = await read_body(request, ConfigSpec)
    payloads = require_manager(request).control.payloads
    return json_response({"ID": await payloads.create_config(spec, actor_of(request))}, status=201)


async def inspect_secret(request: web.Request) -> web.Response:
    """Answer with a secret, without data."""
    view = await read_view(request)
    return json_response(secret_view(find_secret(view, request.match_info["id"])))


async def inspect_config(request: web.Request) -> web.Response:
    """Answer with a config."""
    view = await read_view(request)
    return json_response(config_view(find_config(view, request.match_info["id"])))


async def update_secret(request: web.Request) -> web.Response:
    """Write a secret's labels."""
    spec = await read_body(request, SecretSpec)
    version = version_number(request, "secret")
    await read_view(request)
    payloads = require_manager(request).control.payloads
    await payloads.update_secret(request.match_info["id"], version, spec, actor_of(request))
    return empty_response()


async def update_config(request: web.Request) -> web.Response:
    """Write a config's labels."""
    spec = await read_body(request, ConfigSpec)
    version = version_number(request, "config")
    await read_view(request)
    payloads = require_manager(request).control.payloads
    await payloads.update_config(request.match_info["id"], version, spec, actor_of(request))
    return empty_response()


async def remove_secret(request: web.Request) -> web.Response:
    """Remove a secret no service uses."""
    await read_view(request)
    await require_manager(request).control.payloads.remove_secret(request.match_info["id"], actor_of(request))
    return empty_response(204)


async def remove_config(request: web.Request) -> web.Response:
    """Remove a config no service uses."""
    await read_view(request)
    await require_manager(request).control.payloads.remove_config(request.match_info["id"], actor_of(request))
    return empty_response(204)


ROUTES = (
    Route("GET", "/secrets", list_secrets),
    Route("POST", "/secrets/create", create_secret, Scope.LEADER),
    Route("GET", "/secrets/{id}", inspect_secret),
    Route("DELETE", "/secrets/{id}", remove_secret, Scope.LEADER),
    Route("POST", "/secrets/{id}/update", update_secret, Scope.LEADER),
    Route("GET", "/configs", list_configs),
    Route("POST", "/configs/create", create_config, Scope.LEADER),
    Route("GET", "/configs/{id}", inspect_config),
    Route("DELETE", "/configs/{id}", remove_config, Scope.LEADER),
    Route("POST", "/configs/{id}/update", update_config, Scope.LEADER),
)
