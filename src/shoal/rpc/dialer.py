"""Dialling the node port of a manager: calls and links, and what is wrong when it refuses.

A follower that cannot answer says who leads; the call goes there, once.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar
from urllib.parse import unquote

import msgspec
from aiohttp import (
    AddrInfoType,
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    TCPConnector,
    TraceConfig,
    WSServerHandshakeError,
)
from cryptography import x509
from yarl import URL

from shoal.errors import NotLeader, ShoalError, Unavailable, make_error
from shoal.model.base import Struct
from shoal.model.node_port import Refusal, RootAnswer
from shoal.rpc.port import MEDIA_TYPE, REFUSAL_HEADER
from shoal.rpc.tls import MANAGER_NAME, unverified_context
from shoal.rpc.websocket import FRAME_BYTES_MOST, SILENCE_SECONDS, FrameSocket, WebSocketLink

CONNECT_TIMEOUT_SECONDS = 5.0
CALL_TIMEOUT_SECONDS = 20.0
REDIRECTS_MOST = 3
ROOT_PATH = "/root"

A = TypeVar("A", bound=Struct)
_encoder = msgspec.msgpack.Encoder()


class Progress:
    """How far a request came. `sent`: bytes of it may have arrived."""

    def __init__(self) -> None:
        self.sent = False


async def _note_sent(_session: ClientSession, context: SimpleNamespace, _parameters: object) -> None:
    progress = getattr(context, "trace_request_ctx", None)
    if isinstance(progress, Progress):
        progress.sent = True


def _make_socket(information: AddrInfoType) -> socket.socket:
    """Make a socket that notices within seconds that the other side's host is dead, idle or not."""
    family, kind, protocol, _, _ = information
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_SECONDS * 1000))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
        made.setsockopt(socket.IPPROTO_TCP, option, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return made


class Dialer:
    """Dials managers with this node's certificate (or, joining, without one).

    Args:
        context: how to verify and what to show.
        certificate: the node's own certificate file, to explain refusals; None while it has none.
    """

    def __init__(self, context: ssl.SSLContext, certificate: Path | None = None) -> None:
        self._context = context
        self._certificate = certificate
        timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS)
        tracing = TraceConfig()
        tracing.on_request_headers_sent.append(_note_sent)
        connector = TCPConnector(limit=0, socket_factory=_make_socket)
        self._session = ClientSession(connector=connector, timeout=timeout, trace_configs=[tracing])

    def renew(self, context: ssl.SSLContext) -> None:
        """Dial with other certificates from now on."""
        self._context = context

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()

    async def call(
        self, address: str, path: str, body: Struct, answer: type[A], timeout_seconds: float = CALL_TIMEOUT_SECONDS
    ) -> A:
        """Call the manager at `address` (host:port), or the leader that it names.

        Raises:
            Unavailable: nobody answers, or the handshake was refused (the cause and the remedy are named).
            ShoalError: what the manager refused it with.
        """
        data = _encoder.encode(body)
        tried = set()
        while True:
            tried.add(address)
            try:
                return msgspec.msgpack.decode(await self._post(address, path, data, timeout_seconds), type=answer)
            except NotLeader as error:
                if not error.leader_address or error.leader_address in tried or len(tried) > REDIRECTS_MOST:
                    raise
                address = error.leader_address

    async def post_stream(self, address: str, path: str, chunks: AsyncIterable[bytes], timeout_seconds: float) -> None:
        """Send a stream of chunks. Raises as `call`."""
        await self._post(address, path, chunks, timeout_seconds)

    async def _post(self, address: str, path: str, data: bytes | AsyncIterable[bytes], timeout_seconds: float) -> bytes:
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session.post(
                    f"https://{address}{path}",
                    data=data,
                    headers={"Content-Type": MEDIA_TYPE},
                    ssl=self._context,
                    server_hostname=MANAGER_NAME,
                ) as response,
            ):
                content = await response.read()
        except (ClientError, OSError, TimeoutError) as error:
            raise await self._explain(address, error) from error
        if response.status != 200:
            raise _refusal(response.status, content)
        return content

    async def begin(
        self, method: str, address: str, path: str, headers: Mapping[str, str], body: bytes, progress: Progress
    ) -> ClientResponse:
        """Send any request and return its answer's beginning; the caller reads the rest, and handles aiohttp's errors.

        `progress` says how far it came, also if it is cancelled.
        """
        return await self._session.request(
            method,
            URL(f"https://{address}{path}", encoded=True),
            headers=headers,
            data=body,
            ssl=self._context,
            server_hostname=MANAGER_NAME,
            allow_redirects=False,
            trace_request_ctx=progress,
        )

    async def open_link(self, address: str, path: str, patience: Callable[[], float] | None = None) -> WebSocketLink:
        """Open a link; `patience` as for FrameSocket. Raises as `call`."""
        return WebSocketLink(await self._open(address, path), patience)

    async def open_frames(
        self, address: str, path: str, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS, is_patient: bool = False
    ) -> FrameSocket:
        """Open a link that carries frames of bytes (`is_patient`: see there). Raises as `call`."""
        return FrameSocket(await self._open(address, path, timeout_seconds), is_patient=is_patient)

    async def _open(
        self, address: str, path: str, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS
    ) -> ClientWebSocketResponse:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._session.ws_connect(
                    f"https://{address}{path}",
                    ssl=self._context,
                    server_hostname=MANAGER_NAME,
                    max_msg_size=FRAME_BYTES_MOST,
                    autoping=True,
                )
        except WSServerHandshakeError as error:
            reason = unquote(error.headers.get(REFUSAL_HEADER, "")) if error.headers else ""
            if not reason:
                raise Unavailable(f"no manager of a swarm answers at {address} (status {error.status})") from error
            raise make_error(error.status, reason) from error
        except (ClientError, OSError, TimeoutError) as error:
            raise await self._explain(address, error) from error

    async def _explain(self, address: str, error: Exception) -> Unavailable:
        """Say why a manager was not reached: a refused certificate looks like a bare disconnect from here."""
        if isinstance(error, TimeoutError):
            return Unavailable(f"the manager at {address} does not answer within its time")
        if isinstance(error, ClientConnectorCertificateError):
            return Unavailable(
                f"the manager at {address} shows a certificate this node does not trust "
                f"({error.certificate_error}): it is of another swarm, or its root was changed while this node was "
                "away; if so, leave the swarm and join again"
            )
        if isinstance(error, ClientConnectorError) and not isinstance(error.os_error, ssl.SSLError):
            return Unavailable(f"cannot reach the manager at {address}: {error.os_error.strerror or error.os_error}")
        if self._certificate is not None:
            reason = await asyncio.to_thread(_what_is_wrong_with, self._certificate)
            if reason:
                return Unavailable(f"the manager at {address} refused this node: {reason}")
        return Unavailable(f"the manager at {address} ended the connection: {error or type(error).__name__}")


def _what_is_wrong_with(path: Path) -> str:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    now = dt.datetime.now(dt.UTC)
    if certificate.not_valid_after_utc <= now:
        return (
            f"its certificate has expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC: "
            "leave the swarm (docker swarm leave) and join again"
        )
    if certificate.not_valid_before_utc > now:
        return f"its certificate holds from {certificate.not_valid_before_utc} on only: set this host's clock"
    return ""


def _refusal(status: int, content: bytes) -> ShoalError:
    try:
        refusal = msgspec.msgpack.decode(content, type=Refusal)
    except msgspec.DecodeError:
        return Unavailable(f"no manager of a swarm answers there (status {status})")
    if refusal.leader_address:
        return NotLeader(refusal.message, refusal.leader_address)
    return make_error(status, refusal.message)


async def fetch_root(address: str) -> str:
    """Ask the manager at `address` for the root of its swarm, PEM, trusting nothing. Raises Unavailable."""
    dialer = Dialer(unverified_context())
    try:
        return (await dialer.call(address, ROOT_PATH, RootAnswer(root=""), RootAnswer, CONNECT_TIMEOUT_SECONDS)).root
    finally:
        await dialer.close()
