"""`shoal stack deploy`, `plan` and `config`: Compose files on the swarm."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import click
import yaml

from shoal.cli.converge import wait_until_converged
from shoal.cli.grammar import command, flag
from shoal.cli.registry_logins import read_logins
from shoal.cli.session import connect
from shoal.cli.stack_deploy import Present, carry_out, plan_deploy
from shoal.cli.stack_files import load_project, load_stack
from shoal.client.connection import Client
from shoal.compose.plan import CREATE, KEEP, REMOVE, UPDATE, Change
from shoal.compose.stack import Stack
from shoal.errors import InvalidArgument, ShoalError
from shoal.language.values import parse_positive_duration

DEFAULT_WAIT_NS = 600_000_000_000
RESOLVES = ("always", "changed", "never")
_MARKS = {CREATE: "+", UPDATE: "~", KEEP: " ", REMOVE: "-"}


def _files(function: Any) -> Any:
    """Add the flags that say which files are meant."""
    for add in (
        flag("--profile", "list", "Switch on a profile", many=True),
        flag("--env-file", "list", "File of variables, instead of .env beside the first file", many=True),
        flag("--compose-file", "strings", "Compose file (- is standard input)", short="-c", many=True),
    ):
        function = add(function)
    return function


def _print_fit(client: Client, wanted: Stack, changes: list[Change]) -> None:
    """Say which services that would be made or changed do not find room for all their tasks."""
    touched = [change.name for change in changes if change.kind == "service" and change.action in (CREATE, UPDATE)]
    if not touched:
        return
    found = client.post("/shoal/services/fit", {"Services": [wanted.services[name] for name in touched]})
    lacking = [fit for fit in found if fit["Explanation"]]
    for fit in lacking:
        click.echo(f"! {fit['Name']}: {fit['Placed']} of {fit['Wanted']} tasks have a node: {fit['Explanation']}")
    if not lacking:
        click.echo("There is room for all tasks.")


def _print_plan(changes: list[Change]) -> None:
    for change in changes:
        what = {CREATE: "is made", UPDATE: "is updated", KEEP: "is kept", REMOVE: "is removed"}[change.action]
        if change.kind == "service" and change.action == UPDATE:
            what += ": its tasks are replaced" if change.replaces_tasks else ": its tasks are kept"
        click.echo(f"{_MARKS[change.action]} {change.kind} {change.name} {what}")
        for field in change.fields:
            click.echo(f"      {field}")
    counted = Counter(change.action for change in changes)
    click.echo(
        f"{counted[CREATE]} to make, {counted[UPDATE]} to update, {counted[KEEP]} to keep, {counted[REMOVE]} to remove"
    )


@command("deploy", "[OPTIONS] STACK", "Make or change a stack")
@_files
@flag("--detach", text="Do not wait until the services have converged (default)", short="-d")
@flag("--dry-run", text="Show what would change, and change nothing")
@flag("--prune", text="Remove the stack's services that the files do not have")
@flag("--quiet", text="Say nothing of each service while waiting", short="-q")
@flag("--resolve-image", "string", 'When a registry is asked for digests ("always", "changed", "never")')
@flag("--timeout", "duration", "The longest to wait for a service", parse=parse_positive_duration, default="10m")
@flag("--wait", text="Wait until the services have converged")
@flag("--with-registry-auth", text="Send the registry's credentials to the nodes")
@click.argument("name", metavar="STACK")
def deploy(name: str, **given: Any) -> None:
    """Bring the swarm to what the files say."""
    resolve = given["resolve_image"] or "always"
    if resolve not in RESOLVES:
        raise InvalidArgument(f'--resolve-image "{resolve}": use {", ".join(RESOLVES)}')
    wanted = load_stack(name, given["compose_file"], given["env_file"], given["profile"])
    client = connect()
    present = Present(client, wanted)
    changes = plan_deploy(present, wanted, prune=bool(given["prune"]))
    if given["dry_run"]:
        _print_plan(changes)
        _print_fit(client, wanted, changes)
        return
    logins = read_logins() if given["with_registry_auth"] else None
    touched = carry_out(present, wanted, changes, resolve=resolve, logins=logins)
    if given["wait"] or given["detach"] is False:
        _wait(client, touched, given["timeout"] or DEFAULT_WAIT_NS, quiet=bool(given["quiet"]))


def _wait(client: Client, service_ids: list[str], timeout_ns: int, *, quiet: bool) -> None:
    deadline = time.monotonic() + timeout_ns / 1e9

    def now() -> float:
        current = time.monotonic()
        if current > deadline:
            raise ShoalError(f"the stack has not converged within {timeout_ns / 1e9:g} s; it goes on in the background")
        return current

    for service_id in service_ids:
        wait_until_converged(client, service_id, quiet=quiet, now=now)


@command("plan", "[OPTIONS] STACK", "Show what a deploy would change")
@_files
@flag("--prune", text="As if services that the files do not have were removed")
@click.argument("name", metavar="STACK")
def plan(name: str, **given: Any) -> None:
    """Show a plan."""
    wanted = load_stack(name, given["compose_file"], given["env_file"], given["profile"])
    client = connect()
    changes = plan_deploy(Present(client, wanted), wanted, prune=bool(given["prune"]))
    _print_plan(changes)
    _print_fit(client, wanted, changes)


@command("config", "[OPTIONS]", "Show the files as one, variables filled in")
@_files
@flag("--skip-interpolation", text="Leave variables as they stand")
def config(skip_interpolation: bool | None, **given: Any) -> None:
    """Print the project; no daemon is asked."""
    project = load_project(
        given["compose_file"], given["env_file"], given["profile"], fills_in_variables=not skip_interpolation
    )
    for warning in project.warnings:
        click.echo(f"warning: {warning}", err=True)
    named = {"name": project.name} if project.name else {}
    click.echo(yaml.safe_dump(_plain({**named, **project.values}), sort_keys=True), nl=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value
