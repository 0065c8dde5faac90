"""`shoal service scale`."""

from __future__ import annotations

import click

from shoal.cli.converge import wait_until_converged
from shoal.cli.grammar import command, flag
from shoal.cli.service_sending import print_warnings
from shoal.cli.session import connect, fail_with
from shoal.client.connection import Client, RemoteError
from shoal.errors import InvalidArgument
from shoal.language.values import parse_scale


@command("scale", "SERVICE=REPLICAS [SERVICE=REPLICAS...]", "Change the number of tasks of services")
@flag("--detach", text="Do not wait until the services have converged", short="-d")
@click.argument("scales", metavar="SERVICE=REPLICAS", nargs=-1, required=True)
def scale(scales: tuple[str, ...], detach: bool | None) -> None:
    """Scale; a service that cannot be is told after the others."""
    try:
        wanted = [parse_scale(text) for text in scales]
    except ValueError as error:
        raise InvalidArgument(str(error)) from None
    client = connect()
    scaled, errors = [], []
    for name, count in wanted:
        try:
            scaled.append(_scale_one(client, name, count))
        except RemoteError as error:
            errors.append(f"{name}: {error.text}")
        except InvalidArgument as error:
            errors.append(f"{name}: {error.message}")
        else:
            click.echo(f"{name} scaled to {count}")
    if not detach:
        for service_id in scaled:
            wait_until_converged(client, service_id, quiet=False)
    fail_with(errors)


def _scale_one(client: Client, name: str, count: int) -> str:
    found = client.get(f"/services/{name}")
    mode = found["Spec"]["Mode"]
    if "Replicated" in mode:
        mode["Replicated"]["Replicas"] = count
    elif "ReplicatedJob" in mode:
        mode["ReplicatedJob"]["TotalCompletions"] = count
    else:
        raise InvalidArgument("scale can only be used with replicated or replicated-job mode")
    print_warnings(
        client.post(f"/services/{found['ID']}/update", found["Spec"], {"version": found["Version"]["Index"]})
    )
    return str(found["ID"])
