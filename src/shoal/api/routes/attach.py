"""`/containers/{id}/attach`, `/attach/ws` and `/resize`: a container's own output, input and terminal."""

from __future__ import annotations

from aiohttp import web

from shoal.api.container_lookup import found_container
from shoal.api.detach_keys import parse_detach_keys
from shoal.api.hijack import TakenOver, WebSocketConnection, hijack, relay, tell_error
from shoal.api.requests import flag, size_of_terminal
from shoal.api.responses import empty_response
from shoal.api.routing import Route
from shoal.api.streams import ends_with_the_daemon
from shoal.errors import ShoalError
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
    keys = parse_detach_keys(request.query.get("detachKeys", ""))
    async with found_container(request) as found:
        stream = await found.attach(_options(request))
        multiplexed = not found.container.config.tty
        try:
            connection = hijack(request, multiplexed=multiplexed)
        except ConnectionError:
            await stream.close()
            raise
        try:
            with ends_with_the_daemon(request):
                await relay(connection, stream, multiplexed=multiplexed, detach_keys=None if multiplexed else keys)
        except ShoalError as error:
            await tell_error(connection, error, multiplexed=multiplexed)
        else:
            await connection.finish()
        finally:
            connection.close()
    return TakenOver()


async def attach_by_websocket(request: web.Request) -> web.StreamResponse:
    """Attach a WebSocket to a container: messages of raw bytes."""
    keys = parse_detach_keys(request.query.get("detachKeys", ""))
    async with found_container(request) as found:
        stream = await found.attach(_options(request))
        socket = web.WebSocketResponse()
        try:
            await socket.prepare(request)
        except BaseException:
            await stream.close()
            raise
        connection = WebSocketConnection(socket)
        try:
            with ends_with_the_daemon(request):
                detach_keys = keys if found.container.config.tty else None
                await relay(connection, stream, multiplexed=False, detach_keys=detach_keys)
        except ShoalError as error:
            await tell_error(connection, error, multiplexed=False)
        await socket.close()
    return socket


async def resize(request: web.Request) -> web.Response:
    """Give a container's terminal a size."""
    height, width = size_of_terminal(request)
    async with found_container(request) as found:
        await found.resize(height, width)
    return empty_response(200)


ROUTES = (
    Route("POST", "/containers/{id}/attach", attach),
    Route("GET", "/containers/{id}/attach/ws", attach_by_websocket),
    Route("POST", "/containers/{id}/resize", resize),
)
