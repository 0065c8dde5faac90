"""`shoal secret …` and `shoal config …`: small files that the swarm keeps and gives to containers."""

from __future__ import annotations

import base64
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.session import (
    Column,
    connect,
    filter_query,
    for_each,
    labels_text,
    print_inspected,
    print_list,
    print_pretty,
)
from shoal.errors import InvalidArgument
from shoal.language.texts import age_text, go_time_text
from shoal.language.values import parse_pair
from shoal.lib.units import parse_time_ns

_HERE = "shoal.cli.commands.payload"
NANO = 1_000_000_000
Json = Mapping[str, Any]


def _group(kind: str) -> LazyGroup:
    return LazyGroup(
        kind,
        lazy={
            "create": (f"{_HERE}:create_{kind}", f"Make a {kind} from a file or standard input"),
            "inspect": (f"{_HERE}:inspect_{kind}", f"Show all there is of {kind}s"),
            "ls": (f"{_HERE}:list_{kind}s", f"List {kind}s"),
            "rm": (f"{_HERE}:remove_{kind}", f"Remove {kind}s"),
            "update": (f"{_HERE}:update_{kind}", f"Give a {kind} other data; services that use it are rolled on to it"),
        },
        aliases={"list": "ls", "remove": "rm"},
        help=f"Work with {kind}s",
        context_settings={"help_option_names": ["--help"]},
    )


secret = _group("secret")
config = _group("config")


def _read(path: str) -> str:
    """Return a file's content, or that of standard input, in base 64."""
    if path == "-":
        return base64.b64encode(sys.stdin.buffer.read()).decode()
    try:
        return base64.b64encode(Path(path).read_bytes()).decode()
    except OSError as error:
        raise InvalidArgument(f"{path}: {error.strerror}") from None


def _lines(kind: str, item: Json) -> Iterator[str]:
    """Yield what `inspect --pretty` shows: Docker aligns a config by tabs and a secret by spaces."""
    spec = item["Spec"]
    gap, long_gap = ("\t\t\t", "            \t") if kind == "config" else (" " * 14, " " * 8)
    yield f"ID:{gap}{item['ID']}"
    yield f"Name:{gap}{spec['Name']}"
    if spec.get("Labels"):
        yield "Labels:"
        yield from (f" - {key}={value}" for key, value in sorted(spec["Labels"].items()))
    if kind == "secret":
        yield f"Driver:            {(spec.get('Driver') or {}).get('Name', '')}"
    yield f"Created at:{long_gap}{go_time_text(item['CreatedAt'])}"
    yield f"Updated at:{long_gap}{go_time_text(item['UpdatedAt'])}"
    if kind == "config":
        yield "Data:"
        yield base64.b64decode(spec.get("Data", "")).decode("utf-8", "replace")


def _create(kind: str, name: str, path: str | None, given: Mapping[str, Any]) -> None:
    body: dict[str, Any] = {"Name": name, "Labels": dict(given["label"])}
    driver = given.get("driver")
    if path is None and not driver:
        raise InvalidArgument(f"give the {kind}'s data: a file, or - for standard input")
    if path is not None:
        body["Data"] = _read(path)
    if driver:
        body["Driver"] = {"Name": driver}
    if given["template_driver"]:
        body["Templating"] = {"Name": given["template_driver"]}
    click.echo(connect().post(f"/{kind}s/create", body)["ID"])


def _update(kind: str, name: str, path: str) -> None:
    client = connect()
    found = client.get(f"/{kind}s/{name}")
    body = {**found["Spec"], "Data": _read(path)}
    client.post(f"/{kind}s/{found['ID']}/update", body, {"version": str(found["Version"]["Index"])})
    click.echo(name)


def _list(kind: str, conditions: tuple[str, ...], template: str | None, *, quiet: bool) -> None:
    found = sorted(connect().get(f"/{kind}s", filter_query(conditions)), key=lambda item: str(item["Spec"]["Name"]))
    if quiet and template is None:
        click.echo("".join(f"{item['ID']}\n" for item in found), nl=False)
        return
    now_ns = time.time_ns()

    def age(key: str, item: Json) -> str:
        return f"{age_text((now_ns - parse_time_ns(item[key])) / NANO)} ago"

    def driver(item: Json) -> str:
        return str((item["Spec"].get("Driver") or {}).get("Name", ""))

    shown = [
        Column("ID", "ID", lambda item: str(item["ID"])),
        Column("Name", "NAME", lambda item: str(item["Spec"]["Name"])),
        *([Column("Driver", "DRIVER", driver)] if kind == "secret" else []),
        Column("CreatedAt", "CREATED", lambda item: age("CreatedAt", item)),
        Column("UpdatedAt", "UPDATED", lambda item: age("UpdatedAt", item)),
        Column("Labels", "LABELS", lambda item: labels_text(item["Spec"].get("Labels")), shown=False),
    ]
    print_list(shown, found, template)


