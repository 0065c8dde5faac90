"""The way a request to a service takes, from what Docker's API says of it: published ports, entries, tasks, networks.

Pure: takes and returns JSON, and writes lines. Asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
POLICY_LABEL, LOCAL_POLICY = "shoal.ingress.policy", "local"
ENDED = ("complete", "failed", "shutdown", "rejected", "remove", "orphaned")


def trace(service: Json, tasks: Sequence[Json], nodes: Sequence[Json], networks: Mapping[str, Json]) -> dict[str, Any]:
    """Return the ways to a service.

    Args:
        service: as the API gives it.
        tasks: of the service; those that have ended are left out.
        nodes: of the swarm.
        networks: by id, those the service's tasks are on.
    """
    by_id = {node["ID"]: node for node in nodes}
    live = [task for task in tasks if task["Status"]["State"] not in ENDED and task["DesiredState"] != "remove"]
    live.sort(key=lambda task: (task.get("Slot", 0), task["ID"]))
    endpoint = service.get("Endpoint") or {}
    policy = (service["Spec"].get("Labels") or {}).get(POLICY_LABEL, "cluster")
    virtual = {each["NetworkID"]: each.get("Addr", "") for each in endpoint.get("VirtualIPs") or ()}
    shown = [identity for identity, network in networks.items() if _is_traced(network)]
    return {
        "Service": service["Spec"]["Name"],
        "Ports": [_port(port, live, nodes, by_id, policy) for port in endpoint.get("Ports") or ()],
        "Networks": [
            {
                "Name": networks[identity]["Name"],
                "Id": identity,
                "Encrypted": "encrypted" in (networks[identity].get("Options") or {}),
                "VirtualIP": virtual.get(identity, "").partition("/")[0],
                "Tasks": _backends(live, by_id, identity),
            }
            for identity in shown
        ],
    }


def _is_traced(network: Json) -> bool:
    return network.get("Driver") == "overlay" and not network.get("Ingress")


def _port(
    port: Json, tasks: Sequence[Json], nodes: Sequence[Json], by_id: Mapping[str, Json], policy: str
) -> dict[str, Any]:
    is_host = port.get("PublishMode") == "host"
    backends = _backends(tasks, by_id, None)
    serving = {backend["NodeID"] for backend in backends if backend["Serving"]}
    entries = []
    for node in sorted(nodes, key=_name_of):
        down = node["Status"]["State"] != "ready"
        has_task = node["ID"] in serving
        why = ""
        if down:
            why = f"the node is {node['Status']['State']}"
        elif not serving:
            why = "no task serves"
        elif (is_host or policy == LOCAL_POLICY) and not has_task:
            why = "no task serves there, and other nodes' tasks are not led to" if not is_host else "no task is there"
        if not is_host or has_task:
            address = node["Status"].get("Addr", "")
            entries.append({"Node": _name_of(node), "Address": address, "Answers": not why, "Why": why})
    return {
        "Protocol": port.get("Protocol", "tcp"),
        "PublishedPort": port.get("PublishedPort", 0),
        "TargetPort": port.get("TargetPort", 0),
        "Mode": "host" if is_host else "ingress",
        "Policy": "local" if is_host else policy,
        "Entries": entries,
        "Backends": backends,
    }


def _backends(tasks: Sequence[Json], nodes: Mapping[str, Json], network_id: str | None) -> list[dict[str, Any]]:
    """Return the tasks with their addresses on a network; None: in the mesh."""
    found = []
    for task in tasks:
        node = nodes.get(task.get("NodeID", ""))
        why = _why_not(task, node)
        found.append(
            {
                "Task": task["ID"],
                "Slot": task.get("Slot", 0),
                "Node": _name_of(node) if node is not None else "",
                "NodeID": task.get("NodeID", ""),
                "NodeAddress": node["Status"].get("Addr", "") if node is not None else "",
                "Address": _address(task, network_id),
                "Serving": not why,
                "Why": why,
            }
        )
    return found


def _why_not(task: Json, node: Json | None) -> str:
    """Return why a task takes no traffic, empty if it does."""
    status = task["Status"]
    if status["State"] != "running":
        reason = status.get("Err") or status.get("Message") or ""
        return f"it is {status['State']}" + (f": {reason}" if reason else "")
    if task["DesiredState"] != "running":
        return "it is told to stop"
    if node is not None and node["Status"]["State"] == "down":
        return "its node is down"
    return ""


def _address(task: Json, network_id: str | None) -> str:
    for attachment in task.get("NetworksAttachments") or ():
        network = attachment["Network"]
        is_mesh = bool((network.get("Spec") or {}).get("Ingress"))
        if is_mesh if network_id is None else network["ID"] == network_id:
            return str(next(iter(attachment.get("Addresses") or ()), "")).partition("/")[0]
    return ""


def _name_of(node: Json) -> str:
    return str((node.get("Description") or {}).get("Hostname") or node["ID"])


def lines(traced: Json) -> Iterator[str]:
    """Write the ways for people."""
    yield f"service {traced['Service']}"
    if not traced["Ports"] and not traced["Networks"]:
        yield "  it publishes no port and is on no overlay network: nothing leads to it"
    for port in traced["Ports"]:
        local = " to tasks of the same node only" if port["Policy"] == LOCAL_POLICY else ""
        yield f"  port {port['PublishedPort']}/{port['Protocol']} ({port['Mode']}){local} -> {port['TargetPort']}"
        for entry in port["Entries"]:
            state = "answers" if entry["Answers"] else f"refuses: {entry['Why']}"
            yield f"    entry  {entry['Node']} {entry['Address']}:{port['PublishedPort']}  {state}"
        for backend in port["Backends"]:
            at = f"{backend['Address']}:{port['TargetPort']}" if backend["Address"] else f":{port['TargetPort']}"
            yield f"    task   {_backend_text(backend, at)}"
    for network in traced["Networks"]:
        secret = ", encrypted" if network["Encrypted"] else ""
        virtual = f"virtual address {network['VirtualIP']}" if network["VirtualIP"] else "no virtual address (dnsrr)"
        yield f"  network {network['Name']}{secret}: {virtual}"
        for backend in network["Tasks"]:
            yield f"    task   {_backend_text(backend, backend['Address'])}"


def _backend_text(backend: Json, address: str) -> str:
    where = f"on {backend['Node']} ({backend['NodeAddress']})" if backend["Node"] else "on no node"
    state = "serves" if backend["Serving"] else f"does not serve: {backend['Why']}"
    return f"{address or '-'} {where}  {state}  {backend['Task'][:12]}"
