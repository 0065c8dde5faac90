"""`shoal service history|promote|rollback`: the specifications a service had, and the way on or back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from shoal.cli.converge import wait_until_converged
from shoal.cli.grammar import command, flag
from shoal.cli.session import Column, connect, print_list
from shoal.language.texts import age_text
from shoal.language.values import parse_uint
from shoal.lib.units import parse_time_ns


def _image(item: Mapping[str, Any]) -> str:
    container = item["Spec"]["TaskTemplate"].get("ContainerSpec") or {}
    return str(container.get("Image", "")).partition("@")[0]


def _age(item: Mapping[str, Any]) -> str:
    return f"{age_text((time.time_ns() - parse_time_ns(item['CreatedAt'])) / 1e9)} ago"


@command("history", "[OPTIONS] SERVICE", "List the specifications of a service that are kept")
@flag("--format", "string", "json, or a template such as {{.Revision}}")
@click.argument("name", metavar="SERVICE")
def history(name: str, format: str | None) -> None:  # noqa: A002
    """List revisions, the newest first."""
    shown = [
        Column("Revision", "REVISION", lambda item: str(item["Revision"])),
        Column("Current", "CURRENT", lambda item: "yes" if item["Current"] else ""),
        Column("Created", "CREATED", _age),
        Column("Image", "IMAGE", _image),
        Column("Tasks", "TASKS", lambda item: str(item["Tasks"])),
    ]
    print_list(shown, connect().get(f"/shoal/services/{name}/history"), format)


@command("promote", "[OPTIONS] SERVICE", "Update the rest of a service after its canaries")
@flag("--detach", text="Do not wait until the service has converged", short="-d")
@flag("--quiet", text="Show no progress", short="-q")
@click.argument("name", metavar="SERVICE")
def promote(name: str, detach: bool | None, quiet: bool | None) -> None:
    """Promote."""
    client = connect()
    found = client.get(f"/services/{name}")
    client.post(f"/shoal/services/{found['ID']}/promote")
    click.echo(name)
    if not detach:
        wait_until_converged(client, found["ID"], quiet=bool(quiet))


@command("rollback", "[OPTIONS] SERVICE", "Go back to a previous specification of a service")
@flag("--detach", text="Do not wait until the service has converged", short="-d")
@flag("--quiet", text="Show no progress", short="-q")
@flag("--to", "uint", "Revision to go back to, see history (default: the one before)", parse=parse_uint)
@click.argument("name", metavar="SERVICE")
def rollback(name: str, detach: bool | None, quiet: bool | None, to: int | None) -> None:
    """Roll back."""
    client = connect()
    found = client.get(f"/services/{name}")
    version = found["Version"]["Index"]
    if to is None:
        query = {"version": version, "rollback": "previous"}
        client.post(f"/services/{found['ID']}/update", found["Spec"], query)
    else:
        client.post(f"/shoal/services/{found['ID']}/rollback", None, {"version": version, "to": to})
    click.echo(name)
    if not detach:
        wait_until_converged(client, found["ID"], quiet=bool(quiet))
