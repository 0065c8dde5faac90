"""`shoal container prune`, `image prune` and `system prune`: what nothing uses goes, after asking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from shoal.cli.grammar import command, flag
from shoal.cli.session import confirm, connect, filter_query, print_deleted
from shoal.client.connection import Client
from shoal.errors import InvalidArgument
from shoal.language.texts import size_text

Json = Mapping[str, Any]


def _prune_containers(client: Client, filters: tuple[str, ...]) -> int:
    done = client.post("/containers/prune", query=filter_query(filters))
    print_deleted("Containers", done.get("ContainersDeleted") or [])
    return int(done["SpaceReclaimed"])


def _prune_images(client: Client, filters: tuple[str, ...], *, all_unused: bool) -> int:
    conditions = (*filters, f"dangling={str(not all_unused).lower()}")
    done = client.post("/images/prune", query=filter_query(conditions))
    lines = [
        f"{word.lower()}: {item[word]}"
        for item in done.get("ImagesDeleted") or ()
        for word in ("Untagged", "Deleted")
        if item.get(word)
    ]
    print_deleted("Images", lines)
    return int(done["SpaceReclaimed"])


def _print_freed(size_bytes: int) -> None:
    click.echo(f"Total reclaimed space: {size_text(size_bytes, digits=4)}")


@command("prune", "[OPTIONS]", "Remove all stopped containers")
@flag("--filter", "filter", "Condition on what is removed, such as until=24h", many=True)
@flag("--force", text="Do not ask", short="-f")
def prune_containers(filter: tuple[str, ...], force: bool | None) -> None:  # noqa: A002
    """Remove containers that do not run, after asking."""
    confirm("WARNING! This will remove all stopped containers.", force=bool(force))
    _print_freed(_prune_containers(connect(), filter))


@command("prune", "[OPTIONS]", "Remove images that nothing uses")
@flag("--all", text="Also those with names", short="-a")
@flag("--filter", "filter", "Condition on what is removed, such as until=24h", many=True)
@flag("--force", text="Do not ask", short="-f")
def prune_images(all: bool | None, filter: tuple[str, ...], force: bool | None) -> None:  # noqa: A002
    """Remove images, after asking."""
    confirm(f"WARNING! This will remove {_images_text(all_unused=bool(all))}.", force=bool(force))
    _print_freed(_prune_images(connect(), filter, all_unused=bool(all)))


def _images_text(*, all_unused: bool) -> str:
    return "all images without at least one container associated to them" if all_unused else "all dangling images"


@command("prune", "[OPTIONS]", "Remove all that nothing uses: containers, networks and images of this node")
@flag("--all", text="Also images with names", short="-a")
@flag("--filter", "filter", "Condition on what is removed, such as label=KEY", many=True)
@flag("--force", text="Do not ask", short="-f")
@flag("--volumes", text="Also volumes without a name")
def prune_system(
    all: bool | None,  # noqa: A002
    filter: tuple[str, ...],  # noqa: A002
    force: bool | None,
    volumes: bool | None,
) -> None:
    """Remove containers first, as others are held by them."""
    if volumes and any(text.startswith("until=") for text in filter):
        raise InvalidArgument('the "until" filter is not supported with "--volumes"')
    what = ["all stopped containers", "all networks not used by at least one container"]
    if volumes:
        what.append("all anonymous volumes not used by at least one container")
    what.append(_images_text(all_unused=bool(all)))
    shown = "".join(f"  - {text}\n" for text in what)
    if filter:
        shown += "\n  Items to be pruned will be filtered with:\n" + "".join(f"  - {text}\n" for text in filter)
    confirm(f"WARNING! This will remove:\n{shown}", force=bool(force))
    client = connect()
    freed_bytes = _prune_containers(client, filter)
    networks = client.post("/networks/prune", query=filter_query(filter)).get("NetworksDeleted") or []
    print_deleted("Networks", networks)
    if volumes:
        done = client.post("/volumes/prune", query=filter_query(filter))
        print_deleted("Volumes", done.get("VolumesDeleted") or [])
        freed_bytes += int(done["SpaceReclaimed"])
    freed_bytes += _prune_images(client, filter, all_unused=bool(all))
    _print_freed(freed_bytes)
