"""Reading requests: bodies, queries, the manager behind them."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TypeVar

from aiohttp import web

from shoal.api.context import CONTEXT, ManagerView
from shoal.api.decode import decode_body
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.states import LocalNodeState
from shoal.store.view import View

T = TypeVar("T")

CONTROL_DEADLINE_SECONDS = 20.0
QUORUM_PERIOD_SECONDS = 0.5
# by then a leader that can be elected usually is
ELECTION_TIMEOUT_SECONDS = 2.0
SAFE = frozenset({"GET", "HEAD"})
STALE = "shoal_stale"
STALE_HEADER = "X-Shoal-Stale"
ACTOR_LIMIT = 64
ACTOR_HEADER = "X-Shoal-Actor"
IS_FORWARDED: web.AppKey[bool] = web.AppKey("shoal_is_forwarded")
NOT_IN_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)
WORKER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. "
    "Please run this command on a manager node or promote the current node to a manager."
)
LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
_FALSE = frozenset({"", "0", "f", "false", "no", "n", "off", "none"})


def require_manager(request: web.Request) -> ManagerView:
    """Return the manager on this node. Raises Unavailable with Docker's text for a node that is none."""
    context = request.app[CONTEXT]
    manager = context.manager()
    if manager is not None:
        return manager
    state = context.local_state()
    if state == LocalNodeState.LOCKED:
        raise Unavailable(LOCKED)
    raise Unavailable(WORKER if state == LocalNodeState.ACTIVE else NOT_IN_SWARM)


async def read_view(request: web.Request) -> View:
    """Return a view that shows every write acknowledged before now.

    While no leader can be elected a GET is answered from what this manager knows, and the answer says so in a header.

    Raises:
        Unavailable: no manager, or no leader.
    """
    manager = require_manager(request)
    try:
        async with asyncio.timeout(QUORUM_PERIOD_SECONDS):
            await manager.store.barrier()
            return manager.store.view
    except TimeoutError:
        return await _read_patiently(request, manager)


async def _read_patiently(request: web.Request, manager: ManagerView) -> View:
    barrier = asyncio.ensure_future(manager.store.barrier())
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CONTROL_DEADLINE_SECONDS
    lost_since: float | None = None
    try:
        while not barrier.done():
            await asyncio.wait({barrier}, timeout=QUORUM_PERIOD_SECONDS)
            now = loop.time()
            lost_since = None if manager.has_quorum else now if lost_since is None else lost_since
            if lost_since is not None and now - lost_since >= ELECTION_TIMEOUT_SECONDS and request.method in SAFE:
                request[STALE] = True
                return manager.store.view
            if now >= deadline:
                raise Unavailable("context deadline exceeded")
        await barrier
        return manager.store.view
    finally:
        barrier.cancel()


async def read_body(request: web.Request, kind: type[T]) -> T:
    """Read the body as JSON of this kind. Raises InvalidArgument."""
    raw = await request.read()
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if raw and media_type not in ("", "application/json", "application/octet-stream"):
        raise InvalidArgument(f"unsupported Content-Type header ({media_type}): must be 'application/json'")
    return decode_body(raw, kind)


def flag(request: web.Request, name: str) -> bool:
    """Read a truth value of the query as Docker does: everything but a few words of denial is true."""
    text = request.query.get(name, "").strip().lower()
    return text not in _FALSE


def size_of_terminal(request: web.Request) -> tuple[int, int]:
    """Read height and width of a terminal. Raises InvalidArgument with Docker's text."""
    sizes = []
    for name in ("h", "w"):
        text = request.query.get(name, "")
        if not (text.isascii() and text.removeprefix("-").isdigit()):
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax')
        if text.startswith("-") or len(text) > 5 or int(text) >= 1 << 16:
            raise InvalidArgument(f"{name}={text}: the size of a terminal is a number below 65536")
        sizes.append(int(text))
    return sizes[0], sizes[1]


def version_number(request: web.Request, word: str) -> int:
    """Read the `version` query of an update. Raises InvalidArgument with Docker's text."""
    text = request.query.get("version", "")
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f"invalid {word} version '{text}': strconv.ParseUint: parsing \"{text}\": invalid syntax")
    if len(text) > 20 or int(text) >= 2**64:
        raise InvalidArgument(
            f"invalid {word} version '{text}': strconv.ParseUint: parsing \"{text}\": value out of range"
        )
    return int(text)


def actor_of(request: web.Request) -> str:
    """Return who asks, for events: the uid behind a unix socket, else the peer's address.

    A manager that forwards says it in a header; others are not believed.
    """
    if request.app[IS_FORWARDED]:
        return request.headers.get(ACTOR_HEADER, "")[:ACTOR_LIMIT]
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is not None and peer.family == socket.AF_UNIX:
        _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return f"uid:{uid}"
    return (request.remote or "")[:ACTOR_LIMIT]


def registry_auth(request: web.Request) -> str:
    """Return the X-Registry-Auth header as sent; an empty object counts as none."""
    text = request.headers.get("X-Registry-Auth", "")
    return "" if text in ("", "e30=", "e30", "bnVsbA==") else text
