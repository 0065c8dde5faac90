"""`shoald`: reads flags, checks the machine, runs one node until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import click

from shoal import __version__
from shoal.daemon.prerequisites import find_missing
from shoal.daemon.settings import DEFAULT_DATA_ROOT, DEFAULT_EXEC_ROOT, LOG_LEVELS, Settings, read_file
from shoal.errors import NotBuilt, ShoalError
from shoal.model.base import replace

EXIT_FAILED = 1
# A generation's threshold high enough that frozen objects, which make no cycles, do not set collections off.
COLLECTION_THRESHOLDS = (50_000, 20, 50)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config-file", type=click.Path(path_type=Path), help="Settings as JSON; flags win over it.")
@click.option("--data-root", type=click.Path(path_type=Path), help=f"What survives a reboot [{DEFAULT_DATA_ROOT}].")
@click.option("--exec-root", type=click.Path(path_type=Path), help=f"Sockets and mounts [{DEFAULT_EXEC_ROOT}].")
@click.option("--image-root", type=click.Path(path_type=Path), help="Images; daemons may share it [DATA/images].")
@click.option("-H", "--host", "hosts", multiple=True, help="Where to serve the API: unix:///path, tcp://ip:port.")
@click.option("-p", "--pidfile", type=click.Path(path_type=Path), help="Write the process id there.")
@click.option("--label", "labels", multiple=True, help="KEY=VALUE label of this engine.")
@click.option("--node-generic-resource", "generic_resources", multiple=True, help="KIND=N or KIND=NAME.")
@click.option("--insecure-registry", "insecure_registries", multiple=True, help="Registry that speaks plain HTTP.")
@click.option("-G", "--group", help="Group of the unix socket.")
@click.option(
    "--wireguard-port", type=click.IntRange(1, 65_535), help="UDP port of encrypted networks [51820]; nodes may differ."
)
@click.option("--tls", is_flag=True, default=None, help="Serve tcp:// hosts by TLS; implied by --tlsverify.")
@click.option(
    "--tlsverify", "tls_verify", is_flag=True, default=None, help="By TLS, only to clients with a certificate."
)
@click.option(
    "--tlscacert", "tls_ca_certificate", type=click.Path(path_type=Path), help="Who signed the clients' ones."
)
@click.option("--tlscert", "tls_certificate", type=click.Path(path_type=Path), help="The daemon's certificate, PEM.")
@click.option("--tlskey", "tls_key", type=click.Path(path_type=Path), help="Its key, PEM.")
@click.option("--metrics-addr", help="Not built: metrics are at /metrics of the API.")
@click.option("-l", "--log-level", type=click.Choice(LOG_LEVELS), help="How much to log [info].")
@click.option("-D", "--debug", is_flag=True, help="The same as --log-level debug.")
@click.version_option(__version__, "-v", "--version", prog_name="shoald")
def main(config_file: Path | None, debug: bool, metrics_addr: str | None, **flags: object) -> None:
    """Run a node of a swarm: Docker's API, real containers, one daemon."""
    try:
        settings = read_file(config_file, Settings()) if config_file else Settings()
        given = {name: value for name, value in flags.items() if value not in (None, ())}
        settings = replace(settings, **given)
        if debug:
            settings = replace(settings, log_level="debug")
        if metrics_addr:
            raise NotBuilt(
                "--metrics-addr: metrics are not built yet on an address of their own: they are at GET /metrics of "
                "the API; leave the flag out"
            )
        _check_labels(settings)
        missing = find_missing()
        if missing:
            raise ShoalError(missing)
        sys.exit(_run(settings))
    except ShoalError as error:
        click.echo(f"shoald: {error.message}", err=True)
        sys.exit(EXIT_FAILED)


def _check_labels(settings: Settings) -> None:
    for flag, values in (("--label", settings.labels), ("--node-generic-resource", settings.generic_resources)):
        for value in values:
            if "=" not in value or value.startswith("="):
                raise ShoalError(f'{flag} "{value}": write KEY=VALUE')


def _run(settings: Settings) -> int:
    import uvloop

    from shoal.daemon.layout import Layout
    from shoal.daemon.logs import configure_logging
    from shoal.daemon.server import check_listening
    from shoal.lib.ids import Ids

    check_listening(settings)
    configure_logging(settings.log_level)
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    layout = Layout(settings.data_root.absolute(), settings.exec_root.absolute())
    daemon_id = layout.open(Ids())
    pidfile = settings.pidfile
    if pidfile is not None:
        pidfile.write_text(f"{os.getpid()}\n")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, layout, daemon_id))
    finally:
        if pidfile is not None:
            pidfile.unlink(missing_ok=True)
        layout.close()


async def _serve(settings: Settings, layout: object, daemon_id: str) -> int:
    """Run the node and its API until SIGTERM or SIGINT; a part that dies for good ends the daemon."""
    from shoal.api.application import make_application
    from shoal.daemon.layout import Layout
    from shoal.daemon.node import SwarmNode
    from shoal.daemon.server import Server

    assert isinstance(layout, Layout), "the layout was opened by the caller"
    settings = replace(settings, data_root=layout.data_root, exec_root=layout.exec_root)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = SwarmNode(settings, layout, daemon_id)
    server = Server(make_application(node), settings)
    try:
        await node.start()
        await server.start()
        # What is there by now stays: collections need not look at it again.
        gc.freeze()
        ends = [asyncio.ensure_future(event.wait()) for event in (stop, node.failed)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
    finally:
        await server.stop()
        await node.stop()
    return EXIT_FAILED if node.failed.is_set() else 0


if __name__ == "__main__":
    main()
