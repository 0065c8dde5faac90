"""`shoal volume …`."""

from __future__ import annotations

import click

from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.session import (
    Column,
    absent_column,
    confirm,
    connect,
    delete_each,
    filter_query,
    labels_text,
    print_deleted,
    print_inspected,
    print_list,
)
from shoal.language.texts import size_text
from shoal.language.values import parse_pair

_HERE = "shoal.cli.commands.volume"
PRUNE_WARNING = "WARNING! This will remove {what}local volumes not used by at least one container."

volume = LazyGroup(
    "volume",
    lazy={
        "create": (f"{_HERE}:create", "Make a volume"),
        "inspect": (f"{_HERE}:inspect", "Show all there is of volumes"),
        "ls": (f"{_HERE}:list_volumes", "List the volumes of this node"),
        "prune": (f"{_HERE}:prune", "Remove all volumes that nothing uses"),
        "rm": (f"{_HERE}:remove", "Remove volumes and their data"),
    },
    aliases={"list": "ls", "remove": "rm"},
    help="Work with the volumes of this node",
    context_settings={"help_option_names": ["--help"]},
)


@command("create", "[OPTIONS] [VOLUME]", "Make a volume")
@flag("--driver", "string", "What makes it", short="-d", default='"local"')
@flag("--label", "list", "Label", parse=parse_pair, many=True)
@flag("--opt", "map", "Option of the driver: type, device, o", short="-o", parse=parse_pair, many=True)
@click.argument("name", metavar="VOLUME", default="")
def create(name: str, driver: str | None, label: tuple[tuple[str, str], ...], opt: tuple[tuple[str, str], ...]) -> None:
    """Make a volume and print its name."""
    body = {"Name": name, "Driver": driver or "local", "DriverOpts": dict(opt), "Labels": dict(label)}
    click.echo(connect().post("/volumes/create", body)["Name"])


@command("ls", "[OPTIONS]", "List the volumes of this node")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--quiet", text="Names only", short="-q")
def list_volumes(filter: tuple[str, ...], format: str | None, quiet: bool | None) -> None:  # noqa: A002
    """List volumes by name."""
    found = connect().get("/volumes", filter_query(filter))["Volumes"]
    if quiet and format is None:
        click.echo("".join(f"{item['Name']}\n" for item in found), nl=False)
        return
    shown = [
        Column("Driver", "DRIVER", lambda item: str(item["Driver"])),
        Column("Name", "VOLUME NAME", lambda item: str(item["Name"])),
        Column("Scope", "SCOPE", lambda item: str(item["Scope"]), shown=False),
        Column("Mountpoint", "MOUNTPOINT", lambda item: str(item["Mountpoint"]), shown=False),
        Column("Labels", "LABELS", lambda item: labels_text(item["Labels"]), shown=False),
        *(absent_column(name) for name in ("Availability", "Group", "Links", "Size", "Status")),
    ]
    print_list(shown, found, format)


@command("inspect", "[OPTIONS] VOLUME [VOLUME...]", "Show all there is of volumes")
@flag("--format", "string", "json, or a template such as {{.Mountpoint}}", short="-f")
@click.argument("names", metavar="VOLUME", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format: str | None) -> None:  # noqa: A002
    """Show volumes."""
    client = connect()
    print_inspected(names, lambda name: client.get(f"/volumes/{name}"), format)


@command("rm", "[OPTIONS] VOLUME [VOLUME...]", "Remove volumes and their data")
@flag("--force", text="Volumes that are not there are no failure", short="-f")
@click.argument("names", metavar="VOLUME", nargs=-1, required=True)
def remove(names: tuple[str, ...], force: bool | None) -> None:
    """Remove volumes no container names."""
    delete_each(connect(), "volumes", names, force=bool(force))


@command("prune", "[OPTIONS]", "Remove all volumes that nothing uses")
@flag("--all", text="Those with names, too", short="-a")
@flag("--filter", "filter", "Condition on what is removed, such as label=KEY", many=True)
@flag("--force", text="Do not ask", short="-f")
def prune(all: bool | None, filter: tuple[str, ...], force: bool | None) -> None:  # noqa: A002
    """Remove volumes, after asking."""
    warning = PRUNE_WARNING.format(what="all " if all else "anonymous ")
    confirm(warning, force=bool(force))
    conditions = (*filter, "all=true") if all else filter
    done = connect().post("/volumes/prune", query=filter_query(conditions))
    print_deleted("Volumes", done.get("VolumesDeleted") or [])
    click.echo(f"Total reclaimed space: {size_text(done['SpaceReclaimed'])}")
