"""`shoal ps`, `shoal logs` and the group `shoal container`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click

from shoal.cli.commands.catalogue import CONTAINER
from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.log_output import log_query, print_raw
from shoal.cli.screen import state_colour
from shoal.cli.session import Column, connect, filter_query, labels_text, print_list
from shoal.client.streams import MULTIPLEXED, STDERR, read_frames
from shoal.language.texts import age_text, ellipsis, shorten_id, size_text, utc_text
from shoal.language.values import parse_int

MOST_COMMAND = 20
MOST_MOUNT = 15
Json = Mapping[str, Any]

container = LazyGroup(
    "container",
    lazy=CONTAINER,
    aliases={"list": "ls", "ps": "ls", "remove": "rm"},
    help="Work with containers",
    context_settings={"help_option_names": ["--help"]},
)


@command("ps", "[OPTIONS]", "List the containers of this node")
@flag("--all", text="Also those that do not run", short="-a")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Names}}")
@flag("--last", "int", "So many of the newest, whatever their state", short="-n", parse=parse_int)
@flag("--latest", text="The newest, whatever its state", short="-l")
@flag("--no-trunc", text="Cut nothing short")
@flag("--quiet", text="Ids only", short="-q")
@flag("--size", text="Also how much they have written", short="-s")
def list_containers(filter: tuple[str, ...], format: str | None, **given: Any) -> None:  # noqa: A002
    """List containers."""
    most = 1 if given["latest"] else given["last"]
    with_size = bool(given["size"]) or _asks_for_size(format)
    query = {"all": bool(given["all"]), "limit": most, "size": with_size, **filter_query(filter)}
    found = connect().get("/containers/json", query)
    whole = bool(given["no_trunc"])
    if given["quiet"] and format is None:
        ids = "".join(f"{item['Id'] if whole else shorten_id(item['Id'])}\n" for item in found)
        click.echo(ids, nl=False)
        return
    shown = container_columns(time.time(), whole=whole, with_size=bool(given["size"]))
    print_list(shown, found, format, truncate=not whole)


def _asks_for_size(template: str | None) -> bool:
    if not template:
        return False
    from shoal.language.templates import fields_of

    return "Size" in fields_of(template)


def container_columns(now: float, *, whole: bool, with_size: bool = False) -> list[Column]:
    """Return the columns of a list of containers; `whole`: nothing is cut short."""

    def command_text(item: Json) -> str:
        return f'"{item["Command"] if whole else ellipsis(item["Command"], MOST_COMMAND)}"'

    return [
        Column("ID", "CONTAINER ID", lambda item: str(item["Id"]) if whole else shorten_id(item["Id"])),
        Column("Image", "IMAGE", lambda item: str(item["Image"])),
        Column("Command", "COMMAND", command_text),
        Column("RunningFor", "CREATED", lambda item: f"{age_text(now - item['Created'])} ago"),
        Column("Status", "STATUS", lambda item: str(item["Status"]), colour=state_colour),
        Column("Ports", "PORTS", _ports_text),
        Column("Names", "NAMES", lambda item: ",".join(name.lstrip("/") for name in item["Names"])),
        Column("Size", "SIZE", _size_text, shown=with_size),
        Column("CreatedAt", "CREATED AT", lambda item: utc_text(item["Created"]), shown=False),
        Column("Labels", "LABELS", lambda item: labels_text(item.get("Labels")), shown=False),
        Column("LocalVolumes", "LOCAL VOLUMES", lambda item: str(len(_volumes(item))), shown=False),
        Column("Mounts", "MOUNTS", lambda item: ",".join(_mounts(item, whole=whole)), shown=False),
        Column(
            "Networks",
            "NETWORKS",
            lambda item: ",".join((item.get("NetworkSettings") or {}).get("Networks") or ()),
            shown=False,
        ),
        Column("Platform", "PLATFORM", lambda _: None, shown=False),
        Column("State", "STATE", lambda item: str(item["State"]), shown=False),
    ]


def _size_text(item: Json) -> str:
    written, whole = size_text(item.get("SizeRw") or 0), item.get("SizeRootFs")
    return f"{written} (virtual {size_text(whole)})" if whole else written


def _volumes(item: Json) -> list[Json]:
    return [mount for mount in item.get("Mounts") or () if mount.get("Driver") == "local"]


def _mounts(item: Json, *, whole: bool) -> list[str]:
    names = [str(mount.get("Name") or mount.get("Source", "")) for mount in item.get("Mounts") or ()]
    return names if whole else [ellipsis(name, MOST_MOUNT) for name in names]


def _ports_text(item: Json) -> str:
    texts = []
    for port in item.get("Ports") or ():
        outside = f"{port.get('IP', '')}:{port['PublicPort']}->" if port.get("PublicPort") else ""
        texts.append(f"{outside}{port.get('PrivatePort', 0)}/{port.get('Type', 'tcp')}")
    return ", ".join(texts)


@command("logs", "[OPTIONS] CONTAINER", "Show the output of a container")
@flag("--details", text="Show the details the log driver gives")
@flag("--follow", text="Go on with new output", short="-f")
@flag("--since", "string", "From a time on (2026-01-02T13:23:37Z) or since a span (42m)")
@flag("--tail", "string", "Lines from the end", short="-n", default='"all"')
@flag("--timestamps", text="Show times", short="-t")
@click.argument("name", metavar="CONTAINER")
def logs(name: str, **given: Any) -> None:
    """Show logs."""
    with connect().stream("GET", f"/containers/{name}/logs", log_query(given)) as response:
        if response.getheader("Content-Type") != MULTIPLEXED:
            print_raw(response)
            return
        for stream, payload in read_frames(response):
            target = sys.stderr if stream == STDERR else sys.stdout
            target.buffer.write(payload)
            target.buffer.flush()
