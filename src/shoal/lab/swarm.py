"""Making one swarm of nodes that run: the first founds it, the others join by its tokens, all over Docker's API.

Must not know of namespaces and processes. Blocking.
"""

from __future__ import annotations

import time
from typing import Any

from shoal.client.connection import Answer, Client, NoDaemon
from shoal.errors import ShoalError
from shoal.lab.plan import Role
from shoal.model.base import Struct

PORT = 2377
LISTEN_ADDRESS = f"0.0.0.0:{PORT}"
LOOK_SECONDS = 2.0
CHANGE_SECONDS = 30.0
POLL_SECONDS = 0.05
STALE_HEADER = "X-Shoal-Stale"
OUTSIDE = "inactive"


class Membership(Struct):
    """What a node says of itself: its state in the swarm, its id, whether it is a manager, and what is wrong."""

    state: str
    node_id: str = ""
    is_manager: bool = False
    error: str = ""


class Member(Struct):
    """What a manager says of a node; `manager` is leader, reachable, unreachable, or empty for a worker."""

    node_id: str
    host_name: str
    state: str
    availability: str
    manager: str = ""


def look(client: Client) -> Membership | None:
    """Ask a node about itself; None if it does not answer soon."""
    try:
        answer = client.request("GET", "/info", timeout_seconds=LOOK_SECONDS)
    except NoDaemon:
        return None
    if answer.status != 200:
        return None
    said = answer.body["Swarm"]
    return Membership(
        state=said.get("LocalNodeState") or OUTSIDE,
        node_id=said.get("NodeID") or "",
        is_manager=bool(said.get("ControlAvailable")),
        error=said.get("Error") or "",
    )


def list_members(client: Client) -> tuple[list[Member], bool] | None:
    """Ask a manager for the nodes, and whether what it says may be old; None if it does not answer."""
    try:
        answer = client.request("GET", "/nodes", timeout_seconds=LOOK_SECONDS)
    except NoDaemon:
        return None
    if answer.status != 200:
        return None
    return [_member(node) for node in answer.body], bool(answer.headers.get(STALE_HEADER))


def _member(node: dict[str, Any]) -> Member:
    status = node.get("ManagerStatus") or {}
    return Member(
        node_id=node["ID"],
        host_name=(node.get("Description") or {}).get("Hostname", ""),
        state=node["Status"]["State"],
        availability=node["Spec"].get("Availability", ""),
        manager="leader" if status.get("Leader") else status.get("Reachability", ""),
    )


def found(client: Client, address: str) -> None:
    """Make a swarm of one manager.

    Raises:
        ShoalError: the node refuses.
    """
    body = {"ListenAddr": LISTEN_ADDRESS, "AdvertiseAddr": address, "Spec": {"Labels": {}}}
    _demand(client.request("POST", "/swarm/init", body), f"the node at {address} founds no swarm")


def read_tokens(client: Client) -> dict[Role, str]:
    """Ask a manager for the tokens nodes join with.

    Raises:
        ShoalError: it has no quorum, or is no manager.
    """
    answer = client.request("GET", "/swarm", timeout_seconds=CHANGE_SECONDS)
    tokens = _demand(answer, "the swarm gives no join tokens")["JoinTokens"]
    return {"manager": tokens["Manager"], "worker": tokens["Worker"]}


def join(client: Client, address: str, token: str, remote: str) -> None:
    """Have a node join the swarm of the manager at `remote`.

    Raises:
        ShoalError: it is refused.
    """
    body = {
        "ListenAddr": LISTEN_ADDRESS,
        "AdvertiseAddr": address,
        "RemoteAddrs": [f"{remote}:{PORT}"],
        "JoinToken": token,
    }
    _demand(client.request("POST", "/swarm/join", body), f"the node at {address} cannot join by {remote}")


def import_image(client: Client, name: str, archive: bytes) -> None:
    """Give a node an image.

    Raises:
        ShoalError: it refuses.
    """
    answer = client.request("POST", f"/images/create?fromSrc=-&repo={name}&tag=latest", archive)
    _demand(answer, f"the image {name} cannot be imported")


def has_image(client: Client, name: str) -> bool:
    """Whether a node has an image."""
    return client.request("GET", f"/images/{name}:latest/json").status == 200


def make_worker(manager: Client, node_id: str) -> None:
    """Demote a node if it is a manager, by another manager, and wait until it is none.

    Raises:
        ShoalError: refused, as for the last manager, or not in time.
    """
    deadline = time.monotonic() + CHANGE_SECONDS
    while True:
        node = _demand(manager.request("GET", f"/nodes/{node_id}"), f"node {node_id} cannot be read")
        if node["Spec"]["Role"] == "worker" and not node.get("ManagerStatus"):
            return
        if node["Spec"]["Role"] == "manager":
            spec = {**node["Spec"], "Role": "worker"}
            target = f"/nodes/{node_id}/update?version={node['Version']['Index']}"
            answer = manager.request("POST", target, spec)
            if "out of sequence" not in str(answer.body):
                _demand(answer, f"node {node_id} cannot be demoted")
        if time.monotonic() > deadline:
            raise ShoalError(f"node {node_id} is still a manager after {CHANGE_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def leave(client: Client) -> None:
    """Have a node leave its swarm, whatever becomes of the swarm.

    Raises:
        ShoalError: it refuses.
    """
    _demand(client.request("POST", "/swarm/leave?force=1"), "the node cannot leave")


def remove_member(manager: Client, node_id: str) -> None:
    """Have a manager forget a node.

    Raises:
        ShoalError: it refuses.
    """
    answer = manager.request("DELETE", f"/nodes/{node_id}?force=1")
    if answer.status != 404:
        _demand(answer, f"node {node_id} cannot be removed")


def _demand(answer: Answer, what: str) -> Any:
    if answer.status >= 400:
        reason = answer.body.get("message") if isinstance(answer.body, dict) else answer.body
        raise ShoalError(f"{what}: {reason}")
    return answer.body
