"""`shoal network …`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import click

from shoal.cli.grammar import LazyGroup, command, flag
from shoal.cli.session import (
    Column,
    confirm,
    connect,
    delete_each,
    filter_query,
    labels_text,
    print_deleted,
    print_inspected,
    print_list,
)
from shoal.errors import InvalidArgument
from shoal.language.texts import go_utc_text
from shoal.language.values import parse_int, parse_pair

_HERE = "shoal.cli.commands.network"
SHORT_ID_LENGTH = 12
PRUNE_WARNING = "WARNING! This will remove all custom networks not used by at least one container."

network = LazyGroup(
    "network",
    lazy={
        "connect": (f"{_HERE}:connect_container", "Put a container on a network"),
        "disconnect": (f"{_HERE}:disconnect_container", "Take a container off a network"),
        "create": (f"{_HERE}:create", "Make a network"),
        "inspect": (f"{_HERE}:inspect", "Show all there is of networks"),
        "ls": (f"{_HERE}:list_networks", "List networks"),
        "prune": (f"{_HERE}:prune", "Remove all networks that nothing uses"),
        "rm": (f"{_HERE}:remove", "Remove networks"),
    },
    aliases={"list": "ls", "remove": "rm"},
    help="Work with networks",
    context_settings={"help_option_names": ["--help"]},
)


@command("create", "[OPTIONS] NETWORK", "Make a network")
@flag("--attachable", text="Containers that are no service's may join")
@flag("--aux-address", "map", "An address that nobody is given, NAME=ADDRESS", parse=parse_pair, many=True)
@flag("--config-from", "string", "The network whose configuration it takes")
@flag("--config-only", text="Make a configuration for other networks only")
@flag("--driver", "string", "What makes it", short="-d", default='"overlay"')
@flag("--gateway", "ipSlice", "Gateway of a subnet", many=True)
@flag("--ingress", text="Make the network of the routing mesh")
@flag("--internal", text="Let nothing leave it")
@flag("--ip-range", "strings", "The part of a subnet that addresses come from", many=True)
@flag("--ipam-driver", "string", "What gives addresses", default='"default"')
@flag("--ipam-opt", "map", "Option of what gives addresses", parse=parse_pair, many=True)
@flag("--ipv4", text="With IPv4 (default true)")
@flag("--ipv6", text="With IPv6, too")
@flag("--label", "list", "Label", parse=parse_pair, many=True)
@flag("--opt", "map", "Option of the driver", short="-o", parse=parse_pair, many=True)
@flag("--scope", "string", "swarm or local")
@flag("--subnet", "strings", "Subnet, such as 10.5.0.0/24", many=True)
@click.argument("name", metavar="NETWORK")
def create(name: str, **given: Any) -> None:
    """Make a network, of the swarm unless it only holds configuration, and print its id."""
    driver, scope = ("overlay", "swarm") if _is_of_swarm(given) else ("bridge", "local")
    if given["config_only"]:
        # of the node asked, and not to be said
        scope = ""
    body = {
        "Name": name,
        "Driver": given["driver"] or driver,
        "Scope": given["scope"] or scope,
        "EnableIPv6": bool(given["ipv6"]),
        "Internal": bool(given["internal"]),
        "Attachable": bool(given["attachable"]),
        "Ingress": bool(given["ingress"]),
        "ConfigOnly": bool(given["config_only"]),
        "ConfigFrom": {"Network": given["config_from"]} if given["config_from"] else None,
        "IPAM": {
            "Driver": given["ipam_driver"] or "default",
            "Options": dict(given["ipam_opt"]),
            "Config": pools(given["subnet"], given["ip_range"], given["gateway"], dict(given["aux_address"])),
        },
        "Options": dict(given["opt"]),
        "Labels": dict(given["label"]),
    }
    if given["ipv4"] is not None:
        body["EnableIPv4"] = given["ipv4"]
    click.echo(connect().post("/networks/create", body)["Id"])


def _is_of_swarm(given: Mapping[str, Any]) -> bool:
    return given["driver"] in (None, "overlay") and not given["config_only"]


@command("connect", "[OPTIONS] NETWORK CONTAINER", "Put a container on a network")
@flag("--alias", "strings", "Another name for it there", many=True)
@flag("--driver-opt", "strings", "Option of the driver", parse=parse_pair, many=True)
@flag("--gw-priority", "int", "Which network leads out: the highest", parse=parse_int)
@flag("--ip", "string", "Its IPv4 address there")
@flag("--ip6", "string", "Its IPv6 address there")
@flag("--link", "list", "A link to another container", many=True)
@flag("--link-local-ip", "strings", "A link-local address", many=True)
@click.argument("name", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
def connect_container(name: str, container: str, **given: Any) -> None:
    """Put a container on a network."""
    endpoint: dict[str, Any] = {
        "IPAMConfig": {
            "IPv4Address": given["ip"] or "",
            "IPv6Address": given["ip6"] or "",
            "LinkLocalIPs": list(given["link_local_ip"]),
        },
        "Aliases": list(given["alias"]),
        "Links": list(given["link"]),
        "DriverOpts": dict(given["driver_opt"]),
        "GwPriority": given["gw_priority"] or 0,
    }
    connect().post(f"/networks/{name}/connect", {"Container": container, "EndpointConfig": endpoint})


@command("disconnect", "[OPTIONS] NETWORK CONTAINER", "Take a container off a network")
@flag("--force", text="Also one that is not there any more", short="-f")
@click.argument("name", metavar="NETWORK")
@click.argument("container", metavar="CONTAINER")
def disconnect_container(name: str, container: str, force: bool | None) -> None:
    """Take a container off a network."""
    connect().post(f"/networks/{name}/disconnect", {"Container": container, "Force": bool(force)})


def pools(
    subnets: Sequence[str], ranges: Sequence[str], gateways: Sequence[str], auxiliary: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the subnets with what belongs to each.

    Raises:
        InvalidArgument: what lies in no subnet, or a second range or gateway of one.
    """
    found: dict[str, dict[str, Any]] = {subnet: {"Subnet": subnet} for subnet in subnets}
    words: list[tuple[str, str, str]] = [("IPRange", "range", text) for text in ranges]
    words += [("Gateway", "gateway", text) for text in gateways]
    for key, word, text in words:
        pool = found[_subnet_of(text, subnets, word)]
        if key in pool:
            raise InvalidArgument(f"cannot configure multiple {word}s on the subnet {pool['Subnet']}")
        pool[key] = text
    for name, text in auxiliary.items():
        found[_subnet_of(text, subnets, "aux-address")].setdefault("AuxiliaryAddresses", {})[name] = text
    return list(found.values())


