"""What a network's spec says about how it is made: its driver, its options, and the networks that every node has.

Pure. Knows nothing of addresses (`core/allocate`) or of kernels.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.model.base import Struct
from shoal.model.objects import Network
from shoal.model.specs import NetworkSpec

OVERLAY_DRIVER = "overlay"
# those of this program, as a node tells them of itself
NETWORK_DRIVERS = ("bridge", "host", "macvlan", "null", OVERLAY_DRIVER)
BRIDGE_DRIVER = "bridge"
MACVLAN_DRIVER = "macvlan"
# of a network that only holds configuration
NO_DRIVER = "null"
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
MTU_OPTION = "com.docker.network.driver.mtu"
ENCRYPTED_OPTION = "encrypted"
PARENT_OPTION = "parent"
MACVLAN_MODE_OPTION = "macvlan_mode"
MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
# networks of a node itself that a service of the swarm may be on (docker-swarm.md 4.11)
NODE_LOCAL_DRIVERS = frozenset({"bridge", "macvlan", "ipvlan", "host", "null"})

# Docker keeps swarm copies of these in its store; here they are known to every manager, whatever its version was once.
PREDEFINED = {
    network.id: network
    for network in (
        Network(
            id=f"predefined{name:0>15}",
            spec=NetworkSpec(name=name, driver=driver, scope="swarm"),
        )
        for name, driver in (("bridge", "bridge"), ("host", "host"), ("none", "null"))
    )
}
PREDEFINED_BY_NAME = {network.spec.name: network for network in PREDEFINED.values()}
# names that nobody may give a network
RESERVED_NAMES = frozenset(PREDEFINED_BY_NAME) | {"default"}
# that by which containers of a node go out; it may be made by hand before the node is in a swarm
GATEWAY_NAME = "docker_gwbridge"


class OverlayOptions(Struct):
    """What the options of an overlay network say. `vnis`: one a subnet, as asked for; `mtu_bytes` 0: not asked for."""

    vnis: tuple[int, ...] = ()
    mtu_bytes: int = 0
    encrypted: bool = False


def driver_of(spec: NetworkSpec) -> str:
    """Return the driver of a network of the swarm."""
    return spec.driver or OVERLAY_DRIVER


def is_overlay(network: Network) -> bool:
    """Whether a network spans nodes; else it is a network that each node makes for itself."""
    return driver_of(network.spec) == OVERLAY_DRIVER and not network.spec.config_only


def overlay_options(options: dict[str, str]) -> OverlayOptions:
    """Return what checked options of an overlay network mean; unknown ones mean nothing, as in Docker.

    Raises:
        ValueError: a VXLAN id or an MTU that is no number; the text names the option.
    """
    vnis: tuple[int, ...] = ()
    if options.get(VNI_OPTION):
        vnis = tuple(_number(VNI_OPTION, word) for word in options[VNI_OPTION].split(","))
    mtu_bytes = _number(MTU_OPTION, options[MTU_OPTION]) if options.get(MTU_OPTION) else 0
    encrypted = ENCRYPTED_OPTION in options and options[ENCRYPTED_OPTION].lower() not in ("false", "0")
    return OverlayOptions(vnis=vnis, mtu_bytes=mtu_bytes, encrypted=encrypted)


class LocalOptions(Struct):
    """What the options of a network of one node say. `parent`: the link of the host under a macvlan, `mode` how.

    A macvlan without a parent leads nowhere.
    """

    parent: str = ""
    mode: str = ""
    mtu_bytes: int = 0


def local_options(spec: NetworkSpec) -> LocalOptions:
    """Return what the checked options of a network of one node mean. Raises ValueError: an MTU that is no number."""
    mtu_bytes = overlay_options(spec.options).mtu_bytes
    parent = spec.options.get(PARENT_OPTION, "") if spec.driver == MACVLAN_DRIVER else ""
    mode = spec.options.get(MACVLAN_MODE_OPTION, "") or MACVLAN_MODES[0]
    return LocalOptions(parent=parent, mode=mode if parent else "", mtu_bytes=mtu_bytes)


def is_internal(spec: NetworkSpec) -> bool:
    """Whether a network leads nowhere else."""
    return spec.internal or (spec.driver == MACVLAN_DRIVER and not spec.options.get(PARENT_OPTION))


class Exit(Struct):
    """A network a container could go out by. `has_gateway`: of its own; else by the node's way out, as all others."""

    network_id: str
    name: str = ""
    driver: str = ""
    priority: int = 0
    has_gateway: bool = False


def exit_of(network_id: str, name: str, driver: str, priority: int = 0) -> Exit:
    """Return a network, which is not internal, as a container could go out by it."""
    has_gateway = driver == MACVLAN_DRIVER
    return Exit(network_id=network_id, name=name, driver=driver, priority=priority, has_gateway=has_gateway)


def needs_way_out(exits: Iterable[Exit]) -> bool:
    """Whether a container needs the node's way out: a network of no gateway of its own is among those it is on."""
    return any(not each.has_gateway for each in exits)


def choose_exit(exits: Iterable[Exit]) -> str:
    """Return the id of the network whose own gateway a container goes out by; empty: by the node's way out.

    As Docker chooses: the highest priority, then networks of a gateway of their own before overlays, then by name.
    """
    first = min(exits, key=lambda each: (-each.priority, each.driver == OVERLAY_DRIVER, each.name), default=None)
    return first.network_id if first is not None and first.has_gateway else ""


def _number(option: str, text: str) -> int:
    try:
        return int(text.strip())
    except ValueError:
        raise ValueError(f'{option}: "{text}" is no number') from None
