"""What a network's spec says about how it is made: its driver, its options, and the networks that every node has.

Pure. Knows nothing of addresses (`core/allocate`) or of kernels.
"""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.objects import Network
from shoal.model.specs import NetworkSpec

OVERLAY_DRIVER = "overlay"
BRIDGE_DRIVER = "bridge"
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
MTU_OPTION = "com.docker.network.driver.mtu"
ENCRYPTED_OPTION = "encrypted"
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
RESERVED_NAMES = frozenset(PREDEFINED_BY_NAME) | {"default", "docker_gwbridge"}


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


def _number(option: str, text: str) -> int:
    try:
        return int(text.strip())
    except ValueError:
        raise ValueError(f'{option}: "{text}" is no number') from None
