"""`shoal info`, `shoal version` and the group `shoal system`."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import click

from shoal import __version__
from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.session import connect
from shoal.client.connection import API_VERSION, CHUNK_BYTES
from shoal.errors import InvalidArgument
from shoal.language.texts import duration_text, size_text

Json = Mapping[str, Any]

_HERE = "shoal.cli.commands.system"
system = LazyGroup(
    "system",
    lazy={
        "df": ("shoal.cli.commands.disk_usage:disk_usage", "Show what images, containers and volumes take"),
        "dial-stdio": (f"{_HERE}:dial_standard_streams", "Join our input and output to the daemon: what ssh:// runs"),
        "events": ("shoal.cli.commands.events:events", "Show what happens"),
        "info": (f"{_HERE}:info", "Show what the daemon says of itself and its swarm"),
        "prune": ("shoal.cli.commands.prune:prune_system", "Remove all that nothing uses"),
    },
    help="Work with the daemon",
    context_settings={"help_option_names": ["--help"]},
)


@command("dial-stdio", "", "Join our input and output to the daemon: what ssh:// runs")
def dial_standard_streams() -> None:
    """Carry bytes between our standard streams and the daemon's socket until both ends are done."""
    address = urlsplit(connect().host)
    if address.scheme != "unix":
        raise InvalidArgument("dial-stdio joins to a socket of this machine: name one with -H unix:///path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.connect(address.netloc + address.path)

        def send() -> None:
            while part := os.read(sys.stdin.fileno(), CHUNK_BYTES):
                daemon.sendall(part)
            daemon.shutdown(socket.SHUT_WR)

        threading.Thread(target=send, daemon=True).start()
        while part := daemon.recv(CHUNK_BYTES):
            os.write(sys.stdout.fileno(), part)


@command("info", "[OPTIONS]", "Show what the daemon says of itself and its swarm")
@flag("--format", "string", "json, or a template such as {{.Swarm.NodeID}}", short="-f")
def info(format: str | None) -> None:  # noqa: A002
    """Show the daemon."""
    client = connect()
    found = client.get("/info")
    if format:
        click.echo(_filled_in(format, found))
        return
    cluster = client.get("/swarm") if found["Swarm"].get("ControlAvailable") else {}
    click.echo(f"Client:\n Version:    {__version__}\n\nServer:")
    click.echo("\n".join(_server_lines(found)))
    click.echo("\n".join(_swarm_lines(found["Swarm"], cluster)))
    click.echo("\n".join(_machine_lines(found)))
    for warning in found.get("Warnings") or ():
        click.echo(warning, err=True)


def _filled_in(template: str, value: Json) -> str:
    """Write a value as a template says; a field that there is not is a mistake. Raises InvalidArgument."""
    from shoal.language.templates import Row, parse_template

    return parse_template(template)(Row(value))


def _server_lines(found: Json) -> Iterator[str]:
    yield f" Containers: {found['Containers']}"
    for key in ("Running", "Paused", "Stopped"):
        yield f"  {key}: {found[f'Containers{key}']}"
    yield f" Images: {found['Images']}"
    yield f" Server Version: {found['ServerVersion']}"
    yield f" Storage Driver: {found['Driver']}"
    yield f" Logging Driver: {found['LoggingDriver']}"
    yield f" Cgroup Driver: {found['CgroupDriver']}"
    yield f" Cgroup Version: {found.get('CgroupVersion', '1')}"


def _swarm_lines(swarm: Json, cluster: Json) -> Iterator[str]:
    yield f" Swarm: {swarm['LocalNodeState']}"
    if swarm["LocalNodeState"] in ("inactive", "locked"):
        return
    yield f"  NodeID: {swarm['NodeID']}"
    if swarm.get("Error"):
        yield f"  Error: {swarm['Error']}"
    yield f"  Is Manager: {str(bool(swarm.get('ControlAvailable'))).lower()}"
    if cluster:
        spec = cluster["Spec"]
        yield f"  ClusterID: {cluster['ID']}"
        yield f"  Managers: {swarm.get('Managers', 0)}"
        yield f"  Nodes: {swarm.get('Nodes', 0)}"
        yield f"  Default Address Pool: {' '.join(cluster.get('DefaultAddrPool') or ())}"
        yield f"  SubnetSize: {cluster.get('SubnetSize', 0)}"
        yield f"  Data Path Port: {cluster.get('DataPathPort', 0)}"
        yield f"  Task History Retention Limit: {(spec.get('Orchestration') or {}).get('TaskHistoryRetentionLimit', 5)}"
        yield f"  Heartbeat Period: {duration_text((spec.get('Dispatcher') or {}).get('HeartbeatPeriod', 0))}"
        yield f"  Certificate Expiry: {duration_text((spec.get('CAConfig') or {}).get('NodeCertExpiry', 0))}"
        locked = (spec.get("EncryptionConfig") or {}).get("AutoLockManagers", False)
        yield f"  Autolock Managers: {str(locked).lower()}"
    yield f"  Node Address: {swarm.get('NodeAddr', '')}"
    if swarm.get("RemoteManagers"):
        yield "  Manager Addresses:"
        yield from sorted(f"   {manager['Addr']}" for manager in swarm["RemoteManagers"])


def _machine_lines(found: Json) -> Iterator[str]:
    yield f" Kernel Version: {found['KernelVersion']}"
    yield f" Operating System: {found['OperatingSystem']}"
    yield f" OSType: {found['OSType']}"
    yield f" Architecture: {found['Architecture']}"
    yield f" CPUs: {found['NCPU']}"
    yield f" Total Memory: {size_text(found['MemTotal'], binary=True, digits=4)}"
    yield f" Name: {found['Name']}"
    yield f" ID: {found['ID']}"
    yield f" Shoal Root Dir: {found['DockerRootDir']}"
    if found.get("Labels"):
        yield " Labels:"
        yield from (f"  {label}" for label in found["Labels"])


@command("version", "[OPTIONS]", "Show the versions of command and daemon")
@flag("--format", "string", "json, or a template such as {{.Server.Version}}", short="-f")
def version(format: str | None) -> None:  # noqa: A002
    """Show versions."""
    client = connect()
    own = {"Version": __version__, "ApiVersion": API_VERSION}
    if format:
        click.echo(_filled_in(format, {"Client": own, "Server": client.get("/version")}))
        return
    # what is ours is shown also where no daemon answers
    click.echo(f"Client:\n Version:           {own['Version']}\n API version:       {own['ApiVersion']}\n")
    server = client.get("/version")
    click.echo(f"Server:\n Version:           {server['Version']}")
    click.echo(f" API version:       {server['ApiVersion']} (minimum version {server['MinAPIVersion']})")
    click.echo(f" OS/Arch:           {server['Os']}/{server['Arch']}")
