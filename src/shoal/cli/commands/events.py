"""`shoal events`: what happens, as it happens or as the daemon remembers it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import click

from shoal.cli.grammar import command, flag
from shoal.cli.moments import moment_text
from shoal.cli.session import connect, filter_query
from shoal.client.streams import read_objects
from shoal.language.templates import parse_template
from shoal.lib.units import format_time

Json = Mapping[str, Any]


@command("events", "[OPTIONS]", "Show what happens")
@flag("--filter", "filter", "Condition on what is shown", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Action}}")
@flag("--since", "string", "From a time on (2026-01-02T13:23:37Z) or since a span (42m)")
@flag("--until", "string", "Up to a time or a span before now")
def events(filter: tuple[str, ...], format: str | None, since: str | None, until: str | None) -> None:  # noqa: A002
    """Show events."""
    now_ns = time.time_ns()
    query = {
        **filter_query(filter),
        **({"since": moment_text("--since", since, now_ns)} if since else {}),
        **({"until": moment_text("--until", until, now_ns)} if until else {}),
    }
    render = parse_template(format) if format else _line
    with connect().stream("GET", "/events", query) as response:
        for event in read_objects(response):
            click.echo(render(event))


def _line(event: Json) -> str:
    actor = event["Actor"]
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    told = f" ({attributes})" if attributes else ""
    return f"{format_time(event['timeNano'])} {event['Type']} {event['Action']} {actor['ID']}{told}"
