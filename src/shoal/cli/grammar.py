"""The grammar of the command line: Docker's help layout, flags and groups on click; commands are imported when used.

A flag is declared by a line of a table (`flag`), so that a command's flags read like the reference. A flag that is not
given is None, an empty tuple if it is a list: Docker sends nothing then. What most commands do not need is imported
where it is used, here and in `session`: a list is to appear at once (`bench/command_start.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from shoal.errors import ShoalError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_USAGE = 125  # as Docker has it for a wrong flag
EXIT_FAILED = 1
HELP_COLUMN_GAP = 3
NEGATION = "--not-"
# how click begins what it says of words too many
EXTRA_WORDS = "Got unexpected extra argument"
_TRUE = {"1", "t", "true"}
_FALSE = {"0", "f", "false"}

Parse = Callable[[str], Any]


class WrongWords(click.UsageError):
    """A command that is not there, or more words than a command takes."""


class Value(click.ParamType[Any]):
    """A value of one of the small languages: `parse` raises ValueError or ShoalError with what is wrong.

    `allowed`: the words it can be, empty if they are not few.
    """

    def __init__(self, name: str, parse: Parse) -> None:
        self.name = name
        self.allowed: tuple[str, ...] = parse.allowed if isinstance(parse, OneOf) else ()
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a text."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (ValueError, ShoalError) as error:
            flag = max(param.opts, key=len) if param is not None else self.name
            raise click.UsageError(f'invalid argument "{value}" for "{flag}" flag: {error}', ctx) from None


class OneOf:
    """Parses one of a few words; the shell offers them."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed

    def __call__(self, text: str) -> str:
        """Return `text`; raises ValueError for another word."""
        if text not in self.allowed:
            raise ValueError(f"use one of {', '.join(self.allowed)}")
        return text


def flag(
    name: str,
    word: str = "",
    text: str = "",
    *,
    short: str = "",
    parse: Parse | None = None,
    many: bool = False,
    default: str = "",
) -> Callable[[Any], Any]:
    """Return a decorator that adds a flag.

    Args:
        name: with its dashes, `--replicas`.
        word: the type shown in help; empty for a switch, which also takes `=true` and `=false`.
        text: help.
        short: a letter with its dash.
        parse: turns the text into the value; None keeps text.
        many: may be given several times.
        default: shown in help only: a flag that is not given is None.
    """
    shown = f"{text} (default {default})" if default else text
    names = [name, *([short] if short else [])]
    if not word:
        declaration = f"{name}/{NEGATION}{name.removeprefix('--')}"
        extra = [short] if short else []
        return click.option(declaration, *extra, default=None, help=shown)
    kind = Value(word, parse or (check_filter if word == "filter" else str))
    return click.option(*names, type=kind, metavar=word, multiple=many, help=shown)


def check_filter(text: str) -> str:
    """Return a condition as it was given. Raises ValueError: it is none."""
    from shoal.language.values import parse_filters

    parse_filters([text])
    return text


