"""`shoal swarm …`."""

from __future__ import annotations

import base64
import ipaddress
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.session import connect
from shoal.client.connection import CHUNK_BYTES, Client, RemoteError
from shoal.errors import InvalidArgument, ShoalError
from shoal.language.values import parse_external_ca, parse_int, parse_node_address, parse_positive_duration, parse_uint
from shoal.lib.files import write_stream

_HERE = "shoal.cli.commands.swarm"
DEFAULT_LISTEN_ADDRESS = "0.0.0.0:2377"
ADDRESS_NEEDED = ("could not choose an IP address to advertise", "could not find the system's IP address")
SERVICE_PORTS = range(1024, 49152)
MOST_MASK_LENGTH = 29
ROTATION_POLL_SECONDS = 0.2

swarm = LazyGroup(
    "swarm",
    lazy={
        "init": (f"{_HERE}:init", "Make a swarm with this node as its first manager"),
        "join": (f"{_HERE}:join", "Make this node part of a swarm"),
        "join-token": (f"{_HERE}:join_token", "Show or change the tokens that nodes join with"),
        "leave": (f"{_HERE}:leave", "Take this node out of its swarm"),
        "backup": (f"{_HERE}:backup", "Write the swarm's state to a sealed file"),
        "ca": (f"{_HERE}:ca", "Show the swarm's root certificate, or put another in its place"),
        "restore": (f"{_HERE}:restore", "Make a swarm out of a backup, with this node as its manager"),
        "unlock": (f"{_HERE}:unlock", "Unlock a locked manager"),
        "unlock-key": (f"{_HERE}:unlock_key", "Show or change the key of locked managers"),
        "update": (f"{_HERE}:update", "Change the swarm"),
    },
    help="Make, join, change and leave a swarm",
    context_settings={"help_option_names": ["--help"]},
)

_AUTOLOCK = flag("--autolock", text="Managers need a key to start")
_CERT_EXPIRY = flag(
    "--cert-expiry", "duration", "How long nodes' certificates hold", parse=parse_positive_duration, default="2160h0m0s"
)
_HEARTBEAT = flag(
    "--dispatcher-heartbeat",
    "duration",
    "Time between two reports of a node",
    parse=parse_positive_duration,
    default="5s",
)
_MAX_SNAPSHOTS = flag("--max-snapshots", "uint", "Older snapshots to keep", parse=parse_uint)
_SNAPSHOT_INTERVAL = flag(
    "--snapshot-interval", "uint", "Log entries between two snapshots", parse=parse_uint, default="10000"
)
# of core/privileges.py
ALLOW_LABEL = "shoal.allow"
_EXTERNAL_CA = flag(
    "--external-ca",
    "external-ca",
    "protocol=cfssl,url=https://... of a service that signs",
    parse=parse_external_ca,
    many=True,
)
_HISTORY = flag("--task-history-limit", "int", "Ended tasks to keep a slot", parse=parse_int, default="5")


def _change_spec(spec: dict[str, Any], given: Mapping[str, Any]) -> None:
    """Put what is given into a swarm's spec."""
    if given.get("external_ca"):
        spec["CAConfig"] = {**(spec.get("CAConfig") or {}), "ExternalCAs": list(given["external_ca"])}
    for name, owner, field in (
        ("task_history_limit", "Orchestration", "TaskHistoryRetentionLimit"),
        ("dispatcher_heartbeat", "Dispatcher", "HeartbeatPeriod"),
        ("cert_expiry", "CAConfig", "NodeCertExpiry"),
        ("snapshot_interval", "Raft", "SnapshotInterval"),
        ("max_snapshots", "Raft", "KeepOldSnapshots"),
        ("autolock", "EncryptionConfig", "AutoLockManagers"),
    ):
        if given.get(name) is not None:
            spec[owner] = {**(spec.get(owner) or {}), field: given[name]}


