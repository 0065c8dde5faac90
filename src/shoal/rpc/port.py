"""The node port: what nodes ask of a manager, over mutual TLS (architecture.md 4.4).

Every route says whom it admits; that is judged here, by the verified certificate, before a handler runs. Knows nothing
of what is behind the routes.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from shoal.errors import Forbidden, InvalidArgument, NotLeader, ShoalError, Unauthenticated
from shoal.model.base import Struct
from shoal.model.node_port import Identity, Refusal
from shoal.model.states import Role
from shoal.rpc.tls import identity_of

_log = structlog.get_logger(__name__)

BODY_BYTES_MOST = 8 << 20
SHUTDOWN_TIMEOUT_SECONDS = 1.0
REFUSAL_HEADER = "X-Shoal-Refusal"
REFUSAL_CHARACTERS_MOST = 500
MEDIA_TYPE = "application/msgpack"

S = TypeVar("S", bound=Struct)
_encoder = msgspec.msgpack.Encoder()


class Admits(Enum):
    """Whom a route lets in."""

    ANYONE = "anyone, also without a certificate"
    NODES = "nodes of this swarm"
    MANAGERS = "managers of this swarm"


Handler = Callable[[web.Request, Identity | None], Awaitable[web.StreamResponse]]
# Raises Forbidden for a node that was removed, or whose role has changed since its certificate was made.
CheckMember = Callable[[Identity, Admits], Awaitable[None]]


class PortRoute(NamedTuple):
    """A method and a path, whom it admits, and what answers it."""

    method: str
    path: str
    admits: Admits
    handler: Handler


class NodePort:
    """The listener on the node port.

    Args:
        routes: what is served.
        cluster_id: of this swarm; certificates of another are refused.
        check_member: judges a verified identity by what the store says of the node now.
    """

    def __init__(self, routes: Iterable[PortRoute], cluster_id: str, check_member: CheckMember) -> None:
        self._cluster_id = cluster_id
        self._check_member = check_member
        self._application = application = web.Application(
            client_max_size=BODY_BYTES_MOST, middlewares=[_answer_refusals]
        )
        routes = tuple(routes)
        self._routes = tuple((route.method, route.path) for route in routes)
        for route in routes:
            application.router.add_route(route.method, route.path, self._guard(route))
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_SECONDS
        )
        self._site: web.TCPSite | None = None
        self._where = ("", 0)

    def mount(self, prefix: str, application: web.Application, admits: Admits) -> None:
        """Serve another application below `prefix`, to those it admits."""
        application.middlewares.insert(0, self._guard_all(admits))
        self._application.add_subapp(prefix, application)

    def _guard_all(self, admits: Admits) -> Middleware:
        @web.middleware
        async def guarded(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            await self._admit(_identity_of(request), admits)
            return await handler(request)

        return guarded

    async def start(self, host: str, port: int, context: ssl.SSLContext) -> None:
        """Listen. Raises InvalidArgument: the address cannot be listened on."""
        await self._runner.setup()
        self._where = (host, port)
        await self._listen(context)

    async def renew(self, context: ssl.SSLContext) -> None:
        """Listen with new certificates; connections that are open stay so."""
        if self._site is not None:
            await self._site.stop()
        await self._listen(context)

    async def _listen(self, context: ssl.SSLContext) -> None:
        host, port = self._where
        self._site = web.TCPSite(self._runner, host or None, port, ssl_context=context, reuse_address=True)
        try:
            await self._site.start()
        except OSError as error:
            raise _cannot_listen(host, port, error) from error

    @property
    def port(self) -> int:
        """The number it listens on."""
        return int(self._runner.addresses[0][1])

    @property
    def routes(self) -> tuple[tuple[str, str], ...]:
        """Method and path of every route of its own, without mounted applications."""
        return self._routes

    async def stop(self) -> None:
        """Listen no more; what is under way ends."""
        self._site = None
        await self._runner.cleanup()

    def _guard(self, route: PortRoute) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            identity = _identity_of(request)
            if route.admits is not Admits.ANYONE:
                await self._admit(identity, route.admits)
            return await route.handler(request, identity)

        return guarded

    async def _admit(self, identity: Identity | None, admits: Admits) -> None:
        if identity is None:
            raise Unauthenticated("this needs the certificate of a node of the swarm: join it first")
        if identity.cluster_id != self._cluster_id:
            raise Forbidden(f"node {identity.node_id} is of another swarm ({identity.cluster_id})")
        if admits is Admits.MANAGERS and identity.role != Role.MANAGER:
            raise Forbidden(f"node {identity.node_id} is a {identity.role.value}: this is for managers only")
        await self._check_member(identity, admits)


def check_can_listen(host: str, port: int) -> None:
    """Raise InvalidArgument if this host cannot listen there: for whoever would lose something by finding out later."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise _cannot_listen(host, port, error) from error


def _cannot_listen(host: str, port: int, error: OSError) -> InvalidArgument:
    reason = error.strerror or error
    return InvalidArgument(f"cannot listen on {host}:{port}: {reason}; choose another --listen-addr")


def _identity_of(request: web.Request) -> Identity | None:
    transport = request.transport
    return identity_of(transport.get_extra_info("peercert") if transport is not None else None)


@web.middleware
async def _answer_refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ShoalError as error:
        address = error.leader_address if isinstance(error, NotLeader) else ""
        return _refuse(error.message, error.status, address)
    except web.HTTPException as error:
        return _refuse(error.reason, error.status)
    except ConnectionResetError:
        raise
    except Exception as error:
        _log.exception("a node's request failed", method=request.method, path=request.path)
        return _refuse(f"{type(error).__name__}: {error}", 500)


def _refuse(message: str, status: int, leader_address: str = "") -> web.Response:
    response = reply(Refusal(message=message, leader_address=leader_address), status)
    # who opens a WebSocket sees no body of a refusal
    response.headers[REFUSAL_HEADER] = quote(message[:REFUSAL_CHARACTERS_MOST], safe=" ")
    return response


def reply(body: Struct, status: int = 200) -> web.Response:
    """Return a reply whose body is `body` in msgpack."""
    return web.Response(body=_encoder.encode(body), status=status, content_type=MEDIA_TYPE)


async def read_call(request: web.Request, kind: type[S]) -> S:
    """Read the body of a call. Raises InvalidArgument."""
    try:
        return msgspec.msgpack.decode(await request.read(), type=kind)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"the body is no {kind.__name__}: {error}") from error
