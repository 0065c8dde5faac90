"""`/containers/{id}/exec` and `/exec`: commands in running containers."""

from __future__ import annotations

from aiohttp import web

from shoal.api.container_lookup import found_container, found_exec
from shoal.api.detach_keys import parse_detach_keys
from shoal.api.hijack import TakenOver, hijack, relay, tell_error
from shoal.api.requests import read_body, size_of_terminal
from shoal.api.responses import empty_response, json_response
from shoal.api.routing import Route
from shoal.api.streams import ends_with_the_daemon
from shoal.api.views.exec import exec_view
from shoal.errors import Conflict, InvalidArgument, ShoalError
from shoal.model.base import Spec
from shoal.model.streams import ExecConfig


class ExecRequest(Spec):
    """Body of the creation of an exec."""

    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    console_size: tuple[int, ...] = ()


class ExecStartRequest(Spec):
    """Body of the start of an exec. `tty` says how output is framed: a terminal's is not."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, ...] = ()


async def create(request: web.Request) -> web.Response:
    """Prepare a command."""
    asked = await read_body(request, ExecRequest)
    parse_detach_keys(asked.detach_keys)
    config = ExecConfig(
        arguments=asked.cmd,
        env=asked.env,
        user=asked.user,
        working_dir=asked.working_dir,
        privileged=asked.privileged,
        tty=asked.tty,
        attach_stdin=asked.attach_stdin,
        attach_stdout=asked.attach_stdout,
        attach_stderr=asked.attach_stderr,
        detach_keys=asked.detach_keys,
        console_size=_size(asked.console_size),
    )
    async with found_container(request) as found:
        record = await found.exec_create(config)
    return json_response({"Id": record.id}, 201)


def _size(numbers: tuple[int, ...]) -> tuple[int, int] | None:
    if not numbers or numbers == (0, 0):
        return None
    if len(numbers) != 2 or not all(0 <= number < 1 << 16 for number in numbers):
        raise InvalidArgument("ConsoleSize: give height and width of the terminal, two numbers below 65536")
    return numbers[0], numbers[1]


async def start(request: web.Request) -> web.StreamResponse:
    """Start a command: detached, or on this connection."""
    asked = await read_body(request, ExecStartRequest) if request.can_read_body else ExecStartRequest()
    size = _size(asked.console_size)
    async with found_exec(request) as found:
        if found.container.state.status != "running":
            raise Conflict(f"container {found.container.id} is not running")
        if asked.detach:
            await found.start(detach=True, console_size=size)
            return empty_response(200)
        config = found.record.config
        keys = parse_detach_keys(config.detach_keys) if config.tty else None
        multiplexed = not asked.tty
        connection = hijack(request, multiplexed=multiplexed)
        try:
            stream = await found.start(console_size=size)
            if stream is not None:
                with ends_with_the_daemon(request):
                    await relay(connection, stream, multiplexed=multiplexed, detach_keys=keys)
        except ShoalError as error:
            await tell_error(connection, error, multiplexed=multiplexed)
        else:
            await connection.finish()
        finally:
            connection.close()
    return TakenOver()


async def resize(request: web.Request) -> web.Response:
    """Give a command's terminal a size."""
    height, width = size_of_terminal(request)
    async with found_exec(request) as found:
        await found.resize(height, width)
    return empty_response(200)


async def inspect(request: web.Request) -> web.Response:
    """Answer with a command."""
    async with found_exec(request) as found:
        return json_response(exec_view(found.record))


ROUTES = (
    Route("POST", "/containers/{id}/exec", create),
    Route("POST", "/exec/{id}/start", start),
    Route("POST", "/exec/{id}/resize", resize),
    Route("GET", "/exec/{id}/json", inspect),
)
