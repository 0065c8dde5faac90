"""What the WireGuard mesh of encrypted networks should be, and its texts: for `wg`, and for nft's guard. Pure.

Every node has an address in the mesh by its number; VXLAN of encrypted networks travels between these only.
"""

from __future__ import annotations

from collections.abc import Collection

from shoal.errors import Unavailable
from shoal.model.base import Struct
from shoal.model.netstate import DataPath
from shoal.network.mesh_state import link_address
from shoal.network.nft import replace_table
from shoal.network.settings import Names, NetworkSettings

# of WireGuard over IPv6, the longer one: 40 + 8 + 32
WIREGUARD_BYTES = 80
VXLAN_BYTES = 50
LEAST_MTU_BYTES = 1280


class SecretPeer(Struct):
    """Another node: its public key, where it is reached (`port`: UDP), and its address in the mesh."""

    key: str
    host: str
    port: int
    address: str


class SecretMesh(Struct):
    """This node's address in the mesh, its UDP port, and the others in order of their numbers."""

    address: str
    port: int
    peers: tuple[SecretPeer, ...] = ()


def desired_secret(data_path: DataPath, node_number: int, settings: NetworkSettings) -> SecretMesh:
    """Return the mesh; nodes that have announced no key are left out.

    Raises:
        Unavailable: this node has no number yet.
    """
    if not node_number:
        raise Unavailable("this node has no number in the swarm yet: encrypted networks cannot be carried")
    peers = (
        SecretPeer(
            key=peer.wireguard_key,
            host=peer.address,
            port=peer.wireguard_port,
            address=link_address(settings.wireguard_network, peer.node_number),
        )
        for peer in sorted(data_path.peers, key=lambda peer: peer.node_number)
        if peer.wireguard_key and peer.node_number != node_number
    )
    return SecretMesh(
        address=link_address(settings.wireguard_network, node_number),
        port=settings.wireguard_port,
        peers=tuple(peers),
    )


def peers_to_greet(
    before: SecretMesh | None, after: SecretMesh, has_new_key: bool, wanted: Collection[str]
) -> list[str]:
    """Return the addresses of the peers with whom keys are to be agreed on anew.

    Args:
        before: the mesh as it was.
        after: as it is.
        has_new_key: this node's own key is another one.
        wanted: the addresses of the nodes that are talked to; others are left alone.
    """
    had = {peer.address: peer.key for peer in before.peers} if before is not None else {}
    return [
        peer.address
        for peer in after.peers
        if peer.address in wanted and (has_new_key or had.get(peer.address) != peer.key)
    ]


def published_key(data_path: DataPath, node_number: int) -> str:
    """Return the public key of this node that the swarm has told, empty if it has told none."""
    return next((peer.wireguard_key for peer in data_path.peers if peer.node_number == node_number), "")


def secret_hosts(data_path: DataPath, node_number: int, settings: NetworkSettings) -> dict[int, str]:
    """Return the addresses in the mesh of the other nodes that have announced a key, by number."""
    return {
        peer.node_number: link_address(settings.wireguard_network, peer.node_number)
        for peer in data_path.peers
        if peer.wireguard_key and peer.node_number != node_number
    }


def secret_mtu_bytes(plain_mtu_bytes: int) -> int:
    """Return how long packets of an encrypted network may be where those of a plain one may be so long."""
    return max(plain_mtu_bytes - WIREGUARD_BYTES, LEAST_MTU_BYTES)


def render_configuration(mesh: SecretMesh, private_key: str) -> str:
    """Return what `wg syncconf` reads."""
    lines = ["[Interface]", f"PrivateKey = {private_key}", f"ListenPort = {mesh.port}"]
    for peer in mesh.peers:
        host = f"[{peer.host}]" if ":" in peer.host else peer.host
        lines += ["[Peer]", f"PublicKey = {peer.key}", f"Endpoint = {host}:{peer.port}"]
        lines.append(f"AllowedIPs = {peer.address}/32")
    return "\n".join(lines) + "\n"


def render_guard(names: Names, port: int, vnis: Collection[int]) -> str:
    """Return nft's rules that drop frames of encrypted networks in the clear, whichever way they go.

    The kernel takes a VXLAN packet by its identifier alone, from any link: without this anybody on the wire could put
    frames into an encrypted network, and a lost link would let them out.
    """
    # VXLAN's identifier: 24 bits, after 8 bytes of UDP and 4 of flags
    frames = f"udp dport {port} @th,96,24 {{ {', '.join(str(vni) for vni in sorted(vnis))} }} drop"
    body = (
        "chain incoming {\ntype filter hook prerouting priority -300; policy accept;\n"
        f'iifname != "{names.secret_link}" {frames}\n}}\n'
        "chain outgoing {\ntype filter hook output priority -300; policy accept;\n"
        f'oifname != "{names.secret_link}" {frames}\n}}\n'
    )
    return replace_table("inet", names.secret_table, body)
