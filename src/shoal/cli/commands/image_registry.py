"""`shoal pull` and `push`: images from and to their registries, with what `docker login` has kept for these."""

from __future__ import annotations

import click

from shoal.cli.commands.image import DEFAULT_TAG, show_progress, split_reference
from shoal.cli.grammar import command, flag
from shoal.cli.registry_logins import read_logins
from shoal.cli.session import connect
from shoal.errors import InvalidArgument


@command("pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Get an image from a registry")
@flag("--platform", "string", "Platform of the image, such as linux/arm64")
@flag("--quiet", text="Show only the name", short="-q")
@click.argument("reference", metavar="NAME[:TAG|@DIGEST]")
def pull(reference: str, platform: str | None, quiet: bool | None) -> None:
    """Pull an image."""
    name, tag = split_reference(reference)
    query = {"fromImage": name, "tag": tag or DEFAULT_TAG, "platform": platform}
    headers = read_logins().headers(reference)
    if not tag and not quiet:
        click.echo(f"Using default tag: {DEFAULT_TAG}")
    with connect().stream("POST", "/images/create", query, None, headers) as response:
        show_progress(response, quiet=bool(quiet))
    if quiet:
        click.echo(reference)


@command("push", "[OPTIONS] NAME[:TAG]", "Send an image to its registry")
@flag("--all-tags", text="All tags of the name", short="-a")
@flag("--quiet", text="Show only the name", short="-q")
@click.argument("reference", metavar="NAME[:TAG]")
def push(reference: str, all_tags: bool | None, quiet: bool | None) -> None:
    """Push an image."""
    name, tag = split_reference(reference)
    if "@" in reference:
        raise InvalidArgument("cannot push a digest reference")
    if all_tags and tag:
        raise InvalidArgument("tag can't be used with --all-tags/-a")
    headers = read_logins().headers(name)
    if not (tag or all_tags or quiet):
        click.echo(f"Using default tag: {DEFAULT_TAG}")
    query = {"tag": None if all_tags else tag or DEFAULT_TAG}
    with connect().stream("POST", f"/images/{name}/push", query, None, headers) as response:
        show_progress(response, quiet=bool(quiet))
    if quiet:
        click.echo(reference)
