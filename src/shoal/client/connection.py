"""A small synchronous client of a daemon's HTTP API. Knows HTTP, not services or nodes, nor how a daemon is reached."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple
from urllib.parse import quote, urlencode

from shoal.client.dialing import TlsFiles, make_dialer
from shoal.client.hijacking import HijackedStream
from shoal.errors import ShoalError

DEFAULT_HOST = "unix:///run/shoal/shoal.sock"
API_VERSION = "1.50"
CHUNK_BYTES = 65536
# A stream may be silent for as long as it likes; a plain answer may not.
ANSWER_TIMEOUT_SECONDS = 90.0

# how docker begins what its daemon says
REFUSAL = "Error response from daemon:"
STALE_HEADER = "X-Shoal-Stale"
STALE = "the swarm has no leader: this is what the manager that was asked knew last, and it may be old"

# a tuple is given once for each of its values
Query = Mapping[str, str | int | bool | tuple[str, ...] | None]
Body = bytes | IO[bytes] | Iterable[bytes]


class RemoteError(ShoalError):
    """What the daemon refused; `http_status` is the status it gave, `text` what people read.

    `is_quoted`: the message is the daemon's own.
    """

    def __init__(self, message: str, http_status: int, *, is_quoted: bool = True) -> None:
        super().__init__(message.rstrip())
        self.http_status = http_status
        self.is_quoted = is_quoted

    @property
    def text(self) -> str:
        """The message, with who says so."""
        return f"{REFUSAL} {self.message}" if self.is_quoted else self.message


class Answer(NamedTuple):
    """What a daemon answered, refusals too: status, headers, and the body as JSON if it is, else as text."""

    status: int
    headers: Mapping[str, str]
    body: Any


class NoDaemon(ShoalError):
    """Nobody answers where the daemon should listen."""


class Client:
    """Asks one daemon; every request has a connection of its own.

    Args:
        host: as `make_dialer` has it.
        warn: is told, in a line, what an answer should be taken with.
        tls: certificates for `tcp://`; None for a connection in the clear.
    """

    def __init__(
        self, host: str = DEFAULT_HOST, warn: Callable[[str], None] | None = None, tls: TlsFiles | None = None
    ) -> None:
        self._warn = warn
        self._dialer = make_dialer(host, tls)
        self.host = host

    def get(self, path: str, query: Query | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """Ask for JSON.

        Raises:
            RemoteError: the daemon refuses; its message.
            NoDaemon: nobody answers.
        """
        return self._answer("GET", path, query, None, headers)

    def post(
        self, path: str, body: object = None, query: Query | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Send `body` as JSON; returns the decoded answer, None if it is empty. Raises as `get` does."""
        return self._answer("POST", path, query, body, headers)

    def delete(self, path: str, query: Query | None = None) -> Any:
        """Delete; returns the decoded answer, None if it is empty. Raises as `get` does."""
        return self._answer("DELETE", path, query)

    def _answer(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        content = json.dumps(body).encode() if body is not None else None
        sent = {"Content-Type": "application/json", **(headers or {})} if content is not None else dict(headers or {})
        with self._exchange(method, path, query, content, sent, ANSWER_TIMEOUT_SECONDS) as response:
            raw = response.read()
        try:
            return json.loads(raw) if raw.strip() else None
        except ValueError:
            return raw.decode(errors="replace")

    def request(
        self, method: str, target: str, body: object = None, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS
    ) -> Answer:
        """Ask for what the other methods do not: `target` is sent as it is, and a refusal is an answer, too.

        Args:
            method: of HTTP.
            target: path and query, with or without the version of the API.
            body: bytes are sent as a tar archive, all else as JSON; None sends no body.
            timeout_seconds: bound of every single read and write.

        Raises:
            NoDaemon: nobody answers.
        """
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        connection = self._dialer.connect(timeout_seconds)
        try:
            connection.request(method, target, content, {"Content-Type": kind})
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._explain(error, timeout_seconds) from error
        finally:
            connection.close()
        return Answer(response.status, dict(response.headers), _decode(raw, response.getheader("Content-Type") or ""))

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Give the response while it comes; it has no time limit. Raises as `get` does."""
        with self._exchange(method, path, query, body, dict(headers or {}), None) as response:
            yield response

    @contextmanager
    def _exchange(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Body | None,
        headers: dict[str, str],
        timeout: float | None,
    ) -> Iterator[http.client.HTTPResponse]:
        connection = self._dialer.connect(timeout)
        try:
            try:
                connection.request(method, _target(path, query), body, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._explain(error) from error
            if response.status >= 400:
                raise _refusal(response)
            if response.getheader(STALE_HEADER) and self._warn is not None:
                self._warn(STALE)
            try:
                yield response
            except (ConnectionError, http.client.HTTPException) as error:
                raise NoDaemon(f"the daemon at {self.host} went away before its answer was complete") from error
        finally:
            connection.close()

    @contextmanager
    def hijack(self, path: str, body: object = None, query: Query | None = None) -> Iterator[HijackedStream]:
        """Ask with POST for the streams of a program, and give them. Raises as `get` does."""
        content = json.dumps(body).encode() if body is not None else None
        connection = self._dialer.connect(ANSWER_TIMEOUT_SECONDS)
        headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
        try:
            try:
                connection.request("POST", _target(path, query), content, headers)
                response = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise self._explain(error) from error
            if response.status >= 400:
                raise _refusal(response)
            yield HijackedStream(connection, response)
        finally:
            connection.close()

    def _explain(self, error: Exception, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> NoDaemon:
        if isinstance(error, PermissionError):
            return NoDaemon(f"permission denied at {self.host}: run as root, or join the group that owns the socket")
        if isinstance(error, TimeoutError):
            return NoDaemon(f"the daemon at {self.host} gave no answer in {timeout_seconds:.0f} s")
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return NoDaemon(
                f"Cannot connect to the daemon at {self.host}. Is shoald running? "
                "(-H, SHOAL_HOST or DOCKER_HOST say where)"
            )
        return NoDaemon(f"cannot talk to the daemon at {self.host}: {error}")


def _target(path: str, query: Query | None) -> str:
    given = {key: _query_text(value) for key, value in (query or {}).items() if value is not None}
    return f"/v{API_VERSION}{quote(path, safe='/@:+')}" + (f"?{urlencode(given, doseq=True)}" if given else "")


def _decode(raw: bytes, kind: str) -> Any:
    """Return JSON as what it says; a stream of JSON objects, as of imports, is text."""
    if kind.startswith("application/json") and raw.strip():
        with suppress(ValueError):
            return json.loads(raw)
    return raw.decode(errors="replace")


def _query_text(value: str | int | bool | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(value)


def _refusal(response: http.client.HTTPResponse) -> RemoteError:
    raw = response.read()
    try:
        message = json.loads(raw)["message"]
    except (ValueError, KeyError, TypeError):
        message = raw.decode(errors="replace").strip() or f"{response.status} {response.reason}"
    return RemoteError(str(message), response.status)
