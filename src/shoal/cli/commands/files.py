"""`shoal diff`, `export` and `save`: files of containers and images, as lists and archives."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click

from shoal.cli.grammar import command, flag
from shoal.cli.session import connect
from shoal.client.connection import CHUNK_BYTES, Query
from shoal.errors import InvalidArgument, ShoalError
from shoal.lib.files import write_stream

KINDS: Mapping[int, str] = {0: "C", 1: "A", 2: "D"}


@command("diff", "CONTAINER", "Show which files of a container were changed (C), added (A) or deleted (D)")
@click.argument("name", metavar="CONTAINER")
def diff(name: str) -> None:
    """Show changes."""
    for change in connect().get(f"/containers/{name}/changes") or ():
        click.echo(f"{KINDS[change['Kind']]} {change['Path']}")


@command("export", "[OPTIONS] CONTAINER", "Write a container's files as a tar archive")
@flag("--output", "string", "Write to a file, not to standard output", short="-o")
@click.argument("name", metavar="CONTAINER")
def export(name: str, output: str | None) -> None:
    """Export a container."""
    _write_archive(f"/containers/{name}/export", None, output)


@command("save", "[OPTIONS] IMAGE [IMAGE...]", "Write images as a tar archive, for load")
@flag("--output", "string", "Write to a file, not to standard output", short="-o")
@click.argument("names", metavar="IMAGE", nargs=-1, required=True)
def save(names: tuple[str, ...], output: str | None) -> None:
    """Save images."""
    _write_archive("/images/get", {"names": names}, output)


def _write_archive(path: str, query: Query | None, output: str | None) -> None:
    """Write what the daemon streams; a file is there whole or not at all."""
    if output is None and sys.stdout.isatty():
        raise ShoalError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    with connect().stream("GET", path, query) as response:
        pieces = iter(lambda: response.read(CHUNK_BYTES), b"")
        if output is None:
            sys.stdout.buffer.writelines(pieces)
            sys.stdout.buffer.flush()
            return
        try:
            write_stream(Path(output), pieces, mode=0o666, sync=False)
        except OSError as error:
            raise InvalidArgument(f"--output {output}: {error.strerror}") from None
