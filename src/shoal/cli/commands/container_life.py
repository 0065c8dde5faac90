"""`shoal start`, `stop`, `restart`, `kill`, `pause`, `unpause`, `rename`, `wait` and `rm`: containers of this node."""

from __future__ import annotations

import json

import click

from shoal.cli.grammar import command, flag
from shoal.cli.session import STATUS_NOT_FOUND, carry_on, connect, for_each
from shoal.client.connection import Query, RemoteError
from shoal.language.values import parse_int

_NAMES = click.argument("names", metavar="CONTAINER", nargs=-1, required=True)
_SECONDS = flag("--timeout", "int", "Seconds until it is killed, -1 to wait for ever", short="-t", parse=parse_int)


def _act(names: tuple[str, ...], action: str, query: Query | None = None) -> None:
    """Have something done to each container, carrying on past refusals."""
    client = connect()

    def act(name: str) -> None:
        # it may take as long as a container takes to stop
        with client.stream("POST", f"/containers/{name}/{action}", query):
            pass

    for_each(names, act)


@command("start", "CONTAINER [CONTAINER...]", "Start containers that were stopped")
@_NAMES
def start(names: tuple[str, ...]) -> None:
    """Start containers."""
    _act(names, "start")


@command("stop", "[OPTIONS] CONTAINER [CONTAINER...]", "Stop containers")
@flag("--signal", "string", "What they are told first", short="-s")
@_SECONDS
@_NAMES
def stop(names: tuple[str, ...], signal: str | None, timeout: int | None) -> None:
    """Stop containers."""
    _act(names, "stop", {"signal": signal, "t": timeout})


@command("restart", "[OPTIONS] CONTAINER [CONTAINER...]", "Stop containers and start them again")
@flag("--signal", "string", "What they are told first", short="-s")
@_SECONDS
@_NAMES
def restart(names: tuple[str, ...], signal: str | None, timeout: int | None) -> None:
    """Restart containers."""
    _act(names, "restart", {"signal": signal, "t": timeout})


@command("kill", "[OPTIONS] CONTAINER [CONTAINER...]", "Send containers a signal")
@flag("--signal", "string", "Which one", short="-s", default="KILL")
@_NAMES
def kill(names: tuple[str, ...], signal: str | None) -> None:
    """Signal containers."""
    _act(names, "kill", {"signal": signal})


@command("pause", "CONTAINER [CONTAINER...]", "Freeze containers")
@_NAMES
def pause(names: tuple[str, ...]) -> None:
    """Freeze containers."""
    _act(names, "pause")


@command("unpause", "CONTAINER [CONTAINER...]", "Let frozen containers go on")
@_NAMES
def unpause(names: tuple[str, ...]) -> None:
    """Let containers go on."""
    _act(names, "unpause")


@command("rename", "CONTAINER NEW_NAME", "Give a container another name")
@click.argument("name", metavar="CONTAINER")
@click.argument("new_name", metavar="NEW_NAME")
def rename(name: str, new_name: str) -> None:
    """Rename a container."""
    connect().post(f"/containers/{name}/rename", query={"name": new_name})


@command("wait", "CONTAINER [CONTAINER...]", "Wait until containers have ended, and print their exit codes")
@_NAMES
def wait(names: tuple[str, ...]) -> None:
    """Wait for containers, as long as it takes."""
    client = connect()

    def act(name: str) -> None:
        with client.stream("POST", f"/containers/{name}/wait") as response:
            click.echo(json.loads(response.read())["StatusCode"])

    carry_on(names, act)


@command("rm", "[OPTIONS] CONTAINER [CONTAINER...]", "Remove containers")
@flag("--force", text="Also those that run", short="-f")
@flag("--volumes", text="Also their volumes without a name", short="-v")
@_NAMES
def remove(names: tuple[str, ...], force: bool | None, volumes: bool | None) -> None:
    """Remove containers; by force, one that is not there is told of, but no failure."""
    client = connect()
    query = {"force": bool(force), "v": bool(volumes)}

    def act(name: str) -> None:
        try:
            client.delete(f"/containers/{name}", query)
        except RemoteError as error:
            if not force or error.http_status != STATUS_NOT_FOUND:
                raise
            click.echo(error.text, err=True)
        else:
            click.echo(name)

    carry_on(names, act)
