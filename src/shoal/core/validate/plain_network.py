"""Network and ports of a plain container: modes, published ports, places on networks. Docker's texts."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from shoal.core.endpoint_options import parse_link_options, refuse_ignored_options
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.container_request import ContainerRequest, EndpointSettings, PortBinding
from shoal.model.netstate import LinkOptions
from shoal.model.plain import BRIDGE, CONTAINER_PREFIX, HOST, NONE, EndpointRequest, PortRequest

PROTOCOLS = ("tcp", "udp", "sctp")
BUILT_IN = frozenset({BRIDGE, HOST, NONE, "default"})
# what a host address may be: every address of the node
ANY_ADDRESSES = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened on
MOST_PORT = 65535


def parse_port(text: str) -> tuple[int, str]:
    """Read `80/tcp` or `80`; returns number and protocol. Raises InvalidArgument."""
    number, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f'invalid port specification: "{text}": invalid proto: {protocol}')
    if not (number.isascii() and number.isdigit()) or not 0 < int(number) <= MOST_PORT:
        raise InvalidArgument(f'invalid port specification: "{text}": write a number from 1 to {MOST_PORT}')
    return int(number), protocol


def published_ports(bindings: dict[str, tuple[PortBinding, ...]]) -> tuple[PortRequest, ...]:
    """Return the ports to publish. Raises InvalidArgument, NotBuilt: on one address of IPv6 only."""
    found: list[PortRequest] = []
    for text, wanted in bindings.items():
        target, protocol = parse_port(text)
        found += (
            PortRequest(
                protocol=protocol,
                target_port=target,
                published_port=first,
                last_port=last,
                host_address=_host_address(text, binding.host_ip),
            )
            for binding in wanted or (PortBinding(),)
            for first, last in (_host_ports(binding),)
        )
    # the same binding for IPv4 and IPv6 is one port here
    return tuple(dict.fromkeys(found))


def _host_address(port: str, text: str) -> str:
    if text in ANY_ADDRESSES:
        return ""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"HostConfig.PortBindings {port}: invalid IP address: {text}") from None
    if address.version != 4:
        raise NotBuilt(
            f"HostConfig.PortBindings {port}: publishing on the IPv6 address {text} only is not built: leave the "
            "address out, and the port is published on every address of this node"
        )
    return str(address)


def _host_ports(binding: PortBinding) -> tuple[int, int]:
    """Return the port of the host that is asked for, and the last one of a range; 0: none."""
    text = binding.host_port
    if not text:
        return 0, 0
    first, dash, last = text.partition("-")
    numbers = [int(part) for part in (first, last if dash else first) if part.isascii() and part.isdigit()]
    if len(numbers) < 2 or numbers[1] > MOST_PORT or numbers[0] > numbers[1]:
        raise InvalidArgument(f'invalid port specification: "{text}"')
    return numbers[0], numbers[1] if dash else 0


def network_mode(request: ContainerRequest) -> str:
    """Return a container's network mode in its one written form. Raises InvalidArgument, NotBuilt."""
    mode = NONE if request.network_disabled else request.host_config.network_mode
    if mode in ("", "default"):
        mode = BRIDGE
    if mode.startswith(CONTAINER_PREFIX):
        if mode == CONTAINER_PREFIX:
            raise InvalidArgument("Invalid network mode: invalid container format container:<name|id>")
        _check_shared(request)
    if mode == NONE and request.host_config.port_bindings:
        raise InvalidArgument("HostConfig.PortBindings: ports cannot be published without a network: drop them")
    return mode


def _check_shared(request: ContainerRequest) -> None:
    host = request.host_config
    conflicts: tuple[tuple[object, str], ...] = (
        (request.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (request.mac_address, "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (request.exposed_ports, "port exposing and the container type network mode"),
    )
    for value, text in conflicts:
        if value:
            raise InvalidArgument(f"conflicting options: {text}")


def endpoint_request(network: str, settings: EndpointSettings, field: str) -> EndpointRequest:
    """Return what a container asks of a network of the swarm. Raises InvalidArgument, NotBuilt naming the field."""
    ipam = settings.ipam_config
    refused: tuple[tuple[str, object, str], ...] = (
        ("Links", settings.links, "containers of a network find each other by name and by alias"),
        ("MacAddress", settings.mac_address, "leave it out"),
        ("IPAMConfig.LinkLocalIPs", ipam and ipam.link_local_ips, "ask for an address of the network (IPv4Address)"),
    )
    for name, value, remedy in refused:
        if value:
            raise NotBuilt(f"{field}.{name} is not built: {remedy}")
    wanted = [address for address in (ipam.ipv4_address, ipam.ipv6_address) if address] if ipam else []
    for address in wanted:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise InvalidArgument(f"{field}.IPAMConfig: invalid IP address: {address}") from None
    return EndpointRequest(
        network=network,
        aliases=_words(settings.aliases, field),
        addresses=tuple(wanted),
        driver_options=settings.driver_opts,
        link=_link_options(settings.driver_opts, f"{field}.DriverOpts"),
        priority=settings.gw_priority,
    )


def _words(aliases: Iterable[str], field: str) -> tuple[str, ...]:
    for alias in aliases:
        if not alias or len(alias) > 253 or any(letter.isspace() for letter in alias):
            raise InvalidArgument(f'{field}.Aliases: invalid alias "{alias}": write a host name')
    return tuple(dict.fromkeys(aliases))


def bridge_request(request: ContainerRequest) -> EndpointRequest:
    """Return what a container asks of its place on the predefined bridge. Raises as `endpoint_request`."""
    given = request.networking_config.endpoints_config
    name = next((name for name in (BRIDGE, "default") if name in given), BRIDGE)
    return endpoint_request(BRIDGE, given.get(name, EndpointSettings()), f"NetworkingConfig.EndpointsConfig.{name}")


def endpoint_requests(request: ContainerRequest, mode: str) -> tuple[EndpointRequest, ...]:
    """Return the networks of the swarm a container is to be on, that of its mode first. Raises as above."""
    given = request.networking_config.endpoints_config
    found = {}
    for name, settings in given.items():
        field = f"NetworkingConfig.EndpointsConfig.{name}"
        if name in BUILT_IN:
            if settings.aliases:
                raise InvalidArgument(
                    f"{field}: network-scoped alias is supported only for containers in user defined networks"
                )
            if settings.ipam_config is not None and (
                settings.ipam_config.ipv4_address or settings.ipam_config.ipv6_address
            ):
                raise InvalidArgument(f"{field}: user specified IP address is supported on user defined networks only")
            if name in (HOST, NONE) and (settings.driver_opts or settings.gw_priority):
                raise InvalidArgument(
                    f"{field}: there is no link to give options to: leave DriverOpts and GwPriority out"
                )
            continue
        found[name] = endpoint_request(name, settings, field)
    if mode.startswith(CONTAINER_PREFIX) or mode in BUILT_IN:
        if found and mode != BRIDGE:
            raise InvalidArgument(
                f"NetworkingConfig.EndpointsConfig: networks do not go with network mode {mode}: leave one out"
            )
        return tuple(found.values())
    return (found.pop(mode, EndpointRequest(network=mode)), *found.values())


def _link_options(options: Mapping[str, str], field: str) -> LinkOptions:
    refuse_ignored_options(options, field)
    return parse_link_options(options, field)
