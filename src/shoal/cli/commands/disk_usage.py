"""`shoal system df`: what images, containers and volumes of this node take."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from shoal.cli.commands.container import container_columns
from shoal.cli.commands.image import NONE, split_reference
from shoal.cli.grammar import command, flag
from shoal.cli.session import Column, connect, print_list
from shoal.errors import InvalidArgument
from shoal.language.texts import age_text, shorten_id, size_text

Json = Mapping[str, Any]
_LIVE = ("running", "paused", "restarting")


class Usage(NamedTuple):
    """What one kind of things takes, and how much of it nothing uses."""

    kind: str
    total: int
    active: int
    size_bytes: int
    reclaimable_bytes: int


def usages(found: Json) -> list[Usage]:
    """Count, as docker does: a shared layer is an image's only if something runs of nothing else."""
    images, containers, volumes = (found.get(key) or () for key in ("Images", "Containers", "Volumes"))
    used = [item for item in images if item["Containers"] > 0]
    layers = int(found.get("LayersSize") or 0)
    own = sum(item["Size"] - item["SharedSize"] for item in used if item["SharedSize"] >= 0)
    stopped = [item for item in containers if item["State"] not in _LIVE]
    idle = [item for item in volumes if not item["UsageData"]["RefCount"]]
    return [
        Usage("Images", len(images), len(used), layers, layers - own),
        Usage("Containers", len(containers), len(containers) - len(stopped), _written(containers), _written(stopped)),
        Usage("Local Volumes", len(volumes), len(volumes) - len(idle), _held(volumes), _held(idle)),
        Usage("Build Cache", 0, 0, 0, 0),
    ]


def _written(containers: Iterable[Json]) -> int:
    return sum(int(item.get("SizeRw") or 0) for item in containers)


def _held(volumes: Iterable[Json]) -> int:
    return sum(max(0, int(item["UsageData"]["Size"])) for item in volumes)


def _reclaimable(usage: Usage) -> str:
    text = size_text(usage.reclaimable_bytes, digits=4)
    return f"{text} ({100 * usage.reclaimable_bytes // usage.size_bytes}%)" if usage.size_bytes else text


@command("df", "[OPTIONS]", "Show what images, containers and volumes of this node take")
@flag("--format", "string", "json, or a template such as {{.Size}}")
@flag("--verbose", text="Each image, container and volume", short="-v")
def disk_usage(format: str | None, verbose: bool | None) -> None:  # noqa: A002
    """Show usage."""
    if verbose and format:
        raise InvalidArgument("--format and --verbose: use one of them")
    found = connect().get("/system/df")
    if verbose:
        _print_each(found)
        return
    shown = [
        Column("Type", "TYPE", lambda usage: usage.kind),
        Column("TotalCount", "TOTAL", lambda usage: str(usage.total)),
        Column("Active", "ACTIVE", lambda usage: str(usage.active)),
        Column("Size", "SIZE", lambda usage: size_text(usage.size_bytes, digits=4)),
        Column("Reclaimable", "RECLAIMABLE", _reclaimable),
    ]
    print_list(shown, usages(found), format)


def _print_each(found: Json) -> None:
    now = time.time()
    images = [
        (*split_reference((item.get("RepoTags") or (f"{NONE}:{NONE}",))[0]), item) for item in found.get("Images") or ()
    ]
    _print_table(
        "Images",
        [
            Column("", "REPOSITORY", lambda row: row[0]),
            Column("", "TAG", lambda row: row[1]),
            Column("", "IMAGE ID", lambda row: shorten_id(row[2]["Id"])),
            Column("", "CREATED", lambda row: f"{age_text(now - row[2]['Created'])} ago"),
            Column("", "SIZE", lambda row: size_text(row[2]["Size"])),
            Column("", "SHARED SIZE", lambda row: size_text(max(0, row[2]["SharedSize"]), digits=4)),
            Column("", "UNIQUE SIZE", lambda row: size_text(row[2]["Size"] - max(0, row[2]["SharedSize"]), digits=4)),
            Column("", "CONTAINERS", lambda row: str(row[2]["Containers"])),
        ],
        images,
    )
    wanted = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
    columns = {column.field: column for column in container_columns(now, whole=False)}
    columns["Size"] = Column("Size", "SIZE", lambda item: size_text(item.get("SizeRw") or 0))
    for name in wanted:
        columns[name].shown = True
    _print_table("Containers", [columns[name] for name in wanted], found.get("Containers") or ())
    _print_table(
        "Local Volumes",
        [
            Column("", "VOLUME NAME", lambda item: item["Name"]),
            Column("", "LINKS", lambda item: str(item["UsageData"]["RefCount"])),
            Column("", "SIZE", lambda item: size_text(max(0, item["UsageData"]["Size"]))),
        ],
        found.get("Volumes") or (),
    )


def _print_table(title: str, columns: Sequence[Column], items: Sequence[Any]) -> None:
    click.echo(f"{title} space usage:\n")
    print_list(columns, items, None)
    click.echo()