@command("init", "[OPTIONS]", "Make a swarm with this node as its first manager")
@flag("--advertise-addr", "string", "Address other nodes reach this one at (address or interface[:port])")
@_AUTOLOCK
@flag("--availability", "string", 'Whether this node takes tasks ("active", "pause", "drain")', default='"active"')
@_CERT_EXPIRY
@flag("--data-path-addr", "string", "Address or interface of the traffic of services")
@flag("--data-path-port", "uint32", "Port of that traffic (1024 to 49151)", parse=parse_uint)
@flag("--default-addr-pool", "ipNetSlice", "Subnets that networks are cut from", many=True)
@flag("--default-addr-pool-mask-length", "uint32", "Size of those subnets", parse=parse_uint, default="24")
@_HEARTBEAT
@_EXTERNAL_CA
@flag("--force-new-cluster", text="Make a swarm out of the state that is there")
@flag("--listen-addr", "node-addr", "Address to listen on", parse=parse_node_address, default="0.0.0.0:2377")
@_MAX_SNAPSHOTS
@_SNAPSHOT_INTERVAL
@_HISTORY
def init(**given: Any) -> None:
    """Make a swarm; prints how others join."""
    availability = given["availability"] or "active"
    if availability not in ("active", "pause", "drain"):
        raise InvalidArgument(f'invalid availability "{availability}", only active, pause and drain are supported')
    spec: dict[str, Any] = {"Labels": {}}
    _change_spec(spec, given)
    request = {
        "ListenAddr": given["listen_addr"] or DEFAULT_LISTEN_ADDRESS,
        "AdvertiseAddr": given["advertise_addr"] or "",
        "DataPathAddr": given["data_path_addr"] or "",
        "DataPathPort": _checked_port(given["data_path_port"]),
        "DefaultAddrPool": _checked_pools(given["default_addr_pool"], given["default_addr_pool_mask_length"] or 24),
        "SubnetSize": given["default_addr_pool_mask_length"] or 0,
        "ForceNewCluster": bool(given["force_new_cluster"]),
        "AutoLockManagers": bool(given["autolock"]),
        "Availability": availability,
        "Spec": spec,
    }
    client = connect()
    try:
        node_id = client.post("/swarm/init", request)
    except RemoteError as error:
        if any(text in error.message for text in ADDRESS_NEEDED):
            raise RemoteError(f"{error.message} - specify one with --advertise-addr", error.http_status) from None
        raise
    click.echo(f"Swarm initialized: current node ({node_id}) is now a manager.\n")
    _print_join_command(client, node_id, "worker")
    click.echo("To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.\n")
    if given["autolock"]:
        _print_unlock_key(client)


def _checked_port(port: int | None) -> int:
    if port and port not in SERVICE_PORTS:
        raise InvalidArgument(f"--data-path-port {port}: use a port from 1024 to 49151")
    return port or 0


def _checked_pools(pools: tuple[str, ...], mask_length: int) -> list[str]:
    for text in pools:
        try:
            pool = ipaddress.ip_network(text)
        except ValueError:
            raise InvalidArgument(f"--default-addr-pool {text}: write a subnet such as 10.20.0.0/16") from None
        if not pool.prefixlen <= mask_length <= MOST_MASK_LENGTH:
            raise InvalidArgument(
                f"--default-addr-pool-mask-length {mask_length}: use {pool.prefixlen} to {MOST_MASK_LENGTH}"
            )
    return list(pools)


def _print_join_command(client: Client, node_id: str, role: str) -> None:
    address = client.get(f"/nodes/{node_id}")["ManagerStatus"]["Addr"]
    token = client.get("/swarm")["JoinTokens"][role.capitalize()]
    click.echo(f"To add a {role} to this swarm, run the following command:\n")
    click.echo(f"    shoal swarm join --token {token} {address}\n")


def _print_unlock_key(client: Client) -> None:
    key = client.get("/swarm/unlockkey").get("UnlockKey", "")
    if not key:
        raise ShoalError("no unlock key is set")
    click.echo(
        "To unlock a swarm manager after it restarts, run the `shoal swarm unlock`\ncommand and provide the key:\n"
    )
    click.echo(f"    {key}\n\nKeep it safe: without it a manager cannot be started again.\n")


@command("join", "[OPTIONS] HOST:PORT", "Make this node part of a swarm")
@flag("--advertise-addr", "string", "Address other nodes reach this one at")
@flag("--availability", "string", 'Whether this node takes tasks ("active", "pause", "drain")', default='"active"')
@flag("--data-path-addr", "string", "Address or interface of the traffic of services")
@flag("--listen-addr", "node-addr", "Address to listen on", parse=parse_node_address, default="0.0.0.0:2377")
@flag("--token", "string", "Token that lets a node in")
@click.argument("remote", metavar="HOST:PORT")
def join(remote: str, **given: Any) -> None:
    """Join a swarm."""
    client = connect()
    request = {
        "JoinToken": given["token"] or "",
        "ListenAddr": given["listen_addr"] or DEFAULT_LISTEN_ADDRESS,
        "AdvertiseAddr": given["advertise_addr"] or "",
        "DataPathAddr": given["data_path_addr"] or "",
        "RemoteAddrs": [remote],
        "Availability": given["availability"] or "active",
    }
    client.post("/swarm/join", request)
    role = "manager" if client.get("/info")["Swarm"].get("ControlAvailable") else "worker"
    click.echo(f"This node joined a swarm as a {role}.")


