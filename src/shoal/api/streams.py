"""Docker's log streams: multiplexed frames, prefixes of lines, and the queries that choose lines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

from aiohttp import web

from shoal.api.requests import flag
from shoal.errors import InvalidArgument, ShoalError
from shoal.lib.units import format_time_fixed, parse_time_ns
from shoal.model.base import Struct
from shoal.model.container import LogLine, LogOptions

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED_SINCE = (1, 42)
# aiohttp tells nobody that a client that is only listened to went away: streams look for themselves
LOOK_FOR_CLIENT_SECONDS = 1.0
# requests that stream until their client goes: they would hold up the daemon's stop
OPEN_STREAMS: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("shoal_open_streams")
STREAM_NUMBERS = {"stdin": 0, "stdout": 1, "stderr": 2, "systemerr": 3}


class LogRequest(Struct):
    """Which lines, and how they are written."""

    options: LogOptions
    timestamps: bool = False
    details: bool = False


def read_log_request(request: web.Request, no_stream: type[ShoalError] = InvalidArgument) -> LogRequest:
    """Read the query of a log route.

    Raises:
        ShoalError: neither stdout nor stderr, as `no_stream`.
        InvalidArgument: a time or a tail that is none.
    """
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr")
    if not stdout and not stderr:
        raise no_stream("Bad parameters: you must choose at least one stream")
    options = LogOptions(
        stdout=stdout,
        stderr=stderr,
        follow=flag(request, "follow"),
        since_ns=_time(request, "since"),
        until_ns=_time(request, "until"),
        tail=_tail(request),
    )
    return LogRequest(options=options, timestamps=flag(request, "timestamps"), details=flag(request, "details"))


def _time(request: web.Request, name: str) -> int:
    text = request.query.get(name, "")
    if text in ("", "0"):
        return 0
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise InvalidArgument(f'invalid value for "{name}": {error}') from None


def _tail(request: web.Request) -> int | None:
    text = request.query.get("tail", "")
    if text in ("", "all") or text.startswith("-"):
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument('tail value must be a positive integer or "all"')
    return int(text)


def format_line(
    line: LogLine, request: LogRequest, attributes: Mapping[str, str] | None, *, multiplexed: bool
) -> bytes:
    """Return a line as it goes over the wire.

    Args:
        line: the line.
        request: whether times and details are wanted.
        attributes: the details of its task or container; None where there are none.
        multiplexed: in a frame that names its stream, else as it is.
    """
    payload = line.data
    if request.details and attributes is not None:
        payload = details_text(attributes).encode() + b" " + payload
    if request.timestamps:
        payload = format_time_fixed(line.at_ns).encode() + b" " + payload
    return frame(line.stream, payload) if multiplexed else payload


def warning_line(reason: str, now_ns: int) -> LogLine:
    """Return what stands for output that is missing: an ordinary line, since clients stop at an error's frame."""
    text = f"warning: incomplete log stream. some logs could not be retrieved for the following reasons: {reason}\n"
    return LogLine(stream="stderr", at_ns=now_ns, data=text.encode())


def details_text(attributes: Mapping[str, str]) -> str:
    """Write attributes as `key=value`, in order of keys, escaped as in a query."""
    return ",".join(f"{quote_plus(key)}={quote_plus(attributes[key])}" for key in sorted(attributes))


def frame(stream: str, payload: bytes) -> bytes:
    """Put a payload in a frame: stream number, three zeros, length in 4 bytes."""
    return bytes((STREAM_NUMBERS[stream], 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload


def stream_response(version: tuple[int, int], *, multiplexed: bool) -> web.StreamResponse:
    """Return a response that is not prepared yet, of the type Docker names for this API version."""
    media_type = MULTIPLEXED if multiplexed and version >= MULTIPLEXED_SINCE else RAW
    return web.StreamResponse(headers={"Content-Type": media_type})


@contextmanager
def ends_with_the_daemon(request: web.Request) -> Iterator[None]:
    """Let what is done within be cancelled when the daemon stops."""
    task = asyncio.current_task()
    assert task is not None, "requests are handled in tasks"
    streams = request.app[OPEN_STREAMS]
    streams.add(task)
    try:
        yield
    finally:
        streams.discard(task)


async def end_streams(application: web.Application) -> None:
    """Cancel the streams that are open: the daemon stops."""
    streams = application[OPEN_STREAMS]
    for task in tuple(streams):
        task.cancel()


async def run_until_gone(request: web.Request, work: Coroutine[None, None, None]) -> None:
    """Run what streams to a client to its end, or until the client has gone away; the caller returns the response."""
    task = asyncio.create_task(work)
    try:
        with ends_with_the_daemon(request):
            while not task.done():
                await asyncio.wait([task], timeout=LOOK_FOR_CLIENT_SECONDS)
                if not task.done() and not _is_connected(request):
                    return
        error = task.exception()
        if error is not None and not _is_disconnect(error):
            raise error
    finally:
        task.cancel()
        await asyncio.wait([task])


def _is_connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _is_disconnect(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_disconnect(inner) for inner in error.exceptions)
    return isinstance(error, ConnectionError)
