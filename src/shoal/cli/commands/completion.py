"""`shoal completion`: what a shell reads so that it completes commands, flags and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from shoal.cli.grammar import command
from shoal.errors import InvalidArgument

SHELLS = ("bash", "fish", "zsh")
VARIABLE = "_SHOAL_COMPLETE"


@command("completion", "SHELL", "Print what a shell reads to complete commands, flags and names")
@click.argument("shell", metavar="SHELL")
def completion(shell: str) -> None:
    """Print the script of a shell."""
    kind = get_completion_class(shell) if shell in SHELLS else None
    if kind is None:
        raise InvalidArgument(f'shell "{shell}": there are {", ".join(SHELLS)}')
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "shoal", VARIABLE).source())
