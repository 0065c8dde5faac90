"""Handing a request of Docker's API to the leader's node port, and its answer back."""

from __future__ import annotations

import asyncio

import structlog
from aiohttp import ClientConnectorError, ClientError, web

from shoal.api.requests import ACTOR_HEADER, actor_of
from shoal.daemon.manager import LEADER_WAIT_SECONDS, Manager
from shoal.daemon.node_port import API_PREFIX
from shoal.errors import NotLeader, Unavailable
from shoal.rpc.dialer import Dialer

_log = structlog.get_logger(__name__)

# headers of one connection, not of the message
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "host", "content-length", "te", "trailer"}
)
RETRY_SECONDS = 0.2
OUTCOME_UNKNOWN = (
    "the leading manager went away before it answered: look whether the change was made before trying again"
)


async def forward(dialer: Dialer, manager: Manager, request: web.Request) -> web.StreamResponse:
    """Let the leader answer `request`; one that cannot be reached (nothing was sent) is waited for, or its successor.

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
            return await _forward(dialer, request, body, address)
        except ClientConnectorError as error:
            if loop.time() >= deadline:
                raise Unavailable(f"the leading manager at {address} does not answer: {error}") from error
            await manager.await_other_leader(address, RETRY_SECONDS)


async def _forward(dialer: Dialer, request: web.Request, body: bytes, address: str) -> web.StreamResponse:
    headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS}
    headers[ACTOR_HEADER] = actor_of(request)
    path = API_PREFIX + request.raw_path
    try:
        async with dialer.request(request.method, address, path, headers, body) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _HOP_HEADERS:
                    response.headers[name] = value
            if answer.content_length is not None:
                response.content_length = answer.content_length
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response
    except ClientConnectorError:
        raise
    except (ClientError, TimeoutError) as error:
        _log.info("forwarding failed", method=request.method, path=request.path, reason=str(error))
        raise Unavailable(OUTCOME_UNKNOWN) from error
