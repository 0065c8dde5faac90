"""The reference of all commands, made of the grammar: `scripts/reference` writes it, a test holds it to the grammar."""

from __future__ import annotations

from collections.abc import Iterator

import click

from shoal.cli.main import shoal

HEAD = """# Commands of `shoal`

Made by `scripts/reference`. What `docker` has works alike here; what only Shoal has is in
[extensions.md](extensions.md). The daemon is named by `-H`, else SHOAL_HOST, else DOCKER_HOST.
"""


def leaves() -> Iterator[tuple[click.Context, click.Command]]:
    """Yield every command that is no group, with its context."""

    def below(context: click.Context) -> Iterator[tuple[click.Context, click.Command]]:
        group = context.command
        assert isinstance(group, click.Group)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            inner = click.Context(command, info_name=name, parent=context, terminal_width=120)
            if isinstance(command, click.Group):
                yield from below(inner)
            else:
                yield inner, command

    yield from below(click.Context(shoal, info_name="shoal"))


def make_reference() -> str:
    """Return the page."""
    parts = [HEAD]
    for context, command in leaves():
        parts.append(f"\n## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    print(make_reference(), end="")