@command("join-token", "[OPTIONS] (worker|manager)", "Show or change the tokens that nodes join with")
@flag("--quiet", text="The token only", short="-q")
@flag("--rotate", text="Make a new token; the old one no longer holds")
@click.argument("role", metavar="(worker|manager)")
def join_token(role: str, quiet: bool | None, rotate: bool | None) -> None:
    """Show a token."""
    if role not in ("worker", "manager"):
        raise InvalidArgument(f"unknown role {role}: use worker or manager")
    client = connect()
    if rotate:
        found = client.get("/swarm")
        query = {"version": found["Version"]["Index"], f"rotate{role.capitalize()}Token": True}
        client.post("/swarm/update", found["Spec"], query)
        if not quiet:
            click.echo(f"Successfully rotated {role} join token.\n")
    if quiet:
        click.echo(client.get("/swarm")["JoinTokens"][role.capitalize()])
        return
    _print_join_command(client, client.get("/info")["Swarm"]["NodeID"], role)


@command("leave", "[OPTIONS]", "Take this node out of its swarm")
@flag("--force", text="Also a manager, also if the swarm is lost by it", short="-f")
def leave(force: bool | None) -> None:
    """Leave."""
    connect().post("/swarm/leave", None, {"force": bool(force)})
    click.echo("Node left the swarm.")


@command("unlock-key", "[OPTIONS]", "Show or change the key of locked managers")
@flag("--quiet", text="The key only", short="-q")
@flag("--rotate", text="Make a new key")
def unlock_key(quiet: bool | None, rotate: bool | None) -> None:
    """Show the key."""
    client = connect()
    if rotate:
        found = client.get("/swarm")
        if not (found["Spec"].get("EncryptionConfig") or {}).get("AutoLockManagers"):
            raise ShoalError("cannot rotate because autolock is not turned on")
        client.post(
            "/swarm/update", found["Spec"], {"version": found["Version"]["Index"], "rotateManagerUnlockKey": True}
        )
        if not quiet:
            click.echo("Successfully rotated manager unlock key.\n")
    if not quiet:
        _print_unlock_key(client)
        return
    key = client.get("/swarm/unlockkey").get("UnlockKey", "")
    if not key:
        raise ShoalError("no unlock key is set")
    click.echo(key)


@command("update", "[OPTIONS]", "Change the swarm")
@flag(
    "--allow", "string", 'What services may have of their nodes (privileged,devices,host-pid,host-ipc; "" is nothing)'
)
@_AUTOLOCK
@_CERT_EXPIRY
@_HEARTBEAT
@_EXTERNAL_CA
@_MAX_SNAPSHOTS
@_SNAPSHOT_INTERVAL
@flag("--rotate-network-keys", text="Have all nodes make new keys for encrypted networks")
@_HISTORY
def update(**given: Any) -> None:
    """Change the swarm; without flags shows help."""
    if all(value in (None, ()) for value in given.values()):
        click.echo(click.get_current_context().get_help())
        return
    client = connect()
    found = client.get("/swarm")
    if given["allow"] is not None:
        found["Spec"]["Labels"] = {**(found["Spec"].get("Labels") or {}), ALLOW_LABEL: given["allow"]}
    was_locked = (found["Spec"].get("EncryptionConfig") or {}).get("AutoLockManagers")
    _change_spec(found["Spec"], given)
    query = {"version": found["Version"]["Index"]}
    if given["rotate_network_keys"]:
        query["rotateNetworkKeys"] = True
    client.post("/swarm/update", found["Spec"], query)
    click.echo("Swarm updated.")
    if given["autolock"] and not was_locked:
        _print_unlock_key(client)


_PASSPHRASE = flag("--passphrase-file", "file", "File whose first line seals the backup (default: the unlock key)")


def _first_line(path: str | None, flag_name: str) -> str:
    if path is None:
        return ""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as error:
        raise InvalidArgument(f"{flag_name} {path}: {error.strerror}") from error
    if not lines or not lines[0]:
        raise InvalidArgument(f"{flag_name} {path}: its first line is empty")
    return lines[0]


@command("backup", "[OPTIONS] FILE", "Write the swarm's state to a sealed file")
@_PASSPHRASE
@click.argument("file")
def backup(file: str, passphrase_file: str | None) -> None:
    """Write a backup; the file appears when it is whole."""
    body = json.dumps({"Passphrase": _first_line(passphrase_file, "--passphrase-file")}).encode()
    headers = {"Content-Type": "application/json"}
    try:
        with connect().stream("POST", "/shoal/swarm/backup", None, body, headers) as response:
            write_stream(Path(file), iter(lambda: response.read(CHUNK_BYTES), b""))
    except OSError as error:
        raise InvalidArgument(f"{file}: {error.strerror or error}") from error
    click.echo(f"The swarm's state is in {file}. Who has it and its passphrase has the swarm.")