def flags(*added: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a decorator that adds several flags."""

    def add(function: Any) -> Any:
        for one in reversed(added):
            function = one(function)
        return function

    return add


class DockerCommand(click.Command):
    """A command with Docker's help layout; `usage` is the line after the command's name."""

    def __init__(self, *arguments: Any, usage: str = "", **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.usage = usage

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take flags and arguments apart."""
        rewritten = self._rewrite_switches(ctx, args)
        try:
            return super().parse_args(ctx, rewritten)
        except click.MissingParameter as error:
            if not isinstance(error.param, click.Argument):
                raise
        except click.UsageError as error:
            if type(error) is not click.UsageError or not error.message.startswith(EXTRA_WORDS):
                raise
        said = f"'{ctx.command_path}' {self._words_text()}"
        raise WrongWords(f"{said}\n\nUsage:  {ctx.command_path} {self.usage}".rstrip() + "\n", ctx)

    def _words_text(self) -> str:
        """Say how many words there may be."""
        words = [param for param in self.params if isinstance(param, click.Argument)]
        least = sum(word.required for word in words)
        most = None if any(word.nargs < 0 for word in words) else len(words)
        if most == 0:
            return "accepts no arguments"
        if most is None:
            return f"requires at least {least} argument{'' if least == 1 else 's'}"
        span = str(most) if least == most else f"{least} to {most}" if least else f"at most {most}"
        return f"requires {span} argument{'' if most == 1 else 's'}"

    def _rewrite_switches(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Turn `--detach=false` into what click understands."""
        switches = {
            opt for param in self.params if isinstance(param, click.Option) and param.is_flag for opt in param.opts
        }
        written: list[str] = []
        for position, arg in enumerate(args):
            if arg == "--" or (not ctx.allow_interspersed_args and _is_first_argument(self, args, position)):
                return [*written, *args[position:]]
            name, found, value = arg.partition("=")
            if not found or name not in switches:
                written.append(arg)
            elif value.lower() in _TRUE:
                written.append(name)
            elif value.lower() in _FALSE:
                written.append(NEGATION + name.removeprefix("--"))
            else:
                raise click.UsageError(f'invalid argument "{value}" for "{name}" flag: use true or false', ctx)
        return written

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write help in Docker's layout."""
        from shoal.cli.examples import EXAMPLES

        formatter.write(f"Usage:  {ctx.command_path} {self.usage}".rstrip() + f"\n\n{self.help or ''}\n")
        _write_aliases(ctx, formatter)
        _write_options(self, formatter)
        if example := EXAMPLES.get(ctx.command_path.partition(" ")[2]):
            formatter.write(f"\nExample:\n  {example}\n")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what the shell may offer: flags, but not the hidden negations of switches."""
        return [item for item in super().shell_complete(ctx, incomplete) if not item.value.startswith(NEGATION)]

    def make_context(self, *arguments: Any, **keywords: Any) -> click.Context:
        """Begin to read a command line; names are looked up only when the shell asks what there is."""
        if keywords.get("resilient_parsing"):
            from shoal.cli.completion import add_offers

            add_offers(self)
        return super().make_context(*arguments, **keywords)


def _is_first_argument(command: click.Command, args: list[str], position: int) -> bool:
    """Whether no flag claims the word at `position`: there the flags of the command end."""
    if args[position].startswith("-") and args[position] != "-":
        return False
    before = args[position - 1] if position else ""
    if not before.startswith("-") or "=" in before:
        return True
    takers = [
        opt
        for param in command.params
        if isinstance(param, click.Option) and not param.is_flag and not param.count
        for opt in param.opts
    ]
    if before.startswith("--"):
        return before not in takers
    return f"-{before[-1]}" not in takers


def _write_aliases(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    parent = ctx.parent.command if ctx.parent is not None else None
    if isinstance(parent, LazyGroup):
        names = [alias for alias, name in parent.aliases.items() if name == ctx.info_name]
        if names:
            path = ctx.parent.command_path if ctx.parent is not None else ""
            formatter.write(f"\nAliases:\n  {', '.join(f'{path} {name}' for name in (ctx.info_name or '', *names))}\n")


def _write_options(command: click.Command, formatter: click.HelpFormatter) -> None:
    rows = []
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            long = max(param.opts, key=len)
            short = next((opt for opt in param.opts if not opt.startswith("--")), "")
            left = f"{short}, " if short else "    "
            word = "" if param.is_flag else f" {param.metavar or param.type.name}"
            rows.append((long, f"  {left}{long}{word}", param.help or ""))
    if rows:
        formatter.write("\nOptions:\n")
        width = max(len(left) for _, left, _ in rows) + HELP_COLUMN_GAP
        for _, left, text in sorted(rows):
            formatter.write(f"{left.ljust(width)}{text}\n".rstrip() + "\n")


class LazyGroup(click.Group):
    """A group whose commands are named by module and attribute, and imported when one is called.

    Args:
        lazy: name → ("module:attribute", one line of help).
        aliases: other name → name.
    """

    def __init__(
        self,
        *arguments: Any,
        lazy: dict[str, tuple[str, str]],
        aliases: dict[str, str] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        self._lazy = lazy
        self.aliases = aliases or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        del ctx
        return sorted(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        del ctx
        name = self.aliases.get(cmd_name, cmd_name)
        if name not in self._lazy:
            return None
        module, _, attribute = self._lazy[name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), "the table names commands"
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; raises click.UsageError with a suggestion."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            import difflib

            near = difflib.get_close_matches(name, [*self._lazy, *self.aliases])
            hint = f" Did you mean {near[0]}?" if near else ""
            raise WrongWords(f"unknown command: {ctx.command_path} {name}.{hint}", ctx)
        return self.aliases.get(name, name), command, args[1:]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what the shell may offer, without importing the commands."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=self._lazy[name][1]) for name in names]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write help in Docker's layout."""
        words = "COMMAND" if ctx.parent is not None else "[OPTIONS] COMMAND"
        formatter.write(f"Usage:  {ctx.command_path} {words}\n\n{self.help or ''}\n\nCommands:\n")
        width = max(len(name) for name in self._lazy) + HELP_COLUMN_GAP
        for name in self.list_commands(ctx):
            formatter.write(f"  {name.ljust(width)}{self._lazy[name][1]}\n")
        _write_options(self, formatter)
        formatter.write(f"\nRun '{ctx.command_path} COMMAND --help' for more information on a command.\n")


def command(name: str, usage: str, text: str, *, flags_end_at_argument: bool = False) -> Callable[[Any], DockerCommand]:
    """Return a decorator that makes a command.

    Args:
        name: its name.
        usage: what follows the name in the usage line.
        text: help.
        flags_end_at_argument: what follows the first argument is not ours, as the command of a container.
    """
    settings = {"help_option_names": ["--help"], "allow_interspersed_args": not flags_end_at_argument}
    return click.command(name, cls=DockerCommand, usage=usage, help=text, context_settings=settings)
