"""`shoal service …`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.screen import share_colour
from shoal.cli.session import (
    STATUS_NOT_FOUND,
    Column,
    collect,
    connect,
    fail_with,
    filter_query,
    for_each,
    print_inspected,
    print_list,
)
from shoal.cli.tasks_table import arrange, columns, ports_text
from shoal.client.connection import Client, RemoteError
from shoal.errors import InvalidArgument
from shoal.language.texts import shorten_id

_HERE = "shoal.cli.commands.service"
_REVISIONS = "shoal.cli.commands.service_revisions"
_LOGS = "shoal.cli.commands.service_logs"

service = LazyGroup(
    "service",
    lazy={
        "create": (f"{_HERE}_change:create", "Make a service"),
        "history": (f"{_REVISIONS}:history", "List the specifications of a service that are kept"),
        "inspect": (f"{_HERE}:inspect", "Show all there is of services"),
        "logs": (f"{_LOGS}:logs", "Show the output of a service or a task"),
        "ls": (f"{_HERE}:list_services", "List services"),
        "promote": (f"{_REVISIONS}:promote", "Update the rest of a service after its canaries"),
        "ps": (f"{_HERE}:list_tasks", "List the tasks of services"),
        "rebalance": (f"{_HERE}_rebalance:rebalance", "Move tasks from full nodes to emptier ones"),
        "rm": (f"{_HERE}:remove", "Remove services"),
        "rollback": (f"{_REVISIONS}:rollback", "Go back to a previous specification of a service"),
        "scale": (f"{_HERE}_scale:scale", "Change the number of tasks"),
        "update": (f"{_HERE}_change:update", "Change a service"),
    },
    aliases={"list": "ls", "remove": "rm"},
    help="Work with services",
    context_settings={"help_option_names": ["--help"]},
)


@command("rm", "SERVICE [SERVICE...]", "Remove services")
@click.argument("names", metavar="SERVICE", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Remove services."""
    client = connect()
    for_each(names, lambda name: client.delete(f"/services/{name}"))


def _replicas_text(item: Mapping[str, Any]) -> str:
    status = item.get("ServiceStatus") or {}
    mode = item["Spec"].get("Mode") or {}
    text = f"{status.get('RunningTasks', 0)}/{status.get('DesiredTasks', 0)}"
    if "ReplicatedJob" in mode:
        total = mode["ReplicatedJob"].get("TotalCompletions", 1)
        return f"{text} ({status.get('CompletedTasks', 0)}/{total} completed)"
    most = (item["Spec"]["TaskTemplate"].get("Placement") or {}).get("MaxReplicas")
    return f"{text} (max {most} per node)" if most and "Replicated" in mode else text


_MODE_WORDS = {
    "Replicated": "replicated",
    "Global": "global",
    "ReplicatedJob": "replicated job",
    "GlobalJob": "global job",
}


def _mode_word(item: Mapping[str, Any]) -> str:
    return next((word for key, word in _MODE_WORDS.items() if key in (item["Spec"].get("Mode") or {})), "replicated")


def _image_text(item: Mapping[str, Any]) -> str:
    container = item["Spec"]["TaskTemplate"].get("ContainerSpec") or {}
    return str(container.get("Image", "")).partition("@")[0]


@command("ls", "[OPTIONS]", "List services")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--quiet", text="Ids only", short="-q")
def list_services(filter: tuple[str, ...], format: str | None, quiet: bool | None) -> None:  # noqa: A002
    """List services by name."""
    found = connect().get("/services", {"status": True, **filter_query(filter)})
    print_services(found, format, quiet=bool(quiet))


def print_services(found: Sequence[Mapping[str, Any]], template: str | None, *, quiet: bool) -> None:
    """Print services as the flags of `ls` say."""
    found = sorted(found, key=lambda item: str(item["Spec"]["Name"]))
    if quiet and template is None:
        click.echo("".join(f"{shorten_id(item['ID'])}\n" for item in found), nl=False)
        return
    shown = [
        Column("ID", "ID", lambda item: shorten_id(item["ID"])),
        Column("Name", "NAME", lambda item: str(item["Spec"]["Name"])),
        Column("Mode", "MODE", _mode_word),
        Column("Replicas", "REPLICAS", _replicas_text, colour=share_colour),
        Column("Image", "IMAGE", _image_text),
        Column("Ports", "PORTS", lambda item: ports_text((item.get("Endpoint") or {}).get("Ports") or ())),
    ]
    print_list(shown, found, template)


