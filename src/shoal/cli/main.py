"""`shoal`: the command a person types. Finds and imports the sub-command; turns errors into words and exit codes."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from shoal import __version__
from shoal.cli.commands.catalogue import TOP
from shoal.cli.grammar import EXIT_FAILED, EXIT_USAGE, NEGATION, LazyGroup, WrongWords
from shoal.errors import ShoalError

EXIT_INTERRUPTED = 130

COMMANDS: dict[str, tuple[str, str]] = {
    "swarm": ("shoal.cli.commands.swarm:swarm", "Make, join, change and leave a swarm"),
    "node": ("shoal.cli.commands.node:node", "Work with the nodes of the swarm"),
    "service": ("shoal.cli.commands.service:service", "Work with services"),
    "network": ("shoal.cli.commands.network:network", "Work with networks"),
    "secret": ("shoal.cli.commands.payload:secret", "Work with secrets"),
    "config": ("shoal.cli.commands.payload:config", "Work with configs"),
    "volume": ("shoal.cli.commands.volume:volume", "Work with the volumes of this node"),
    "stack": ("shoal.cli.commands.stack:stack", "Work with stacks: Compose files on the swarm"),
    "lab": ("shoal.cli.commands.lab:lab", "Run a whole swarm on this machine"),
    "doctor": ("shoal.cli.commands.doctor:doctor", "Find what is wrong with this node and its ways to the others"),
    "completion": ("shoal.cli.commands.completion:completion", "Print what a shell reads to complete commands"),
    "info": ("shoal.cli.commands.system:info", "Show what the daemon says of itself and its swarm"),
    "version": ("shoal.cli.commands.system:version", "Show the versions of command and daemon"),
    "container": ("shoal.cli.commands.container:container", "Work with containers"),
    "image": ("shoal.cli.commands.image:image", "Work with the images of this node"),
    "system": ("shoal.cli.commands.system:system", "Work with the daemon"),
    "events": ("shoal.cli.commands.events:events", "Show what happens"),
    "inspect": ("shoal.cli.commands.inspect:inspect", "Show objects whole"),
    **TOP,
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["--help"]},
    help="Run a swarm of containers: what docker does with a swarm, by Shoal's own command.",
)
@click.option("-H", "--host", metavar="string", help="The daemon: unix:///path, tcp://address:port or ssh://user@host")
@click.option("--tls", is_flag=True, default=None, help="Speak TLS; who answers is not verified")
@click.option("--tlsverify", is_flag=True, default=None, help="Speak TLS, and verify who answers")
@click.option("--tlscacert", metavar="string", help="The daemon's authority (default ~/.docker/ca.pem)")
@click.option("--tlscert", metavar="string", help="Our certificate (default ~/.docker/cert.pem)")
@click.option("--tlskey", metavar="string", help="Its key (default ~/.docker/key.pem)")
@click.version_option(__version__, "-v", "--version", prog_name="shoal")
def shoal(**given: object) -> None:
    """Take the flags that stand before the command: `session.connect` looks at them."""
    del given


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command line and exit: 0 done, 1 refused or failed, 125 a flag not understood, 130 interrupted."""
    try:
        shoal.main(args=arguments, prog_name="shoal", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        # a group by itself shows what it has, as docker's do
        click.echo(error.format_message(), err=True)
    except click.UsageError as error:
        click.echo(_usage_text(error), err=True)
        # docker's codes: a flag that is not understood is another matter than a word too few or too many
        sys.exit(EXIT_FAILED if isinstance(error, WrongWords) else EXIT_USAGE)
    except click.ClickException as error:
        click.echo(error.format_message(), err=True)
        sys.exit(EXIT_FAILED)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except ShoalError as error:
        click.echo(_error_text(error), err=True)
        sys.exit(EXIT_FAILED)
    except BrokenPipeError:
        # who read our output has enough, as `head` does
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
    sys.exit(0)


def _error_text(error: ShoalError) -> str:
    from shoal.cli.screen import RED, paint
    from shoal.client.connection import REFUSAL, RemoteError

    text = error.text if isinstance(error, RemoteError) else error.message
    # of several things each may have been refused
    return text.replace(REFUSAL, paint(REFUSAL, RED, sys.stderr))


def _usage_text(error: click.UsageError) -> str:
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        import difflib

        # click knows the hidden negations of switches, too
        known = [name for name in error.possibilities or () if not name.startswith(NEGATION)]
        near = difflib.get_close_matches(error.option_name, known, n=1)
        message = f"unknown flag: {error.option_name}.{f' Did you mean {near[0]}?' if near else ''}"
    path = error.ctx.command_path if error.ctx is not None else "shoal"
    return f"{message}\nSee '{path} --help'."


if __name__ == "__main__":
    main()
