"""`shoal service create` and `update`: flags that become a spec, and waiting until it is so."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from shoal.cli.converge import wait_until_converged
from shoal.cli.grammar import command
from shoal.cli.service_flags import CREATE, UPDATE
from shoal.cli.service_references import set_references
from shoal.cli.service_sending import print_warnings, with_digest
from shoal.cli.service_spec import change_spec, is_given, make_spec
from shoal.cli.session import connect
from shoal.client.connection import Client
from shoal.errors import InvalidArgument, NotBuilt


def _refuse_credentials(given: Mapping[str, Any]) -> None:
    if given.get("with_registry_auth"):
        raise NotBuilt(
            "--with-registry-auth: shoal keeps no credentials of registries yet; use the docker command for it"
        )


@command("create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Make a service", flags_end_at_argument=True)
@CREATE
@click.argument("image", metavar="IMAGE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def create(image: str, arguments: tuple[str, ...], **given: Any) -> None:
    """Make a service and wait for it."""
    _refuse_credentials(given)
    given["env"] = (*_read_env_files(given.pop("env_file")), *given["env"])
    spec = make_spec(given, image, arguments, os.environ)
    client = connect()
    set_references(spec, given, client.get)
    if not given["no_resolve_image"]:
        _resolve_image(client, spec, quiet=bool(given["quiet"]))
    made = client.post("/services/create", spec)
    print_warnings(made)
    click.echo(made["ID"])
    if not given["detach"]:
        wait_until_converged(client, made["ID"], quiet=bool(given["quiet"]))


def _read_env_files(paths: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for path in paths:
        try:
            content = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"--env-file {path}: {error}") from None
        stripped = (line.lstrip() for line in content.splitlines())
        lines += [line for line in stripped if line and not line.startswith("#")]
    return lines


def _resolve_image(client: Client, spec: dict[str, Any], *, quiet: bool) -> None:
    container = spec["TaskTemplate"]["ContainerSpec"]
    container["Image"] = with_digest(client, container["Image"], quiet=quiet)


@command("update", "[OPTIONS] SERVICE", "Change a service")
@UPDATE
@click.argument("name", metavar="SERVICE")
def update(name: str, **given: Any) -> None:
    """Change a service and wait for it."""
    _refuse_credentials(given)
    client = connect()
    found = client.get(f"/services/{name}")
    query: dict[str, str | int] = {"version": found["Version"]["Index"]}
    if given["rollback"]:
        others = [key for key, value in given.items() if is_given(value) and key not in ("rollback", "detach", "quiet")]
        if others:
            raise InvalidArgument(f"other flags may not be combined with --rollback: --{others[0].replace('_', '-')}")
        spec, query = found["Spec"], {**query, "rollback": "previous"}
    else:
        spec = change_spec(found["Spec"], given, os.environ)
        set_references(spec, given, client.get)
        if given["image"] and not given["no_resolve_image"]:
            _resolve_image(client, spec, quiet=bool(given["quiet"]))
    print_warnings(client.post(f"/services/{found['ID']}/update", spec, query))
    click.echo(name)
    if not given["detach"]:
        wait_until_converged(client, found["ID"], quiet=bool(given["quiet"]))