def _subnet_of(text: str, subnets: Sequence[str], word: str) -> str:
    try:
        address = ipaddress.ip_address(text.partition("/")[0])
        return next(subnet for subnet in subnets if address in ipaddress.ip_network(subnet, strict=False))
    except (ValueError, StopIteration):
        raise InvalidArgument(f"no matching subnet for {word} {text}") from None


@command("ls", "[OPTIONS]", "List networks")
@flag("--filter", "filter", "Condition on what is listed", short="-f", many=True)
@flag("--format", "string", "json, or a template such as {{.Name}}")
@flag("--no-trunc", text="Cut nothing short")
@flag("--quiet", text="Ids only", short="-q")
def list_networks(filter: tuple[str, ...], format: str | None, no_trunc: bool | None, quiet: bool | None) -> None:  # noqa: A002
    """List networks by name."""
    found = sorted(connect().get("/networks", filter_query(filter)), key=lambda item: str(item["Name"]))
    length = None if no_trunc else SHORT_ID_LENGTH
    if quiet and format is None:
        click.echo("".join(f"{item['Id'][:length]}\n" for item in found), nl=False)
        return
    shown = [
        Column("ID", "NETWORK ID", lambda item: str(item["Id"])[:length]),
        Column("Name", "NAME", lambda item: str(item["Name"])),
        Column("Driver", "DRIVER", lambda item: str(item["Driver"])),
        Column("Scope", "SCOPE", lambda item: str(item["Scope"])),
        Column("IPv4", "IPV4", lambda item: _truth(item.get("EnableIPv4", True)), shown=False),
        Column("IPv6", "IPV6", lambda item: _truth(item["EnableIPv6"]), shown=False),
        Column("Internal", "INTERNAL", lambda item: _truth(item["Internal"]), shown=False),
        Column("Labels", "LABELS", lambda item: labels_text(item["Labels"]), shown=False),
        Column("CreatedAt", "CREATED AT", lambda item: go_utc_text(item["Created"]), shown=False),
    ]
    print_list(shown, found, format, truncate=not no_trunc)


def _truth(value: bool) -> str:
    return str(value).lower()


@command("inspect", "[OPTIONS] NETWORK [NETWORK...]", "Show all there is of networks")
@flag("--format", "string", "json, or a template such as {{.Driver}}", short="-f")
@flag("--verbose", text="With services, their tasks, and nodes", short="-v")
@click.argument("names", metavar="NETWORK", nargs=-1, required=True)
def inspect(names: tuple[str, ...], format: str | None, verbose: bool | None) -> None:  # noqa: A002
    """Show networks."""
    client = connect()
    query = {"verbose": "true"} if verbose else {}
    print_inspected(names, lambda name: client.get(f"/networks/{name}", query), format)


@command("rm", "[OPTIONS] NETWORK [NETWORK...]", "Remove networks")
@flag("--force", text="Networks that are not there are no failure", short="-f")
@click.argument("names", metavar="NETWORK", nargs=-1, required=True)
def remove(names: tuple[str, ...], force: bool | None) -> None:
    """Remove networks nothing uses."""
    delete_each(connect(), "networks", names, force=bool(force))


@command("prune", "[OPTIONS]", "Remove all networks that nothing uses")
@flag("--filter", "filter", "Condition on what is removed, such as label=KEY", many=True)
@flag("--force", text="Do not ask", short="-f")
def prune(filter: tuple[str, ...], force: bool | None) -> None:  # noqa: A002
    """Remove networks, after asking."""
    confirm(PRUNE_WARNING, force=bool(force))
    removed = connect().post("/networks/prune", query=filter_query(filter)).get("NetworksDeleted")
    print_deleted("Networks", removed or [])
