"""Docker's HTTP API as an aiohttp application: routes with and without a version, headers, errors.

Starts nothing by itself: the daemon serves what `make_application` returns, on a unix socket and on TCP.
"""

from __future__ import annotations

import re

import structlog
from aiohttp import web

from shoal.api.context import CONTEXT, ApiContext
from shoal.api.forwarding import LEADER_HANDLERS, route_to_leader
from shoal.api.requests import IS_FORWARDED, STALE, STALE_HEADER
from shoal.api.responses import ENCODED_SERVICES, ENCODED_TASKS, EncodedObjects, error_response
from shoal.api.routes import (
    archives,
    attach,
    containers,
    distribution,
    doctor,
    events,
    execs,
    images,
    logs,
    metrics,
    networks,
    nodes,
    outside,
    payloads,
    revisions,
    services,
    swarm,
    system,
    tasks,
    usage,
    volumes,
)
from shoal.api.routing import Handler, Route, Scope
from shoal.api.streams import OPEN_STREAMS, end_streams
from shoal.api.views.info import API_VERSION, MIN_API_VERSION
from shoal.errors import ShoalError

_log = structlog.get_logger(__name__)

BODY_BYTES_MOST = 4 << 20
MODULES = (
    system,
    events,
    swarm,
    nodes,
    revisions,
    services,
    tasks,
    logs,
    containers,
    archives,
    execs,
    attach,
    usage,
    metrics,
    images,
    distribution,
    doctor,
    networks,
    volumes,
    payloads,
    outside,
)
_VERSION = re.compile(r"(\d+)\.(\d+)")


def make_application(context: ApiContext, is_forwarded: bool = False) -> web.Application:
    """Return the application that answers Docker's API from `context`.

    Args:
        context: the daemon.
        is_forwarded: its requests come from other managers, which say on whose behalf.
    """
    middlewares = [_answer_errors, _check_version, route_to_leader]
    application = web.Application(client_max_size=BODY_BYTES_MOST, middlewares=middlewares)
    application[CONTEXT] = context
    application[IS_FORWARDED] = is_forwarded
    application[LEADER_HANDLERS] = frozenset(
        route.handler for module in MODULES for route in module.ROUTES if route.scope is Scope.LEADER
    )
    application[ENCODED_SERVICES] = EncodedObjects()
    application[ENCODED_TASKS] = EncodedObjects()
    application[OPEN_STREAMS] = set()
    application.on_response_prepare.append(_add_headers)
    application.on_shutdown.append(end_streams)
    for module in MODULES:
        for route in module.ROUTES:
            _add(application, route)
    return application


def _add(application: web.Application, route: Route) -> None:
    application.router.add_route(route.method, route.path, route.handler)
    application.router.add_route(route.method, f"/v{{api_version:[0-9.]+}}{route.path}", route.handler)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = f"Docker/{request.app[CONTEXT].version} (linux)"
    response.headers["Api-Version"] = API_VERSION
    if request.get(STALE):
        response.headers[STALE_HEADER] = "true"
    response.headers["Ostype"] = "linux"
    response.headers["Docker-Experimental"] = "false"


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into Docker's form of an error."""
    try:
        return await handler(request)
    except ShoalError as error:
        return error_response(error.status, error.message)
    except web.HTTPRequestEntityTooLarge:
        return error_response(413, f"the request's body is larger than {BODY_BYTES_MOST} bytes")
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return error_response(404, "page not found")
    except web.HTTPException as error:
        return error_response(error.status, error.reason)
    except ConnectionResetError:
        # the client went away in the middle of an answer
        raise
    except Exception as error:
        _log.exception("request failed", method=request.method, path=request.path)
        return error_response(500, f"{type(error).__name__}: {error}")


@web.middleware
async def _check_version(request: web.Request, handler: Handler) -> web.StreamResponse:
    text = request.match_info.get("api_version")
    if text is not None:
        asked = _parse_version(text)
        if asked is None:
            return error_response(400, f"invalid API version {text}: write it as {API_VERSION}")
        if asked > _known(API_VERSION):
            return error_response(
                400, f"client version {text} is too new. Maximum supported API version is {API_VERSION}"
            )
        if asked < _known(MIN_API_VERSION):
            return error_response(
                400,
                f"client version {text} is too old. Minimum supported API version is {MIN_API_VERSION}, "
                "please upgrade your client to a newer version",
            )
    return await handler(request)


def _parse_version(text: str) -> tuple[int, int] | None:
    match = _VERSION.fullmatch(text)
    return (int(match[1]), int(match[2])) if match is not None and len(text) < 12 else None


def _known(text: str) -> tuple[int, int]:
    parsed = _parse_version(text)
    assert parsed is not None, "our own version is well formed"
    return parsed
