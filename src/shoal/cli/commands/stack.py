"""`shoal stack …`: what there is; what a Compose file makes of it is in `stack_deploy`."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import click

from shoal.cli.commands.service import print_services, print_tasks
from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.session import Column, connect, fail_with, filter_query, print_list
from shoal.cli.stack_objects import KINDS, found_by_stack, id_of
from shoal.client.connection import RemoteError
from shoal.compose.labels import NAMESPACE_LABEL
from shoal.errors import ShoalError

_HERE = "shoal.cli.commands.stack"
POLL_SECONDS = 0.2

stack = LazyGroup(
    "stack",
    lazy={
        "config": (f"{_HERE}_deploy:config", "Show the files as one, variables filled in"),
        "deploy": (f"{_HERE}_deploy:deploy", "Make or change a stack"),
        "ls": (f"{_HERE}:list_stacks", "List stacks"),
        "plan": (f"{_HERE}_deploy:plan", "Show what a deploy would change"),
        "ps": (f"{_HERE}:list_tasks", "List the tasks of a stack"),
        "rm": (f"{_HERE}:remove", "Remove stacks"),
        "services": (f"{_HERE}:list_services", "List the services of a stack"),
    },
    aliases={"list": "ls", "remove": "rm", "down": "rm", "up": "deploy"},
    help="Work with stacks: Compose files on the swarm",
    context_settings={"help_option_names": ["--help"]},
)


@command("ls", "[OPTIONS]", "List stacks")
@flag("--format", "string", "json, or a template such as {{.Name}}")
def list_stacks(format: str | None) -> None:  # noqa: A002
    """List stacks by name; one without services, too."""
    client = connect()
    services: Counter[str] = Counter()
    for kind in KINDS:
        for item in client.get(f"/{kind}s", filter_query((f"label={NAMESPACE_LABEL}",))):
            labels = (item.get("Labels") if kind == "network" else item["Spec"].get("Labels")) or {}
            services[labels.get(NAMESPACE_LABEL, "")] += 1 if kind == "service" else 0
    shown = [
        Column("Name", "NAME", lambda row: row[0]),
        Column("Services", "SERVICES", lambda row: row[1]),
    ]
    print_list(shown, sorted(services.items()), format)


@command("ps", "[OPTIONS] STACK", "List the tasks of a stack")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--no-resolve", text="Ids instead of names")
@flag("--no-trunc", text="Cut nothing short")
@flag("--quiet", text="Ids only", short="-q")
@click.argument("name", metavar="STACK")
def list_tasks(name: str, filter: tuple[str, ...], **given: Any) -> None:  # noqa: A002
    """List tasks."""
    client = connect()
    tasks = client.get("/tasks", filter_query(filter, label=[f"{NAMESPACE_LABEL}={name}"]))
    if not tasks:
        raise ShoalError(f"nothing found in stack: {name}")
    print_tasks(client, tasks, given)


@command("services", "[OPTIONS] STACK", "List the services of a stack")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--quiet", text="Ids only", short="-q")
@click.argument("name", metavar="STACK")
def list_services(name: str, filter: tuple[str, ...], format: str | None, quiet: bool | None) -> None:  # noqa: A002
    """List services by name."""
    query = filter_query(filter, label=[f"{NAMESPACE_LABEL}={name}"])
    found = connect().get("/services", {"status": True, **query})
    if not found:
        click.echo(f"Nothing found in stack: {name}", err=True)
        return
    print_services(found, format, quiet=bool(quiet))


@command("rm", "[OPTIONS] STACK [STACK...]", "Remove stacks")
@flag("--detach", text="Do not wait for their tasks (default)", short="-d")
@flag("--wait", text="Wait until their tasks have gone")
@click.argument("names", metavar="STACK", nargs=-1, required=True)
def remove(names: tuple[str, ...], detach: bool | None, wait: bool | None) -> None:
    """Remove services, secrets, configs and networks of stacks; what fails is told after the rest."""
    client, errors = connect(), []
    for name in names:
        found = {kind: found_by_stack(client, kind, name) for kind in KINDS}
        if not any(found.values()):
            click.echo(f"Nothing found in stack: {name}", err=True)
        for kind in KINDS:
            for item_name, item in sorted(found[kind].items()):
                click.echo(f"Removing {kind} {item_name}")
                try:
                    client.delete(f"/{kind}s/{id_of(kind, item)}")
                except RemoteError as error:
                    errors.append(f"Failed to remove {kind} {id_of(kind, item)}: {error.text}")
        if wait or detach is False:
            query = filter_query((f"label={NAMESPACE_LABEL}={name}",))
            while client.get("/tasks", query):
                # EXCEPTION to waiting on conditions: the API has no call that waits for tasks
                time.sleep(POLL_SECONDS)
    fail_with(errors)
