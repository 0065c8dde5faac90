"""`/containers/{id}/attach`, `/attach/ws` and `/resize`: a container's own output, input and terminal."""

from __future__ import annotations

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.detach_keys import parse_detach_keys
from shoal.api.hijack import TakenOver, WebSocketConnection, hijack, relay
from shoal.api.requests import flag, size_of_terminal
from shoal.api.responses import empty_response
from shoal.api.routing import Route
from shoal.api.streams import ends_with_the_daemon
from shoal.model.streams import AttachOptions


def _options(request: web.Request) -> AttachOptions:
    return AttachOptions(
        stdin=flag(request, "stdin"),
        stdout=flag(request, "stdout"),
        stderr=flag(request, "stderr"),
        logs=flag(request, "logs"),
        stream=flag(request, "stream"),
    )


async def attach(request: web.Request) -> web.StreamResponse:
    """Attach this connection to a container."""
    await request.read()
    engine = request.app[CONTEXT].engine
    keys = parse_detach_keys(request.query.get("detachKeys", ""))
    container = engine.get(request.match_info["id"])
    stream = await engine.attach(container.id, _options(request))
    multiplexed = not container.config.tty
    try:
        connection = hijack(request, multiplexed=multiplexed)
    except ConnectionError:
        await stream.close()
        raise
    try:
        with ends_with_the_daemon(request):
            await relay(connection, stream, multiplexed=multiplexed, detach_keys=None if multiplexed else keys)
    finally:
        connection.close()
    return TakenOver()


async def attach_by_websocket(request: web.Request) -> web.StreamResponse:
    """Attach a WebSocket to a container: messages of raw bytes."""
    engine = request.app[CONTEXT].engine
    keys = parse_detach_keys(request.query.get("detachKeys", ""))
    container = engine.get(request.match_info["id"])
    stream = await engine.attach(container.id, _options(request))
    socket = web.WebSocketResponse()
    try:
        await socket.prepare(request)
    except BaseException:
        await stream.close()
        raise
    with ends_with_the_daemon(request):
        await relay(
            WebSocketConnection(socket), stream, multiplexed=False, detach_keys=keys if container.config.tty else None
        )
    await socket.close()
    return socket


async def resize(request: web.Request) -> web.Response:
    """Give a container's terminal a size."""
    height, width = size_of_terminal(request)
    await request.app[CONTEXT].engine.resize(request.match_info["id"], height, width)
    return empty_response(200)


ROUTES = (
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_by_websocket),
    Route("POST", "/containers/{id}/resize", resize),
)
