"""`shoal service rebalance`: tasks of an uneven service go to where fewer run, one after another."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from shoal.cli.grammar import command, flag
from shoal.cli.session import connect
from shoal.language.texts import shorten_id

POLL_SECONDS = 0.5


@command("rebalance", "[OPTIONS] SERVICE", "Move tasks of a replicated service from full nodes to emptier ones")
@flag("--detach", text="Do not wait until the tasks have moved", short="-d")
@flag("--dry-run", text="Only tell what would move")
@click.argument("name", metavar="SERVICE")
def rebalance(name: str, detach: bool | None, dry_run: bool | None) -> None:
    """Rebalance; each task runs in its new place before it stops in its old one."""
    client = connect()
    path = f"/shoal/services/{client.get(f'/services/{name}')['ID']}/rebalance"
    told = client.get(path) if dry_run else client.post(path)
    for move in told["Moves"]:
        click.echo(f"{name}.{move['Slot']}: {_node(move['From'])} -> {_node(move['To'])} ({move['Why']})")
    if told["Hindrance"]:
        later = "" if dry_run else "; it will when that is over"
        click.echo(f"nothing moves now: {told['Hindrance']}{later}")
    elif not told["Moves"]:
        click.echo("nothing moves: the tasks are spread as evenly as they can be")
    if dry_run or detach or told["Hindrance"]:
        return
    while client.get(path)["Rebalancing"]:
        time.sleep(POLL_SECONDS)


def _node(node: Mapping[str, Any]) -> str:
    return str(node["Hostname"] or shorten_id(node["ID"]))