@command("inspect", "[OPTIONS] SERVICE [SERVICE...]", "Show all there is of services")
@flag("--format", "string", "json, or a template such as {{.Spec.Name}}", short="-f")
@flag("--pretty", text="In words for people")
@click.argument("names", metavar="SERVICE", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format: str | None, pretty: bool | None) -> None:  # noqa: A002
    """Show services."""
    if pretty and format:
        raise InvalidArgument("--format is incompatible with human friendly format")
    client = connect()

    def find(name: str) -> Any:
        return _find(client, name, "Error: ")

    if not pretty:
        print_inspected(names, find, format)
        return
    from shoal.cli.pretty import service_lines

    networks = {item["Id"]: item["Name"] for item in client.get("/networks")}
    found, errors = collect(names, find)
    for item in found:
        click.echo("\n".join(service_lines(item, networks, time.time_ns())))
    fail_with(errors)


@command("ps", "[OPTIONS] SERVICE [SERVICE...]", "List the tasks of services")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--no-resolve", text="Ids instead of names")
@flag("--no-trunc", text="Cut nothing short")
@flag("--quiet", text="Ids only", short="-q")
@click.argument("names", metavar="SERVICE", nargs=-1, required=True)
def list_tasks(names: tuple[str, ...], filter: tuple[str, ...], **given: Any) -> None:  # noqa: A002
    """List tasks; a service that is not there is told after the others."""
    client = connect()
    found, errors = collect(names, lambda name: _find(client, name))
    if found:
        query = filter_query(filter, service=[item["ID"] for item in found])
        print_tasks(client, client.get("/tasks", query), given)
    fail_with(errors)


def _find(client: Client, name: str, prefix: str = "") -> Any:
    """Return a service with its defaults, or refuse in docker's own words: those of its command, not of the daemon."""
    try:
        return client.get(f"/services/{name}", {"insertDefaults": True})
    except RemoteError as error:
        if error.http_status != STATUS_NOT_FOUND:
            raise
        raise RemoteError(f"{prefix}no such service: {name}", STATUS_NOT_FOUND, is_quoted=False) from None


def print_tasks(client: Client, tasks: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> None:
    """Print tasks as the flags of `ps` say."""
    services: dict[str, str] = {}
    nodes: dict[str, str] = {}
    if not given["no_resolve"]:
        services = {item["ID"]: item["Spec"]["Name"] for item in client.get("/services")}
        nodes = {item["ID"]: (item.get("Description") or {}).get("Hostname", "") for item in client.get("/nodes")}
    rows = arrange(tasks, services, nodes)
    if given["quiet"] and given["format"] is None:
        # whole, as Docker has it, so that other commands take them
        click.echo("".join(f"{row.task['ID']}\n" for row in rows), nl=False)
        return
    shown = columns(time.time_ns(), truncate=not given["no_trunc"], indent=given["format"] is None)
    print_list(shown, rows, given["format"], truncate=not given["no_trunc"])


def find_service_or_task(client: Client, name: str) -> tuple[str, Mapping[str, Any]]:
    """Return `services` or `tasks` and the object that a name means.

    Raises:
        RemoteError: neither.
    """
    try:
        return "services", client.get(f"/services/{name}")
    except RemoteError as error:
        if error.http_status != STATUS_NOT_FOUND:
            raise
    try:
        return "tasks", client.get(f"/tasks/{name}")
    except RemoteError as error:
        if error.http_status == STATUS_NOT_FOUND:
            raise RemoteError(f"no such task or service: {name}", STATUS_NOT_FOUND, is_quoted=False) from None
        raise


def tasks_query(service_id: str) -> dict[str, str]:
    """Return the query of a service's tasks."""
    return {"filters": json.dumps({"service": {service_id: True}})}
