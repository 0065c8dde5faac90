"""`/distribution/{name}/json`: what a registry says of an image, asked by clients before they create a service."""

from __future__ import annotations

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.requests import registry_auth
from shoal.api.responses import json_response
from shoal.api.routing import Route
from shoal.api.views.image import distribution_view
from shoal.core.reference import parse_reference


async def inspect(request: web.Request) -> web.Response:
    """Answer with digest and platforms."""
    name = request.match_info["name"]
    parse_reference(name)
    manifest = await request.app[CONTEXT].inspect_remote(name, registry_auth(request))
    return json_response(distribution_view(manifest))


ROUTES = (Route("GET", "/distribution/{name:.+}/json", inspect),)