def _inspect(kind: str, names: tuple[str, ...], template: str | None, *, pretty: bool) -> None:
    if pretty and template:
        raise InvalidArgument("--format is incompatible with human friendly format")
    client = connect()

    def find(name: str) -> Any:
        return client.get(f"/{kind}s/{name}")

    if not pretty:
        print_inspected(names, find, template)
        return
    print_pretty(names, find, lambda item: _lines(kind, item))


def _remove(kind: str, names: tuple[str, ...]) -> None:
    client = connect()

    def act(name: str) -> None:
        client.delete(f"/{kind}s/{client.get(f'/{kind}s/{name}')['ID']}")

    for_each(names, act)


@command("create", "[OPTIONS] SECRET [file|-]", "Make a secret from a file or standard input")
@flag("--driver", "string", "Where it is kept, if not in the swarm", short="-d")
@flag("--label", "list", "Label", short="-l", parse=parse_pair, many=True)
@flag("--template-driver", "string", "What fills it in for each task: golang")
@click.argument("name", metavar="SECRET")
@click.argument("path", metavar="file|-", required=False)
def create_secret(name: str, path: str | None, **given: Any) -> None:
    """Make a secret and print its id."""
    _create("secret", name, path, given)


@command("create", "[OPTIONS] CONFIG file|-", "Make a config from a file or standard input")
@flag("--label", "list", "Label", short="-l", parse=parse_pair, many=True)
@flag("--template-driver", "string", "What fills it in for each task: golang")
@click.argument("name", metavar="CONFIG")
@click.argument("path", metavar="file|-")
def create_config(name: str, path: str, **given: Any) -> None:
    """Make a config and print its id."""
    _create("config", name, path, given)


@command("update", "SECRET file|-", "Give a secret other data; services that use it are rolled on to it")
@click.argument("name", metavar="SECRET")
@click.argument("path", metavar="file|-")
def update_secret(name: str, path: str) -> None:
    """Write a secret's data."""
    _update("secret", name, path)


@command("update", "CONFIG file|-", "Give a config other data; services that use it are rolled on to it")
@click.argument("name", metavar="CONFIG")
@click.argument("path", metavar="file|-")
def update_config(name: str, path: str) -> None:
    """Write a config's data."""
    _update("config", name, path)


@command("ls", "[OPTIONS]", "List secrets")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--quiet", text="Ids only", short="-q")
def list_secrets(filter: tuple[str, ...], format: str | None, quiet: bool | None) -> None:  # noqa: A002
    """List secrets by name."""
    _list("secret", filter, format, quiet=bool(quiet))


@command("ls", "[OPTIONS]", "List configs")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--quiet", text="Ids only", short="-q")
def list_configs(filter: tuple[str, ...], format: str | None, quiet: bool | None) -> None:  # noqa: A002
    """List configs by name."""
    _list("config", filter, format, quiet=bool(quiet))


@command("inspect", "[OPTIONS] SECRET [SECRET...]", "Show all there is of secrets, but for their data")
@flag("--format", "string", "json, or a template such as {{.Spec.Name}}", short="-f")
@flag("--pretty", text="In words for people")
@click.argument("names", metavar="SECRET", nargs=-1, required=True)
def inspect_secret(names: tuple[str, ...], format: str | None, pretty: bool | None) -> None:  # noqa: A002
    """Show secrets."""
    _inspect("secret", names, format, pretty=bool(pretty))


@command("inspect", "[OPTIONS] CONFIG [CONFIG...]", "Show all there is of configs")
@flag("--format", "string", "json, or a template such as {{.Spec.Name}}", short="-f")
@flag("--pretty", text="In words for people")
@click.argument("names", metavar="CONFIG", nargs=-1, required=True)
def inspect_config(names: tuple[str, ...], format: str | None, pretty: bool | None) -> None:  # noqa: A002
    """Show configs."""
    _inspect("config", names, format, pretty=bool(pretty))


@command("rm", "SECRET [SECRET...]", "Remove secrets")
@click.argument("names", metavar="SECRET", nargs=-1, required=True)
def remove_secret(names: tuple[str, ...]) -> None:
    """Remove secrets no service uses."""
    _remove("secret", names)


@command("rm", "CONFIG [CONFIG...]", "Remove configs")
@click.argument("names", metavar="CONFIG", nargs=-1, required=True)
def remove_config(names: tuple[str, ...]) -> None:
    """Remove configs no service uses."""
    _remove("config", names)
