"""What joins this node's ingress sandbox to those of other nodes, and the steps to it from what is there. Pure.

Every node has a number in the swarm: MAC, address and mark in the mesh follow from it (dataplane.md 3 and 3b).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

from shoal.errors import InvalidArgument
from shoal.model.base import Struct
from shoal.model.netstate import DataPath, IngressState

DEFAULT_PORT = 4789
HIGHEST_NODE_NUMBER = 65_535
# set in the mark of a packet that is to go back through another node; the number is in the lower half
RETURN_BIT = 0x10000
RETURN_MASK = RETURN_BIT | HIGHEST_NODE_NUMBER
_MAC_PREFIX = b"\x02\x42\x0a\xff"
# of the next hop that does not exist: no node's, since those begin otherwise
NOWHERE_MAC = b"\x02\x42\x0a\xfe\xff\xfe"


def mac_of_node(number: int) -> bytes:
    """Return the MAC of a node's link in the mesh."""
    return _MAC_PREFIX + number.to_bytes(2, "big")


def node_of_mac(mac: bytes) -> int:
    """Return the number of the node with a MAC, 0 if it is no node's."""
    return int.from_bytes(mac[4:], "big") if len(mac) == 6 and mac.startswith(_MAC_PREFIX) else 0


def mark_of_node(number: int) -> int:
    """Return the mark of flows that came through a node."""
    return RETURN_BIT | number


def link_address(network: str, number: int) -> str:
    """Return the address of a node's link in the mesh; that of number 0 is the next hop that does not exist.

    Raises:
        InvalidArgument: the range is too small for the number.
    """
    whole = ipaddress.IPv4Network(network)
    if number >= whole.num_addresses:
        raise InvalidArgument(
            f"the setting mesh_network, {network}, has no address for node {number}: give every node a /16"
        )
    return str(whole[number])


class MeshLink(Struct):
    """The link `ing0` of this node: its number, its address between nodes (None: as the route says), its UDP port.

    `mtu_bytes` 0: as the path between the nodes allows.
    """

    number: int
    local: str | None
    port: int
    mtu_bytes: int = 0


class MeshState(Struct):
    """Without a link there is nothing: the node is alone.

    `remotes`: the address of every other node, by number. `routes`: the node of every task elsewhere, by its address.
    """

    link: MeshLink | None = None
    remotes: dict[int, str] = {}
    routes: dict[str, int] = {}


def desired_mesh(ingress: IngressState, data_path: DataPath, node_number: int) -> MeshState:
    """Return what is to join the nodes: nothing until this node has a number and knows of others."""
    addresses = {peer.node_number: peer.address for peer in data_path.peers if peer.node_number and peer.address}
    own = addresses.pop(node_number, None)
    if not node_number or not addresses:
        return MeshState()
    routes = {
        backend.address: backend.node_number
        for backends in (*(port.backends for port in ingress.ports), ingress.endpoints)
        for backend in backends
        if backend.node_number in addresses
    }
    for backend in ingress.endpoints:
        if backend.node_number == node_number:
            routes.pop(backend.address, None)
    return MeshState(
        link=MeshLink(number=node_number, local=own, port=data_path.port or DEFAULT_PORT),
        remotes=dict(sorted(addresses.items())),
        routes=routes,
    )


def encrypted_mesh(mesh: MeshState, local: str, hosts: Mapping[int, str], mtu_bytes: int) -> MeshState:
    """Return a mesh as it is through WireGuard: nodes that have no address there are left out.

    Args:
        mesh: as it would be in the clear, with a link.
        local: this node's address in WireGuard's mesh.
        hosts: those of the others, by number.
        mtu_bytes: how long packets may be.
    """
    link = mesh.link
    assert link is not None, "there is nothing to encrypt"
    return MeshState(
        link=MeshLink(number=link.number, local=local, port=link.port, mtu_bytes=mtu_bytes),
        remotes={number: hosts[number] for number in mesh.remotes if number in hosts},
        routes={address: number for address, number in mesh.routes.items() if number in hosts},
    )


def nodes_spoken_to(ingress: IngressState, node_number: int, others: Collection[int]) -> frozenset[int]:
    """Return the nodes that this one speaks to in the mesh: those with tasks, and with tasks here all that may ask."""
    with_tasks = {endpoint.node_number for endpoint in ingress.endpoints}
    return frozenset(others) if node_number in with_tasks else frozenset(with_tasks & set(others))


class MeshSteps(Struct):
    """From one MeshState with a link to another with the same link: what is set first, then what goes."""

    remotes: dict[int, str] = {}
    routes: dict[str, int] = {}
    gone_remotes: tuple[int, ...] = ()
    gone_routes: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """Nothing to do."""
        return not (self.remotes or self.routes or self.gone_remotes or self.gone_routes)


def mesh_steps(actual: MeshState, wanted: MeshState) -> MeshSteps:
    """Return the steps."""
    return MeshSteps(
        remotes={number: host for number, host in wanted.remotes.items() if actual.remotes.get(number) != host},
        routes={address: number for address, number in wanted.routes.items() if actual.routes.get(address) != number},
        gone_remotes=tuple(sorted(actual.remotes.keys() - wanted.remotes.keys())),
        gone_routes={address: actual.routes[address] for address in actual.routes.keys() - wanted.routes.keys()},
    )
