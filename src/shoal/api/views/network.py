"""Networks as Docker's JSON: the swarm's, the node's own three, and the form tasks carry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import zip_longest

from shoal.api.views.shared import Json, endpoint_id, mac_of, meta_view, plain, time_text
from shoal.core.container import task_name
from shoal.core.ingress import is_placed, is_serving
from shoal.core.networks import GATEWAY_NAME, OVERLAY_DRIVER, VNI_OPTION
from shoal.core.overlay import data_path
from shoal.model.container import Container
from shoal.model.objects import Network, Node, Service, Task
from shoal.store.view import View

SHORT_ID_LENGTH = 12


def network_view(network: Network) -> Json:
    """Return a swarm network as `GET /networks` lists it."""
    return {
        "Name": network.spec.name,
        "Id": network.id,
        "Created": time_text(network.meta.created_at_ns),
        "Scope": "swarm",
        "Driver": network.spec.driver or OVERLAY_DRIVER,
        "EnableIPv4": network.spec.enable_ipv4 is not False,
        "EnableIPv6": network.spec.enable_ipv6,
        "IPAM": {
            "Driver": network.spec.ipam.driver or "default",
            "Options": network.spec.ipam.options or None,
            "Config": _pools(network),
        },
        "Internal": network.spec.internal,
        "Attachable": network.spec.attachable,
        "Ingress": network.spec.ingress,
        "ConfigFrom": {"Network": network.spec.config_from.network if network.spec.config_from else ""},
        "ConfigOnly": network.spec.config_only,
        "Containers": None,
        "Options": _options(network),
        "Labels": network.spec.labels or None,
    }


def local_view(network: Network, containers: Iterable[Container]) -> Json:
    """Return a network that this node makes for itself with those of the containers that are on it."""
    shown: Json = {}
    for container in containers:
        plain = container.config.plain
        is_placed = plain is not None or container.state.status == "running"
        for place in plain.attachments if plain is not None else container.config.networks:
            if place.network_id == network.id and is_placed:
                by_family = {":" in address: address for address in place.addresses}
                shown[container.id] = {
                    "Name": container.config.name,
                    "EndpointID": endpoint_id(network.id, container.config.name),
                    "MacAddress": mac_of(by_family.get(False, "")),
                    "IPv4Address": by_family.get(False, ""),
                    "IPv6Address": by_family.get(True, ""),
                }
    view = network_view(network)
    return view | {
        "Scope": network.spec.scope,
        "Containers": shown,
        "Options": dict(network.spec.options),
        "Labels": dict(network.spec.labels),
    }


def _pools(network: Network) -> list[Json]:
    if not network.subnets:
        # it only holds configuration, or each node gives it subnets of its own
        return [plain(pool) for pool in network.spec.ipam.config]
    asked = {pool.subnet: pool for pool in network.spec.ipam.config}
    pools: list[Json] = []
    for subnet, gateway in zip_longest(network.subnets, network.gateways, fillvalue=""):
        view: Json = {"Subnet": subnet}
        pool = asked.get(subnet)
        if pool is not None and pool.ip_range:
            view["IPRange"] = pool.ip_range
        view["Gateway"] = gateway.partition("/")[0]
        if pool is not None and pool.auxiliary_addresses:
            view["AuxiliaryAddresses"] = pool.auxiliary_addresses
        pools.append(view)
    return pools


def _options(network: Network) -> Json | None:
    options: Json = dict(network.spec.options)
    if network.vni:
        options[VNI_OPTION] = str(network.vni)
    return options or None


def with_containers(network: Json, view: View, node_id: str) -> Json:
    """Return a network with its containers on this node, as Docker shows them where there are any."""
    containers: Json = {}
    for task in view.tasks_on(network["Id"]):
        service = view.get(Service, task.service_id)
        container = task.container or task.status.container
        if task.node_id != node_id or container is None or not container.container_id:
            continue
        if task.container is None and service is None:
            continue
        name = task.container.name if task.container is not None else ""
        if service is not None:
            name = task_name(service.spec.name, task)
        by_family = _addresses(task, network["Id"])
        containers[container.container_id] = {
            "Name": name,
            "EndpointID": endpoint_id(network["Id"], name),
            "MacAddress": mac_of(by_family[0]),
            "IPv4Address": by_family[0],
            "IPv6Address": by_family[1],
        }
    return {**network, "Containers": containers} if containers else network


def verbose_view(network: Network, view: View) -> Json:
    """Return what `docker network inspect --verbose` adds: the services with their tasks, and the nodes."""
    hosts = {peer.node_number: peer.address for peer in data_path(view.find(Node), None).peers}
    tasks = [task for task in view.tasks_on(network.id) if is_placed(task)]
    nodes = {node.id: node for node in view.find(Node)}
    services: Json = {}
    for service in sorted(view.services_on(network.id), key=lambda each: each.spec.name):
        virtual_ip = next((ip for ip in service.endpoint.virtual_ips if ip.network_id == network.id), None)
        mine = [task for task in tasks if task.service_id == service.id and is_serving(task)]
        services[service.spec.name] = {
            "VIP": virtual_ip.address.partition("/")[0] if virtual_ip is not None else "<nil>",
            "Ports": [
                f"Target: {port.target_port}, Publish: {port.published_port}"
                for port in service.endpoint.ports
                if network.spec.ingress
            ],
            "LocalLBIndex": 0,
            "Tasks": [
                {
                    "Name": task_name(service.spec.name, task),
                    "EndpointID": endpoint_id(network.id, task_name(service.spec.name, task)),
                    "EndpointIP": _addresses(task, network.id)[0].partition("/")[0],
                    "Info": {"Host IP": hosts.get(nodes[task.node_id].number, "") if task.node_id in nodes else ""},
                }
                for task in mine
            ],
        }
    there = {task.node_id for task in tasks}
    peers = [
        {"Name": node.id[:SHORT_ID_LENGTH], "IP": hosts.get(node.number, "")}
        for node in sorted(nodes.values(), key=lambda each: each.number)
        if node.id in there or network.spec.ingress
    ]
    return {"Peers": peers, "Services": services}


def _addresses(task: Task, network_id: str) -> tuple[str, str]:
    """Return a task's addresses on a network, IPv4 and IPv6, empty for none."""
    held = [address for each in task.attachments if each.network_id == network_id for address in each.addresses]
    first = next((address for address in held if ":" not in address), "")
    return first, next((address for address in held if ":" in address), "")


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


def local_network_views(daemon_id: str, way_out: tuple[str, str]) -> list[Json]:
    """Return the networks every node has of its own; their ids are drawn from the daemon's.

    Args:
        daemon_id: of the node's daemon.
        way_out: the one network that stands behind `bridge` and `docker_gwbridge`, and its gateway.
    """
    pools: list[Json] = [{"Subnet": way_out[0], "Gateway": way_out[1]}]
    return [
        _local(daemon_id, "bridge", "bridge", pools),
        _local(daemon_id, "host", "host", None),
        _local(daemon_id, "none", "null", None),
        _local(daemon_id, GATEWAY_NAME, "bridge", pools),
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
