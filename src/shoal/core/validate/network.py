"""A NetworkSpec as it is stored: what is filled in, and what is refused (docker-swarm.md 1.2, 3.7)."""

from __future__ import annotations

import ipaddress

from shoal.core.networks import (
    BRIDGE_DRIVER,
    GATEWAY_NAME,
    MACVLAN_DRIVER,
    MACVLAN_MODE_OPTION,
    MACVLAN_MODES,
    MTU_OPTION,
    NO_DRIVER,
    NODE_LOCAL_DRIVERS,
    OVERLAY_DRIVER,
    PARENT_OPTION,
    RESERVED_NAMES,
    local_options,
    overlay_options,
)
from shoal.core.validate.names import validate_dns_name
from shoal.errors import Forbidden, InvalidArgument, NotBuilt, NotFound
from shoal.model.base import replace
from shoal.model.specs import IPAMPool, NetworkSpec

CONFIG = "invalid network config:\n"
VNI_MOST = 2**24 - 1
# IPv6 needs 1280, and no path carries more than this
MTU_LEAST_BYTES = 576
MTU_MOST_BYTES = 65_485
LONGEST_IPV4_PREFIX = 29
CONFIG_ONLY_FIELDS = (
    "configuration network can only contain network specific fields. Network operator fields like "
    "[ ingress | internal | attachable | scope ] are not supported."
)
# what is so anyway
BRIDGE_OPTIONS = {
    "com.docker.network.bridge.enable_icc": "true",
    "com.docker.network.bridge.enable_ip_masquerade": "true",
    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",  # noqa: S104 - what Docker's client writes
}
GATEWAY_OPTIONS = BRIDGE_OPTIONS | {
    "com.docker.network.bridge.name": GATEWAY_NAME,
    "com.docker.network.bridge.enable_icc": "false",
}
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def prepare_network(spec: NetworkSpec) -> NetworkSpec:
    """Return `spec` as it is stored.

    Raises:
        Forbidden: the name is one of Docker's own networks.
        InvalidArgument: a name, subnet, range, gateway or option that is none; parts that exclude each other.
        NotFound: a driver that Shoal does not have, as Docker says it of a plugin.
        NotBuilt: another way of giving addresses, a driver that is not built.
    """
    _check_name(spec)
    if spec.name == GATEWAY_NAME:
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network")
    driver = spec.driver or OVERLAY_DRIVER
    config_from = spec.config_from if spec.config_from is not None and spec.config_from.network else None
    spec = replace(spec, driver=driver, scope="swarm", config_from=config_from)
    _check_addresses(spec)
    if driver not in (OVERLAY_DRIVER, *NODE_LOCAL_DRIVERS):
        raise NotFound(f'plugin "{driver}" not found')
    if spec.config_only:
        raise InvalidArgument(f"{CONFIG_ONLY_FIELDS}; leave --scope out")
    if driver != OVERLAY_DRIVER:
        return _prepare_node_local(spec)
    _check_overlay(spec)
    return replace(spec, ipam=replace(spec.ipam, driver="default"))


def prepare_local_network(spec: NetworkSpec) -> NetworkSpec:
    """Return the spec of a network of one node as it is kept. Raises as `prepare_network`."""
    _check_name(spec)
    driver = spec.driver or BRIDGE_DRIVER
    config_from = spec.config_from if spec.config_from is not None and spec.config_from.network else None
    if driver not in NODE_LOCAL_DRIVERS:
        raise NotFound(f'plugin "{driver}" not found')
    if spec.ingress and not spec.config_only:
        raise InvalidArgument("Ingress: only a network of the swarm (-d overlay) can be the routing mesh's")
    _check_addresses(spec)
    spec = replace(spec, driver=driver, config_from=config_from, ipam=replace(spec.ipam, driver="default"))
    if spec.config_only:
        if spec.ingress or spec.internal or spec.attachable or spec.scope:
            raise InvalidArgument(CONFIG_ONLY_FIELDS)
        if config_from is not None:
            raise InvalidArgument("ConfigFrom: a configuration network cannot depend on another configuration network")
        return replace(spec, driver=NO_DRIVER, scope="local")
    return replace(_prepare_node_local(spec), scope="local")


