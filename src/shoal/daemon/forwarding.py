"""Handing a request of Docker's API to the leader's node port, and its answer back."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import ClientError, ClientResponse, web

from shoal.api.requests import ACTOR_HEADER, SAFE, actor_of
from shoal.daemon.manager import LEADER_WAIT_SECONDS, Manager
from shoal.daemon.node_port import API_PREFIX
from shoal.errors import NotLeader, Unavailable
from shoal.rpc.dialer import Dialer, Progress

_log = structlog.get_logger(__name__)

# headers of one connection, not of the message
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length", "te", "trailer"}
)
RETRY_SECONDS = 0.2
LAST_WORD_SECONDS = 0.2
OUTCOME_UNKNOWN = (
    "the leading manager went away before it answered: look whether the change was made before trying again"
)


class NothingSent(Exception):
    """The request did not leave, or does no harm twice: it may be sent again."""


async def forward(dialer: Dialer, manager: Manager, request: web.Request) -> web.StreamResponse:
    """Let the leader answer `request`. Raises as `ask_leader`."""
    answer = await ask_leader(dialer, manager, request)
    try:
        return await _pass_on(answer, request)
    finally:
        answer.release()


async def ask_leader(dialer: Dialer, manager: Manager, request: web.Request) -> ClientResponse:
    """Return the beginning of the leader's answer to `request`; the caller reads the rest and releases it.

    A leader that cannot be reached (nothing was sent) is waited for, or its successor.

    Raises:
        NotLeader: this manager leads now.
        Unavailable: there is no leader within 20 s, or it went away in the middle.
    """
    body = await request.read()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEADER_WAIT_SECONDS
    while True:
        address = await manager.find_leader(max(0.0, deadline - loop.time()))
        if not address:
            raise NotLeader("this manager leads itself")
        try:
            return await _ask(dialer, manager, request, body, address)
        except NothingSent as error:
            if loop.time() >= deadline:
                raise Unavailable(f"the leading manager at {address} does not answer: {error}") from error
            await manager.await_other_leader(address, RETRY_SECONDS)


async def _ask(dialer: Dialer, manager: Manager, request: web.Request, body: bytes, address: str) -> ClientResponse:
    """Send the request and return the answer's beginning; given up when another manager leads meanwhile.

    Raises:
        NothingSent: it may be sent again.
        Unavailable: nobody knows whether it was carried out.
    """
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS}
    headers[ACTOR_HEADER] = actor_of(request)
    progress = Progress()
    asking = asyncio.ensure_future(
        dialer.begin(request.method, address, API_PREFIX + request.raw_path, headers, body, progress)
    )
    superseded = asyncio.ensure_future(manager.await_other_leader(address))
    try:
        await asyncio.wait({asking, superseded}, return_when=asyncio.FIRST_COMPLETED)
        # it may have answered before it lost the lead
        await asyncio.wait({asking}, timeout=LAST_WORD_SECONDS)
        if asking.done():
            return asking.result()
        reason = "another manager leads now"
    except (ClientError, OSError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
    finally:
        superseded.cancel()
        asking.cancel()
    if not progress.sent or request.method in SAFE:
        raise NothingSent(reason)
    _log.info("forwarding failed", method=request.method, path=request.path, reason=reason)
    raise Unavailable(OUTCOME_UNKNOWN)


async def _pass_on(answer: ClientResponse, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in _HOP_HEADERS:
            response.headers[name] = value
    if answer.content_length is not None:
        response.content_length = answer.content_length
    await response.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
    except (ClientError, TimeoutError) as error:
        # its beginning has been passed on: cut off is all that can be said
        raise ConnectionResetError("the leading manager went away in the middle of its answer") from error
    await response.write_eof()
    return response
