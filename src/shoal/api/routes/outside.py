"""Docker's routes that Shoal does not have: 501 with a text that says what is missing."""

from __future__ import annotations

from aiohttp import web

from shoal.api.routing import Handler, Route
from shoal.errors import NotBuilt

BUILD = "building images is outside Shoal: build elsewhere and push, or load an archive"
PLUGINS = "engine plugins are outside Shoal"


def _refuse(text: str) -> Handler:
    async def handler(_request: web.Request) -> web.StreamResponse:
        raise NotBuilt(text)

    return handler


def _routes(text: str, *lines: str) -> tuple[Route, ...]:
    handler = _refuse(text)
    return tuple(Route(method, path, handler) for method, path in (line.split() for line in lines))


ROUTES = (
    *_routes(BUILD, "POST /build", "POST /build/cancel", "POST /session", "POST /grpc"),
    *_routes(
        PLUGINS,
        "GET /plugins/{name}/json",
        "GET /plugins/privileges",
        "POST /plugins/pull",
        "POST /plugins/create",
        "DELETE /plugins/{name}",
        "POST /plugins/{name}/enable",
        "POST /plugins/{name}/disable",
        "POST /plugins/{name}/upgrade",
        "POST /plugins/{name}/push",
        "POST /plugins/{name}/set",
    ),
    *_routes("searching Docker Hub is outside Shoal", "GET /images/search"),
)