def _prepare_node_local(spec: NetworkSpec) -> NetworkSpec:
    """Check what a network that a node makes for itself says by itself; what it takes from another is for the node."""
    if spec.ingress:
        raise InvalidArgument("Ingress: only an overlay network (-d overlay) can be the routing mesh's")
    spec = replace(spec, ipam=replace(spec.ipam, driver="default"))
    if spec.config_from is None:
        check_local_network(spec)
        return spec
    check_local_driver(spec)
    if spec.options:
        raise Forbidden("network driver options are not supported if the network depends on a configuration network")
    if spec.labels or spec.enable_ipv6 or spec.ipam.config or spec.ipam.options:
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration network: "
            f"subnets, --ipv6 and labels are those of {spec.config_from.network}"
        )
    return spec


def check_local_driver(spec: NetworkSpec) -> None:
    """Refuse drivers of networks that a node makes for itself. Raises Forbidden (one is all), NotBuilt."""
    if spec.driver in ("host", NO_DRIVER):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver not in (BRIDGE_DRIVER, MACVLAN_DRIVER):
        raise NotBuilt(f'networks with the driver "{spec.driver}" are not built: use -d macvlan, or bridge')


def check_local_network(spec: NetworkSpec) -> None:
    """Check a network that a node makes for itself, with all it takes from another.

    Raises:
        Forbidden, NotBuilt: its driver or an option.
        InvalidArgument: an option that is none.
    """
    check_local_driver(spec)
    if spec.enable_ipv4 is False:
        raise InvalidArgument("EnableIPv4: a network needs IPv4; leave it on and add --ipv6 for both")
    if spec.name == GATEWAY_NAME:
        _check_gateway_network(spec)
        return
    is_macvlan = spec.driver == MACVLAN_DRIVER
    for option, value in spec.options.items():
        is_known = option in (PARENT_OPTION, MACVLAN_MODE_OPTION) if is_macvlan else _is_so_anyway(option, value)
        if not is_known and option != MTU_OPTION:
            raise NotBuilt(
                f"Options: {option}={value} of a network with driver {spec.driver} is not built: leave it out"
            )
    try:
        options = local_options(spec)
    except ValueError as error:
        raise InvalidArgument(f"Options: {error}") from None
    if options.parent == "lo":
        raise InvalidArgument("Options: loopback interface is not a valid macvlan parent link")
    if is_macvlan and spec.options.get(MACVLAN_MODE_OPTION, "") not in ("", *MACVLAN_MODES):
        raise InvalidArgument(
            f"Options: requested macvlan mode '{spec.options[MACVLAN_MODE_OPTION]}' is not valid, "
            f"'bridge' mode is the macvlan driver default; it is one of {', '.join(MACVLAN_MODES)}"
        )


def _check_gateway_network(spec: NetworkSpec) -> None:
    """Check what is asked of the network by which containers go out. Raises NotBuilt by the name of a field."""
    refused = (
        ("Driver", spec.driver != BRIDGE_DRIVER),
        ("EnableIPv6", spec.enable_ipv6),
        ("Internal", spec.internal),
        ("IPAM.Config: more than one subnet", len(spec.ipam.config) > 1),
    )
    for field, is_asked in refused:
        if is_asked:
            raise NotBuilt(f"{field} of {GATEWAY_NAME} is not built: leave it out")
    for option, value in spec.options.items():
        if GATEWAY_OPTIONS.get(option) != value.lower() and option != MTU_OPTION:
            raise NotBuilt(f"Options: {option}={value} of {GATEWAY_NAME} is not built: leave it out")
    try:
        mtu_bytes = local_options(spec).mtu_bytes
    except ValueError as error:
        raise InvalidArgument(f"Options: {error}") from None
    if mtu_bytes and not MTU_LEAST_BYTES <= mtu_bytes <= MTU_MOST_BYTES:
        raise InvalidArgument(f"Options: an MTU goes from {MTU_LEAST_BYTES} to {MTU_MOST_BYTES}")


def _is_so_anyway(option: str, value: str) -> bool:
    return BRIDGE_OPTIONS.get(option) == value.lower()


def _check_name(spec: NetworkSpec) -> None:
    if spec.name in RESERVED_NAMES:
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network")
    if not spec.name:
        raise InvalidArgument("invalid name: ")
    validate_dns_name(spec.name)


