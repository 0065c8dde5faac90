"""What commands that send a service's spec have in common: the image's digest, and what the daemon warns of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from shoal.client.connection import Client, RemoteError


def with_digest(client: Client, image: str, headers: Mapping[str, str] | None = None, *, quiet: bool = False) -> str:
    """Return an image with its digest, so that all nodes run the same; without a registry's answer as it is.

    Args:
        client: of the daemon, which asks the registry.
        image: as it was named.
        headers: carry credentials of its registry.
        quiet: say nothing where no registry answers.
    """
    if "@" in image:
        return image
    try:
        return f"{image}@{client.get(f'/distribution/{image}/json', None, headers)['Descriptor']['digest']}"
    except RemoteError as error:
        if not quiet:
            click.echo(
                f"image {image}: no digest from its registry, nodes may run different versions ({error.message})",
                err=True,
            )
        return image


def print_warnings(answer: Any) -> None:
    """Print what the daemon warns of in its answer."""
    for warning in (answer or {}).get("Warnings") or ():
        click.echo(warning, err=True)