@command("restore", "[OPTIONS] FILE", "Make a swarm out of a backup, with this node as its manager")
@flag("--advertise-addr", "string", "Address other nodes reach this one at (default: that of the backup)")
@flag("--listen-addr", "node-addr", "Address to listen on (default: that of the backup)", parse=parse_node_address)
@flag("--passphrase-file", "file", "File whose first line opens the backup")
@flag("--unlock-key", text="The backup is opened by the unlock key, read from the terminal or standard input")
@click.argument("file")
def restore(file: str, unlock_key: bool | None, **given: Any) -> None:
    """Restore a swarm."""
    secret = _ask_key() if unlock_key else _first_line(given["passphrase_file"], "--passphrase-file")
    if not secret:
        raise InvalidArgument("give --passphrase-file, or --unlock-key for a backup that was made without one")
    options = {
        "Passphrase": secret,
        "AdvertiseAddr": given["advertise_addr"] or "",
        "ListenAddr": given["listen_addr"] or "",
    }
    header = base64.b64encode(json.dumps(options).encode()).decode()
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{file}: {error.strerror}") from error
    headers = {"X-Shoal-Restore": header, "Content-Type": "application/octet-stream"}
    with connect().stream("POST", "/shoal/swarm/restore", None, content, headers) as response:
        node_id = json.loads(response.read())
    click.echo(f"Swarm restored: current node ({node_id}) is its one manager.")


def _ask_key() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Enter unlock key", hide_input=True, prompt_suffix=": ")).strip()
    return sys.stdin.readline().strip()


@command("unlock", "", "Unlock a locked manager")
def unlock() -> None:
    """Unlock a manager by the key that is read from the terminal or standard input."""
    client = connect()
    state = client.get("/info")["Swarm"]["LocalNodeState"]
    if state == "inactive":
        raise ShoalError("Error: This node is not part of a swarm")
    if state != "locked":
        raise ShoalError("Error: swarm is not locked")
    client.post("/swarm/unlock", {"UnlockKey": _ask_key()})


@command("ca", "[OPTIONS]", "Show the swarm's root certificate, or put another in its place")
@flag("--ca-cert", "pem-file", "Root certificate to use from now on")
@flag("--ca-key", "pem-file", "Its key")
@_CERT_EXPIRY
@flag("--detach", text="Do not wait until all nodes have moved over", short="-d")
@_EXTERNAL_CA
@flag("--quiet", text="No progress", short="-q")
@flag("--rotate", text="Put another root in the place of this one")
def ca(**given: Any) -> None:
    """Show or rotate the root."""
    client = connect()
    found = client.get("/swarm")
    if not given["rotate"]:
        for name in ("ca_cert", "ca_key", "cert_expiry", "external_ca", "detach", "quiet"):
            if given[name]:
                raise InvalidArgument(
                    f"`--{name.replace('_', '-')}` flag requires the `--rotate` flag to update the CA"
                )
        click.echo(found["TLSInfo"]["TrustRoot"], nl=False)
        return
    if given["external_ca"] and not given["ca_cert"]:
        raise InvalidArgument(
            "rotating to an external CA requires the `--ca-cert` flag to specify the external CA's cert"
        )
    if given["ca_cert"] and not (given["ca_key"] or given["external_ca"]):
        raise InvalidArgument("the --ca-cert flag requires that a --ca-key flag and/or --external-ca flag be provided")
    spec = found["Spec"]
    _change_spec(spec, given)
    config = spec.setdefault("CAConfig", {})
    if given["ca_cert"]:
        config["SigningCACert"] = _read(given["ca_cert"], "--ca-cert")
        config["SigningCAKey"] = _read(given["ca_key"], "--ca-key") if given["ca_key"] else ""
        config["ExternalCAs"] = [
            authority | {"CACert": config["SigningCACert"]} for authority in given["external_ca"] or ()
        ]
    else:
        config["ForceRotate"] = config.get("ForceRotate", 0) + 1
    client.post("/swarm/update", spec, {"version": found["Version"]["Index"]})
    if given["detach"]:
        return
    while client.get("/swarm")["RootRotationInProgress"]:
        time.sleep(ROTATION_POLL_SECONDS)
    if not given["quiet"]:
        click.echo(client.get("/swarm")["TLSInfo"]["TrustRoot"], nl=False)


def _read(path: str, flag_name: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise InvalidArgument(f"{flag_name} {path}: {error.strerror}") from error