def _check_addresses(spec: NetworkSpec) -> None:
    if spec.ipam.driver not in ("", "default"):
        raise NotBuilt(f'IPAM driver "{spec.ipam.driver}": Shoal has the driver "default" only')
    for pool in spec.ipam.config:
        _check_pool(pool)
    _refuse_overlaps(spec)


def _check_overlay(spec: NetworkSpec) -> None:
    if spec.config_from is not None:
        raise InvalidArgument("ConfigFrom: an overlay network takes no configuration from another network")
    if spec.ingress and spec.attachable:
        raise InvalidArgument("Attachable: the ingress network cannot be attachable")
    if spec.ingress and spec.internal:
        raise InvalidArgument("Internal: the ingress network cannot be internal")
    if spec.enable_ipv4 is False:
        raise InvalidArgument("EnableIPv4: an overlay network needs IPv4; leave it on and add --ipv6 for both")
    if any(network_of(pool).version == 6 for pool in spec.ipam.config) and not spec.enable_ipv6:
        raise InvalidArgument("IPAM: an IPv6 subnet needs --ipv6 (EnableIPv6)")
    try:
        options = overlay_options(spec.options)
    except ValueError as error:
        raise InvalidArgument(f"Options: {error}") from None
    if any(not 1 <= vni <= VNI_MOST for vni in options.vnis):
        raise InvalidArgument(f"Options: a VXLAN id goes from 1 to {VNI_MOST}")
    if options.mtu_bytes and not MTU_LEAST_BYTES <= options.mtu_bytes <= MTU_MOST_BYTES:
        raise InvalidArgument(f"Options: an MTU goes from {MTU_LEAST_BYTES} to {MTU_MOST_BYTES}")
    if spec.enable_ipv6 and 0 < options.mtu_bytes < 1280:
        raise InvalidArgument("Options: with IPv6 an MTU of 1280 or more is needed")


def _check_pool(pool: IPAMPool) -> None:
    if not pool.subnet:
        if pool.gateway or pool.ip_range or pool.auxiliary_addresses:
            raise InvalidArgument("IPAM: a range, a gateway or reserved addresses need a subnet: add --subnet")
        return
    subnet = network_of(pool)
    if subnet.version == 4 and subnet.prefixlen > LONGEST_IPV4_PREFIX:
        raise InvalidArgument(f"IPAM: subnet {pool.subnet} is too small: a mask of {LONGEST_IPV4_PREFIX} at most")
    if pool.ip_range:
        try:
            inner = ipaddress.ip_network(pool.ip_range)
        except ValueError:
            raise InvalidArgument(f'IPAM: invalid ip-range "{pool.ip_range}": use CIDR form') from None
        if inner.version != subnet.version or not inner.subnet_of(subnet):  # type: ignore[arg-type]
            raise InvalidArgument(f"IPAM: no matching subnet for range {pool.ip_range}")
    addresses = {
        "gateway": pool.gateway,
        **{f"aux-address {name}": at for name, at in pool.auxiliary_addresses.items()},
    }
    for word, text in addresses.items():
        if text:
            _check_within(subnet, word, text)


def _check_within(subnet: IPNetwork, word: str, text: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f'IPAM: invalid {word} "{text}": it is no address') from None
    if address not in subnet or address == subnet.network_address:
        raise InvalidArgument(f"IPAM: no matching subnet for {word} {text}: it is not within {subnet}")


def network_of(pool: IPAMPool) -> IPNetwork:
    """Return a pool's subnet. Raises InvalidArgument: it is none."""
    try:
        return ipaddress.ip_network(pool.subnet)
    except ValueError:
        try:
            meant = ipaddress.ip_network(pool.subnet, strict=False)
        except ValueError:
            raise InvalidArgument(f"{CONFIG}invalid subnet {pool.subnet}: invalid CIDR block notation") from None
        raise InvalidArgument(f"{CONFIG}invalid subnet {pool.subnet}: it should be {meant}") from None


def _refuse_overlaps(spec: NetworkSpec) -> None:
    subnets = [network_of(pool) for pool in spec.ipam.config if pool.subnet]
    for index, first in enumerate(subnets):
        for second in subnets[index + 1 :]:
            if first.version == second.version and first.overlaps(second):
                raise InvalidArgument(f"IPAM: the subnets {first} and {second} of the network overlap")
