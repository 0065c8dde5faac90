"""`shoal service create` and `update`: flags that become a spec, and waiting until it is so."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from shoal.cli.converge import wait_until_converged
from shoal.cli.grammar import command
from shoal.cli.registry_logins import read_logins
from shoal.cli.service_flags import CREATE, UPDATE
from shoal.cli.service_references import set_references
from shoal.cli.service_sending import print_warnings, with_digest
from shoal.cli.service_spec import change_spec, is_given, make_spec
from shoal.cli.session import connect
from shoal.client.connection import Client
from shoal.errors import InvalidArgument


def _credentials(given: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the header that sends the nodes what `docker login` has kept for the image's registry, if it is to."""
    if not given["with_registry_auth"]:
        return {}
    return read_logins().headers(spec["TaskTemplate"]["ContainerSpec"]["Image"])


@command("create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Make a service", flags_end_at_argument=True)
@CREATE
@click.argument("image", metavar="IMAGE")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def create(image: str, arguments: tuple[str, ...], **given: Any) -> None:
    """Make a service and wait for it."""
    given["env"] = (*_read_env_files(given.pop("env_file")), *given["env"])
    spec = make_spec(given, image, arguments, os.environ)
    headers = _credentials(given, spec)
    client = connect()
    set_references(spec, given, client.get)
    if not given["no_resolve_image"]:
        _resolve_image(client, spec, headers, quiet=bool(given["quiet"]))
    made = client.post("/services/create", spec, headers=headers)
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


def _resolve_image(client: Client, spec: dict[str, Any], headers: Mapping[str, str], *, quiet: bool) -> None:
    container = spec["TaskTemplate"]["ContainerSpec"]
    container["Image"] = with_digest(client, container["Image"], headers, quiet=quiet)


@command("update", "[OPTIONS] SERVICE", "Change a service")
@UPDATE
@click.argument("name", metavar="SERVICE")
def update(name: str, **given: Any) -> None:
    """Change a service and wait for it."""
    client = connect()
    found = client.get(f"/services/{name}")
    query: dict[str, str | int] = {"version": found["Version"]["Index"]}
    headers: dict[str, str] = {}
    if given["rollback"]:
        others = [key for key, value in given.items() if is_given(value) and key not in ("rollback", "detach", "quiet")]
        if others:
            raise InvalidArgument(f"other flags may not be combined with --rollback: --{others[0].replace('_', '-')}")
        spec, query = found["Spec"], {**query, "rollback": "previous"}
    else:
        spec = change_spec(found["Spec"], given, os.environ)
        # of the image as it will be, be it the old one; without the flag nodes keep what they were sent
        headers = _credentials(given, spec)
        if not headers:
            query["registryAuthFrom"] = "spec"
        set_references(spec, given, client.get)
        if given["image"] and not given["no_resolve_image"]:
            _resolve_image(client, spec, headers, quiet=bool(given["quiet"]))
    print_warnings(client.post(f"/services/{found['ID']}/update", spec, query, headers))
    click.echo(name)
    if not given["detach"]:
        wait_until_converged(client, found["ID"], quiet=bool(given["quiet"]))
