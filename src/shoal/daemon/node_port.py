"""What this manager answers on its node port: certificates, sessions, raft, members, Docker's API forwarded."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from shoal.daemon.manager import HEALTH_PATH, RELAY_PATH, Manager
from shoal.errors import Forbidden, Unauthenticated, Unavailable
from shoal.manager.raft_transport import RAFT_PATH, SNAPSHOT_PATH
from shoal.model.node_port import (
    Acknowledged,
    AttachCall,
    CertificateCall,
    Identity,
    JoinGroupCall,
    ReleaseCall,
    RootAnswer,
)
from shoal.model.objects import Node
from shoal.model.states import Role
from shoal.rpc.dialer import ROOT_PATH
from shoal.rpc.port import Admits, NodePort, PortRoute, read_call, reply
from shoal.rpc.relay import splice
from shoal.rpc.websocket import FRAME_BYTES_MOST, FrameSocket, WebSocketLink

CERTIFICATE_PATH = "/certificate"
RENEW_PATH = "/certificate/renew"
SESSION_PATH = "/session"
STREAM_PATH = "/streams/{id}"
API_PREFIX = "/docker"
JOIN_PATH = "/raft/join"
ATTACH_PATH = "/attachments"
RELEASE_PATH = "/attachments/release"


def make_node_port(manager: Manager, cluster_id: str, api: web.Application) -> NodePort:
    """Return the port of a manager; the routes and whom each admits stand in the table below.

    `api`: Docker's API as other managers forward it.
    """
    handlers = _Handlers(manager)
    routes = (
        PortRoute("POST", ROOT_PATH, Admits.ANYONE, handlers.root),
        PortRoute("POST", CERTIFICATE_PATH, Admits.ANYONE, handlers.certificate),
        PortRoute("POST", RENEW_PATH, Admits.NODES, handlers.renew),
        PortRoute("POST", ATTACH_PATH, Admits.NODES, handlers.attach),
        PortRoute("POST", RELEASE_PATH, Admits.NODES, handlers.release),
        PortRoute("GET", SESSION_PATH, Admits.NODES, handlers.session),
        PortRoute("GET", STREAM_PATH, Admits.NODES, handlers.stream),
        PortRoute("GET", RELAY_PATH, Admits.MANAGERS, handlers.relay),
        PortRoute("POST", HEALTH_PATH, Admits.MANAGERS, handlers.health),
        PortRoute("POST", JOIN_PATH, Admits.MANAGERS, handlers.join),
        PortRoute("GET", RAFT_PATH, Admits.MANAGERS, handlers.raft),
        PortRoute("POST", SNAPSHOT_PATH, Admits.MANAGERS, handlers.snapshot),
    )
    port = NodePort(routes, cluster_id, partial(check_member, manager))
    port.mount(API_PREFIX, api, Admits.MANAGERS)
    return port


async def check_member(manager: Manager, identity: Identity, admits: Admits) -> None:
    """Refuse a node that was removed, and as a manager one that is none any more (it may still renew and work).

    A member that hears of no leader may lack what happened since, its own new peers too: it lets in whom the
    certificate lets in. One that may only lag behind asks first: a node that hears it was removed stops its tasks.
    Raises Forbidden, Unavailable.
    """
    if not manager.is_current or not _why_refused(manager, identity, admits):
        return
    await manager.store.barrier()
    if reason := _why_refused(manager, identity, admits):
        raise Forbidden(reason)


def _why_refused(manager: Manager, identity: Identity, admits: Admits) -> str:
    node = manager.store.view.get(Node, identity.node_id)
    if node is None:
        return f"node {identity.node_id} is not part of this swarm any more"
    demoted = node.spec.role == Role.WORKER and node.manager_status is None
    if admits is Admits.MANAGERS and demoted:
        return f"node {identity.node_id} is a manager no more: its certificate is to be renewed"
    return ""


def required(identity: Identity | None) -> Identity:
    """Return who asks, on a route that admits nodes only."""
    if identity is None:
        raise Unauthenticated("this needs the certificate of a node of the swarm")
    return identity


class _Handlers:
    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def root(self, _request: web.Request, _identity: Identity | None) -> web.Response:
        return reply(RootAnswer(root=self._manager.authority.root()))

    async def certificate(self, request: web.Request, _identity: Identity | None) -> web.Response:
        call = await read_call(request, CertificateCall)
        self._manager.require_lead("signs certificates")
        return reply(await self._manager.authority.admit(call))

    async def renew(self, request: web.Request, identity: Identity | None) -> web.Response:
        call = await read_call(request, CertificateCall)
        self._manager.require_lead("signs certificates")
        return reply(await self._manager.authority.renew(call, required(identity)))

    async def attach(self, request: web.Request, identity: Identity | None) -> web.Response:
        call = await read_call(request, AttachCall)
        self._manager.require_lead("attaches containers")
        return reply(await self._manager.attachments.attach(call, required(identity).node_id))

    async def release(self, request: web.Request, identity: Identity | None) -> web.Response:
        call = await read_call(request, ReleaseCall)
        self._manager.require_lead("attaches containers")
        return reply(await self._manager.attachments.release(call.task_ids, required(identity).node_id))

    async def health(self, _request: web.Request, _identity: Identity | None) -> web.Response:
        return reply(Acknowledged())

    async def join(self, request: web.Request, identity: Identity | None) -> web.Response:
        call = await read_call(request, JoinGroupCall)
        membership = self._manager.membership
        if membership is None:
            self._manager.require_lead("takes members in")
            raise Unavailable("this manager is about to lead: try again")
        return reply(await membership.join(call, required(identity), request.remote or ""))

    async def session(self, request: web.Request, identity: Identity | None) -> web.StreamResponse:
        web_socket = await _accept(request)
        link = WebSocketLink(web_socket)
        try:
            await self._manager.serve_session(link, required(identity), request.remote or "")
        finally:
            await link.wait_closed()
        return web_socket

    async def stream(self, request: web.Request, identity: Identity | None) -> web.StreamResponse:
        """Take a stream that this manager has asked for; no other node knows of it."""
        stream_id = request.match_info["id"]
        streams = self._manager.streams_of(required(identity).node_id)
        streams.expects(stream_id)
        web_socket = await _accept(request)
        frames = FrameSocket(web_socket, is_patient=True)
        try:
            await streams.take(stream_id, frames).wait_closed()
        finally:
            await frames.wait_closed()
        return web_socket

    async def relay(self, request: web.Request, _identity: Identity | None) -> web.StreamResponse:
        """Open a stream to a node for another manager, and pass on what goes over it."""
        to_node = await self._manager.streams_of(request.match_info["id"]).open()
        try:
            web_socket = await _accept(request)
            frames = FrameSocket(web_socket, is_patient=True)
            try:
                await splice(frames, to_node)
            finally:
                await frames.wait_closed()
        finally:
            to_node.close()
        return web_socket

    async def raft(self, request: web.Request, identity: Identity | None) -> web.StreamResponse:
        web_socket = await _accept(request)
        frames = FrameSocket(web_socket)
        try:
            await self._manager.transport.serve(frames, required(identity))
        finally:
            await frames.wait_closed()
        return web_socket

    async def snapshot(self, request: web.Request, _identity: Identity | None) -> web.Response:
        await self._manager.transport.serve_snapshot(request.content.iter_any())
        return reply(Acknowledged())


async def _accept(request: web.Request) -> web.WebSocketResponse:
    web_socket = web.WebSocketResponse(max_msg_size=FRAME_BYTES_MOST, compress=False)
    await web_socket.prepare(request)
    return web_socket
