"""`shoal node …`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from shoal.cli.commands.service import print_tasks
from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.screen import state_colour
from shoal.cli.session import (
    Column,
    collect,
    connect,
    fail_with,
    filter_query,
    for_each,
    print_inspected,
    print_list,
    print_pretty,
)
from shoal.client.connection import Client
from shoal.errors import InvalidArgument, ShoalError
from shoal.language.texts import capitalize
from shoal.language.values import parse_pair

_HERE = "shoal.cli.commands.node"

node = LazyGroup(
    "node",
    lazy={
        "demote": (f"{_HERE}:demote", "Make managers workers"),
        "inspect": (f"{_HERE}:inspect", "Show all there is of nodes"),
        "ls": (f"{_HERE}:list_nodes", "List the nodes of the swarm"),
        "promote": (f"{_HERE}:promote", "Make workers managers"),
        "ps": (f"{_HERE}:list_tasks", "List the tasks of nodes (this one, if none is named)"),
        "rm": (f"{_HERE}:remove", "Remove nodes from the swarm"),
        "update": (f"{_HERE}:update", "Change a node"),
    },
    aliases={"list": "ls", "remove": "rm"},
    help="Work with the nodes of the swarm",
    context_settings={"help_option_names": ["--help"]},
)


def resolve(client: Client, name: str) -> str:
    """Return the id that `self` stands for, any other name as it is.

    Raises:
        ShoalError: this node is in no swarm, or not a manager.
    """
    if name != "self":
        return name
    own = client.get("/info")["Swarm"].get("NodeID", "")
    if own:
        return str(own)
    client.get("/nodes")
    raise ShoalError("node ID not found in /info")


def _identity(item: Mapping[str, Any], own: str) -> str:
    return f"{item['ID']} *" if item["ID"] == own else str(item["ID"])


def _manager_status(item: Mapping[str, Any]) -> str:
    status = item.get("ManagerStatus") or {}
    return "Leader" if status.get("Leader") else capitalize(status.get("Reachability", ""))


def _tls_status(item: Mapping[str, Any], trust: Mapping[str, Any]) -> str:
    own = (item.get("Description") or {}).get("TLSInfo")
    if not own or not trust:
        return "Unknown"
    return "Ready" if own == trust else "Needs Rotation"


@command("ls", "[OPTIONS]", "List the nodes of the swarm")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Hostname}}")
@flag("--quiet", text="Ids only", short="-q")
def list_nodes(filter: tuple[str, ...], format: str | None, quiet: bool | None) -> None:  # noqa: A002
    """List nodes by host name."""
    client = connect()
    found = client.get("/nodes", filter_query(filter))
    found.sort(key=lambda item: (item.get("Description") or {}).get("Hostname", ""))
    if quiet and format is None:
        click.echo("".join(f"{item['ID']}\n" for item in found), nl=False)
        return
    swarm = client.get("/info")["Swarm"]
    own, trust = swarm.get("NodeID", ""), (swarm.get("Cluster") or {}).get("TLSInfo") or {}

    def described(item: Mapping[str, Any]) -> Mapping[str, Any]:
        return item.get("Description") or {}

    shown = [
        Column("ID", "ID", lambda item: _identity(item, own) if format is None else str(item["ID"])),
        Column("Hostname", "HOSTNAME", lambda item: str(described(item).get("Hostname", ""))),
        Column("Status", "STATUS", lambda item: capitalize(item["Status"]["State"]), colour=state_colour),
        Column(
            "Availability",
            "AVAILABILITY",
            lambda item: capitalize(item["Spec"].get("Availability", "")),
            colour=state_colour,
        ),
        Column("ManagerStatus", "MANAGER STATUS", _manager_status, colour=state_colour),
        Column(
            "EngineVersion",
            "ENGINE VERSION",
            lambda item: str((described(item).get("Engine") or {}).get("EngineVersion", "")),
        ),
        Column("Self", "SELF", lambda item: item["ID"] == own, shown=False),
        Column("TLSStatus", "TLS STATUS", lambda item: _tls_status(item, trust), shown=False),
    ]
    print_list(shown, found, format)


@command("inspect", "[OPTIONS] self|NODE [NODE...]", "Show all there is of nodes")
@flag("--format", "string", "json, or a template such as {{.Status.State}}", short="-f")
@flag("--pretty", text="In words for people")
@click.argument("names", metavar="NODE", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format: str | None, pretty: bool | None) -> None:  # noqa: A002
    """Show nodes."""
    if pretty and format:
        raise InvalidArgument("--format is incompatible with human friendly format")
    client = connect()

    def find(name: str) -> Any:
        return client.get(f"/nodes/{resolve(client, name)}")

    if not pretty:
        print_inspected(names, find, format)
        return
    from shoal.cli.pretty import node_lines

    print_pretty(names, find, node_lines)


@command("ps", "[OPTIONS] [NODE...]", "List the tasks of nodes (this one, if none is named)")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--no-resolve", text="Ids instead of names")
@flag("--no-trunc", text="Cut nothing short")
@flag("--quiet", text="Ids only", short="-q")
@click.argument("names", metavar="NODE", nargs=-1)
def list_tasks(names: tuple[str, ...], filter: tuple[str, ...], **given: Any) -> None:  # noqa: A002
    """List tasks of nodes."""
    client = connect()
    found, errors = collect(names or ("self",), lambda name: client.get(f"/nodes/{resolve(client, name)}"))
    if found:
        print_tasks(client, client.get("/tasks", filter_query(filter, node=[item["ID"] for item in found])), given)
    fail_with(errors)


@command("rm", "[OPTIONS] NODE [NODE...]", "Remove nodes from the swarm")
@flag("--force", text="Also a node that is up", short="-f")
@click.argument("names", metavar="NODE", nargs=-1, required=True)
def remove(names: tuple[str, ...], force: bool | None) -> None:
    """Remove nodes."""
    client = connect()
    for_each(names, lambda name: client.delete(f"/nodes/{resolve(client, name)}", {"force": bool(force)}))


def _change(client: Client, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    found = client.get(f"/nodes/{resolve(client, name)}")
    spec = found["Spec"]
    change(spec)
    client.post(f"/nodes/{found['ID']}/update", spec, {"version": found["Version"]["Index"]})


@command("update", "[OPTIONS] NODE", "Change a node")
@flag("--availability", "string", 'Whether it takes tasks ("active", "pause", "drain")')
@flag("--label-add", "list", "Add or change a label", many=True, parse=parse_pair)
@flag("--label-rm", "list", "Remove a label by its key", many=True)
@flag("--role", "string", 'Role ("worker", "manager")')
@click.argument("name", metavar="NODE")
def update(
    name: str,
    availability: str | None,
    label_add: tuple[tuple[str, str], ...],
    label_rm: tuple[str, ...],
    role: str | None,
) -> None:
    """Change a node."""

    def change(spec: dict[str, Any]) -> None:
        if availability is not None:
            spec["Availability"] = availability
        if role is not None:
            spec["Role"] = role
        labels = {**(spec.get("Labels") or {}), **dict(label_add)}
        for key in label_rm:
            if key not in labels:
                raise InvalidArgument(f"key {key} doesn't exist in node's labels")
            del labels[key]
        spec["Labels"] = labels

    _change(connect(), name, change)
    click.echo(name)


def _set_role(names: tuple[str, ...], role: str, done: str, already: str) -> None:
    client = connect()
    for name in names:
        found = client.get(f"/nodes/{resolve(client, name)}")
        if found["Spec"].get("Role") == role:
            click.echo(f"Node {name} is already a {already}.")
            continue
        query = {"version": found["Version"]["Index"]}
        client.post(f"/nodes/{found['ID']}/update", {**found["Spec"], "Role": role}, query)
        click.echo(f"{'Node' if role == 'manager' else 'Manager'} {name} {done}")


@command("promote", "NODE [NODE...]", "Make workers managers")
@click.argument("names", metavar="NODE", nargs=-1, required=True)
def promote(names: tuple[str, ...]) -> None:
    """Promote nodes; ends at the first that cannot be."""
    _set_role(names, "manager", "promoted to a manager in the swarm.", "manager")


@command("demote", "NODE [NODE...]", "Make managers workers")
@click.argument("names", metavar="NODE", nargs=-1, required=True)
def demote(names: tuple[str, ...]) -> None:
    """Demote nodes; ends at the first that cannot be."""
    _set_role(names, "worker", "demoted in the swarm.", "worker")
