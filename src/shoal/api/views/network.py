"""Networks as Docker's JSON: the swarm's, the node's own three, and the form tasks carry."""

from __future__ import annotations

import hashlib
from itertools import zip_longest

from shoal.api.views.shared import Json, meta_view, time_text
from shoal.model.objects import Network

OVERLAY_DRIVER = "overlay"
VNI_OPTION = "com.docker.network.driver.overlay.vxlanid_list"
BRIDGE_SUBNET = "172.17.0.0/16"
BRIDGE_GATEWAY = "172.17.0.1"
GATEWAY_BRIDGE_SUBNET = "172.18.0.0/16"
GATEWAY_BRIDGE_GATEWAY = "172.18.0.1"


def network_view(network: Network) -> Json:
    """Return a swarm network as `GET /networks` lists it."""
    return {
        "Name": network.spec.name,
        "Id": network.id,
        "Created": time_text(network.meta.created_at_ns),
        "Scope": "swarm",
        "Driver": network.spec.driver or OVERLAY_DRIVER,
        "EnableIPv4": True,
        "EnableIPv6": network.spec.enable_ipv6,
        "IPAM": {"Driver": network.spec.ipam.driver or "default", "Options": None, "Config": _pools(network)},
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": network.spec.ingress,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": _options(network),
        "Labels": network.spec.labels or None,
    }


def _pools(network: Network) -> list[Json]:
    pairs = zip_longest(network.subnets, network.gateways, fillvalue="")
    return [{"Subnet": subnet, "Gateway": gateway.partition("/")[0]} for subnet, gateway in pairs]


def _options(network: Network) -> Json | None:
    options: Json = dict(network.spec.options)
    if network.vni:
        options[VNI_OPTION] = str(network.vni)
    return options or None


def attached_network_view(network: Network) -> Json:
    """Return a network as a task's attachment carries it."""
    spec: Json = {"Name": network.spec.name, "Labels": network.spec.labels, "DriverConfiguration": {}}
    if network.spec.driver:
        spec["DriverConfiguration"] = {"Name": network.spec.driver}
    for key, value in (
        ("Internal", network.spec.internal),
        ("Attachable", network.spec.attachable),
        ("Ingress", network.spec.ingress),
    ):
        if value:
            spec[key] = True
    if network.spec.ingress:
        spec["IPAMOptions"] = {"Driver": {}}
    spec["Scope"] = "swarm"
    driver_state: Json = {"Name": network.spec.driver or OVERLAY_DRIVER}
    options = _options(network)
    if options:
        driver_state["Options"] = options
    view = meta_view(network.id, network.meta)
    view["Spec"] = spec
    view["DriverState"] = driver_state
    view["IPAMOptions"] = {"Driver": {"Name": "default"}, "Configs": _pools(network)}
    return view


def local_network_views(daemon_id: str) -> list[Json]:
    """Return the networks every node has of its own; their ids are drawn from the daemon's."""
    return [
        _local(daemon_id, "bridge", "bridge", [{"Subnet": BRIDGE_SUBNET, "Gateway": BRIDGE_GATEWAY}]),
        _local(daemon_id, "host", "host", None),
        _local(daemon_id, "none", "null", None),
        _local(
            daemon_id,
            "docker_gwbridge",
            "bridge",
            [{"Subnet": GATEWAY_BRIDGE_SUBNET, "Gateway": GATEWAY_BRIDGE_GATEWAY}],
        ),
    ]


def _local(daemon_id: str, name: str, driver: str, pools: list[Json] | None) -> Json:
    return {
        "Name": name,
        "Id": hashlib.sha256(f"{daemon_id}/{name}".encode()).hexdigest(),
        "Created": time_text(0),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }
