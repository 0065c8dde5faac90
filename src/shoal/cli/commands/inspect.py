"""`shoal inspect`: whatever has a name or an id."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import click

from shoal.cli.grammar import command, flag
from shoal.cli.session import connect, print_inspected
from shoal.client.connection import RemoteError
from shoal.errors import InvalidArgument

# in the order in which a name is looked for
PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "service": "/services/{}",
    "task": "/tasks/{}",
    "node": "/nodes/{}",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}
# an absent object, and of a daemon that is no manager
_GOES_ON = (HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.NOT_ACCEPTABLE)


@command("inspect", "[OPTIONS] NAME|ID [NAME|ID...]", "Show objects whole")
@flag("--format", "string", "A template such as {{.Name}}", short="-f")
@flag("--size", text="Also the size of containers", short="-s")
@flag("--type", "string", f"Only of a kind: {', '.join(PATHS)}")
@click.argument("names", nargs=-1, required=True, metavar="NAME|ID")
def inspect(names: tuple[str, ...], format: str | None, size: bool | None, type: str | None) -> None:  # noqa: A002
    """Show objects."""
    if type is not None and type not in PATHS:
        raise InvalidArgument(f'--type "{type}": use one of {", ".join(PATHS)}')
    _inspect(names, [type] if type else list(PATHS), format, with_size=bool(size))


@command("inspect", "[OPTIONS] CONTAINER [CONTAINER...]", "Show all there is of containers")
@flag("--format", "string", "A template such as {{.State.Status}}", short="-f")
@flag("--size", text="Also their size", short="-s")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER")
def inspect_container(names: tuple[str, ...], format: str | None, size: bool | None) -> None:  # noqa: A002
    """Show containers."""
    _inspect(names, ["container"], format, with_size=bool(size))


@command("inspect", "[OPTIONS] IMAGE [IMAGE...]", "Show all there is of images")
@flag("--format", "string", "A template such as {{.Id}}", short="-f")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE")
def inspect_image(names: tuple[str, ...], format: str | None) -> None:  # noqa: A002
    """Show images."""
    _inspect(names, ["image"], format)


def _inspect(names: Sequence[str], kinds: Sequence[str], template: str | None, *, with_size: bool = False) -> None:
    client = connect()

    def find(name: str) -> Any:
        for kind in kinds:
            try:
                query = {"size": True} if with_size and kind == "container" else None
                return client.get(PATHS[kind].format(name), query)
            except RemoteError as error:
                if len(kinds) == 1 or error.http_status not in _GOES_ON:
                    raise
        raise RemoteError(f"Error: No such object: {name}", HTTPStatus.NOT_FOUND, is_quoted=False)

    print_inspected(names, find, template)
