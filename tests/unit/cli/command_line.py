"""Reads a command line as `shoal service create|update` do, without running it."""

from typing import Any

import click

from shoal.cli.commands.service_change import create, update


def flags_of(name: str, *words: str) -> tuple[dict[str, Any], str, tuple[str, ...]]:
    """Return flags, first argument and the rest."""
    command: click.Command = {"create": create, "update": update}[name]
    given = dict(command.make_context(name, list(words)).params)
    first = given.pop("image") if name == "create" else given.pop("name")
    return given, first, given.pop("arguments", ())
