"""`shoal lab …`: a whole swarm on this machine, and what can befall it."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.screen import terminal_width
from shoal.errors import InvalidArgument, ShoalError
from shoal.lab.lab import DEFAULT_SCRATCH, Lab, take_down
from shoal.lab.plan import DEFAULT_NAME, Way
from shoal.language.tables import table_text
from shoal.language.values import parse_uint

_HERE = "shoal.cli.commands.lab"
LAB_VARIABLE = "SHOAL_LAB"
HEADS = ("NODE", "ROLE", "ADDRESS", "DAEMON", "SWARM", "STATUS", "MANAGER STATUS", "NETWORK")

lab = LazyGroup(
    "lab",
    lazy={
        "add-manager": (f"{_HERE}:add_manager", "Add a manager"),
        "add-worker": (f"{_HERE}:add_worker", "Add a worker"),
        "down": (f"{_HERE}:down", "Take the lab away, with all its data"),
        "env": (f"{_HERE}:env", "Print what points docker at a node, for eval"),
        "exec": (f"{_HERE}:execute", "Run a command on a node"),
        "freeze": (f"{_HERE}:freeze", "Stop a node's shoald where it is (SIGSTOP)"),
        "heal": (f"{_HERE}:heal", "Let nodes hear each other again"),
        "kill": (f"{_HERE}:kill", "Cut the power of a node, or kill its shoald only"),
        "logs": (f"{_HERE}:logs", "Show the log of a node's shoald"),
        "partition": (f"{_HERE}:partition", "Keep a node from hearing others and being heard"),
        "remove": (f"{_HERE}:remove", "Take a node out of the swarm and away"),
        "start": (f"{_HERE}:start", "Start a node, or its shoald"),
        "status": (f"{_HERE}:status", "Show the nodes and what is the matter with them"),
        "stop": (f"{_HERE}:stop", "Stop a node's shoald in good order (SIGTERM)"),
        "thaw": (f"{_HERE}:thaw", "Let a frozen shoald go on (SIGCONT)"),
        "up": (f"{_HERE}:up", "Make a lab, or complete and grow the one that is there"),
    },
    aliases={"ls": "status", "rm": "remove"},
    help="Run a whole swarm on this machine: a network namespace, a host name and a shoald for each node",
    context_settings={"help_option_names": ["--help"]},
)


def _lab_command(
    name: str, usage: str, text: str, *, flags_end_at_argument: bool = False
) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a command of this group: needs root, takes `--name`."""

    def make(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def checked(name: str | None, **given: Any) -> None:
            if os.geteuid() != 0:
                raise ShoalError("shoal lab needs root: it makes network namespaces; try it with sudo")
            function(name or os.environ.get(LAB_VARIABLE) or DEFAULT_NAME, **given)

        named = flag("--name", "string", f"Which lab ({LAB_VARIABLE} says it, too)", default=f'"{DEFAULT_NAME}"')
        return command(name, usage, text, flags_end_at_argument=flags_end_at_argument)(named(checked))

    return make


_NODE = click.argument("node", metavar="NODE")


@_lab_command("up", "[OPTIONS]", "Make a lab, or complete and grow the one that is there")
@flag("--managers", "uint", "How many managers (default 3, in a lab that is there: as many)", parse=parse_uint)
@flag("--workers", "uint", "How many workers (default 2, in a lab that is there: as many)", parse=parse_uint)
@flag("--scratch", "directory", "Where its data lies", parse=Path, default=f"{DEFAULT_SCRATCH}/shoal-lab-NAME")
def up(name: str, managers: int | None, workers: int | None, scratch: Path | None) -> None:
    """Make a lab and show it."""
    begun = time.monotonic()
    made = Lab.up(managers=managers, workers=workers, name=name, scratch=scratch)
    seconds = time.monotonic() - begun
    _print_status(made)
    first = made.nodes[0].name
    option = "" if name == DEFAULT_NAME else f" --name {name}"
    click.echo(
        f'\nLab "{name}" is up after {seconds:.1f} s. Point docker at it: eval "$(shoal lab env{option} {first})"'
    )


@_lab_command("status", "[OPTIONS]", "Show the nodes and what is the matter with them")
def status(name: str) -> None:
    """Show a lab."""
    _print_status(Lab(name))


def _print_status(of: Lab) -> None:
    rows = [
        [row.name, row.role, row.address, row.daemon, row.swarm, row.status, row.manager, row.network]
        for row in of.status()
    ]
    click.echo(table_text([list(HEADS), *rows], terminal_width()), nl=False)


@_lab_command("env", "[OPTIONS] NODE", "Print what points docker at a node, for eval")
@flag("--unset", text="Print what takes it back")
@click.argument("node", metavar="NODE", required=False)
def env(name: str, node: str | None, unset: bool | None) -> None:
    """Print lines for a POSIX shell."""
    if unset:
        click.echo(f"unset DOCKER_HOST {LAB_VARIABLE}")
        click.echo('if [ -n "${SHOAL_LAB_PS1+set}" ]; then PS1=$SHOAL_LAB_PS1; unset SHOAL_LAB_PS1; fi')
        return
    if node is None:
        raise InvalidArgument("NODE is missing: shoal lab env m1 (or --unset)")
    chosen = Lab(name).node(node)
    click.echo(f"export DOCKER_HOST={shlex.quote(chosen.host)}")
    click.echo(f"export {LAB_VARIABLE}={shlex.quote(name)}")
    click.echo(f'if [ -n "${{PS1-}}" ]; then : "${{SHOAL_LAB_PS1=$PS1}}"; PS1="({node}) $SHOAL_LAB_PS1"; fi')


@_lab_command("kill", "[OPTIONS] NODE", "Cut the power of a node: all that runs on it ends, its disk stays")
@flag("--daemon", text="Kill shoald only (SIGKILL); its containers go on")
@_NODE
def kill(name: str, node: str, daemon: bool | None) -> None:
    """Kill a host or a daemon."""
    chosen = Lab(name).node(node)
    if daemon:
        chosen.kill_daemon()
    else:
        chosen.kill()
    click.echo(node)


@_lab_command("stop", "[OPTIONS] NODE", "Stop a node's shoald in good order (SIGTERM); containers go on")
@_NODE
def stop(name: str, node: str) -> None:
    """Stop a daemon."""
    Lab(name).node(node).stop()
    click.echo(node)


@_lab_command("start", "[OPTIONS] NODE", "Start a node whose power was cut, or a shoald that was stopped")
@_NODE
def start(name: str, node: str) -> None:
    """Start a node."""
    Lab(name).node(node).start()
    click.echo(node)


@_lab_command(
    "freeze", "[OPTIONS] NODE", "Stop a node's shoald where it is (SIGSTOP): connections stay open, nothing is answered"
)
@_NODE
def freeze(name: str, node: str) -> None:
    """Freeze a daemon."""
    Lab(name).node(node).freeze()
    click.echo(node)


@_lab_command("thaw", "[OPTIONS] NODE", "Let a frozen shoald go on (SIGCONT)")
@_NODE
def thaw(name: str, node: str) -> None:
    """Let a daemon go on."""
    Lab(name).node(node).thaw()
    click.echo(node)


def _parse_way(text: str) -> Way:
    if text == "in":
        return "in"
    if text == "out":
        return "out"
    raise ValueError("use in (the node hears nothing) or out (the node is not heard)")


@_lab_command("partition", "[OPTIONS] NODE", "Keep a node from hearing others and being heard; its link stays up")
@flag("--one-way", "string", 'Only what comes "in" to the node, or goes "out" of it', parse=_parse_way)
@flag("--from", "node", "Only from this node (default all)", many=True)
@_NODE
def partition(name: str, node: str, one_way: Way | None, **given: Any) -> None:
    """Part a node from others."""
    Lab(name).partition(node, one_way=one_way, others=given["from"])
    click.echo(node)


@_lab_command("heal", "[OPTIONS] [NODE]", "Take back the partitions of a node, or all")
@click.argument("node", metavar="NODE", required=False)
def heal(name: str, node: str | None) -> None:
    """Undo partitions."""
    Lab(name).heal(node)


@_lab_command(
    "exec",
    "[OPTIONS] NODE [--] COMMAND [ARG...]",
    "Run a command on a node: in its network, with its host name and its DOCKER_HOST",
    flags_end_at_argument=True,
)
@_NODE
@click.argument("words", metavar="COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(name: str, node: str, words: tuple[str, ...]) -> None:
    """Become a command on a node."""
    chosen = Lab(name).node(node)
    given = words[1:] if words[0] == "--" else words
    if not given:
        raise InvalidArgument("COMMAND is missing: shoal lab exec w1 -- docker ps")
    line = chosen.command_line(*given)
    os.execvpe(line[0], line, chosen.command_environment())  # noqa: S606


@_lab_command("logs", "[OPTIONS] NODE", "Show the log of a node's shoald")
@flag("--follow", text="Go on with what is logged from now on", short="-f")
@flag("--tail", "uint", "Only so many lines of the end", short="-n", parse=parse_uint)
@_NODE
def logs(name: str, node: str, follow: bool | None, tail: int | None) -> None:
    """Show a log."""
    path = Lab(name).node(node).log_path
    if not path.exists():
        raise ShoalError(f"{node} has logged nothing yet")
    lines = f"-n{tail}" if tail is not None else "-n+1"
    os.execvp("tail", ["tail", lines, *(["-F"] if follow else []), "--", str(path)])  # noqa: S606


@_lab_command("add-worker", "[OPTIONS]", "Add a worker; prints its name")
def add_worker(name: str) -> None:
    """Add a worker."""
    click.echo(Lab(name).add_worker().name)


@_lab_command("add-manager", "[OPTIONS]", "Add a manager; prints its name")
def add_manager(name: str) -> None:
    """Add a manager."""
    click.echo(Lab(name).add_manager().name)


@_lab_command(
    "remove",
    "[OPTIONS] NODE",
    "Take a node out of the swarm (demoted first, if it is a manager), then away with its data",
)
@_NODE
def remove(name: str, node: str) -> None:
    """Remove a node."""
    Lab(name).remove(node)
    click.echo(node)


@_lab_command(
    "down", "[OPTIONS]", "Take the lab away: its processes, mounts, namespaces and data; also after an `up` that failed"
)
def down(name: str) -> None:
    """Take a lab away."""
    click.echo(f'Lab "{name}" is gone.' if take_down(name) else f'There was no lab "{name}".')
