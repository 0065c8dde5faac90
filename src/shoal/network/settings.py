"""What may be set about a node's network, and the names its parts carry in the kernel.

Pure data. Every name holds a mark of the daemon, so that several daemons can share a namespace.
"""

from __future__ import annotations

import hashlib

from shoal.model.base import Struct
from shoal.model.netstate import WIREGUARD_PORT

MARK_LENGTH = 6


def _gateway_ranges() -> tuple[str, ...]:
    """docker_gwbridge's usual ranges first, as Docker's own local pools go."""
    return (
        *(f"172.{second}.0.0/16" for second in range(18, 32)),
        *(f"192.168.{third}.0/20" for third in range(0, 256, 16)),
    )


class NetworkSettings(Struct):
    """Ranges are CIDR text; of a list the first that overlaps no route of the host is taken and kept.

    Attributes:
        gateway_ranges: for tasks without an address in the mesh (egress and host ports).
        link_ranges: /30s for the link between the host and the ingress sandbox.
        sandbox_gateway: the address of `gw0`, next hop of every task in the mesh.
        task_mtu_bytes: of the tasks' links: 50 less than the underlay's, for VXLAN (dataplane.md 1).
        link_mtu_bytes: of the link between the host and the sandbox.
        mesh_network: link addresses of the mesh between nodes, by node number; the same on every node.
        mesh_vni: the VXLAN identifier of the mesh between nodes; the same on every node.
        wireguard_network: of the WireGuard mesh of encrypted networks, by node number; the same on every node.
        wireguard_port: UDP, where this node listens; it is told to the others.
        wireguard_tool, wireguard_program: what sets WireGuard links up; what carries them if the kernel does not.
        has_kernel_wireguard: False: do as on a kernel without WireGuard.
        has_egress_hook: False: do as on a kernel before 5.16, with a rule a node for the way back.
        answers_ipv6: whether published ports answer on IPv6, through a process of its own.
        node_number: this node's number; 0: it has none yet, and takes every backend for its own.
        nft_command: the program that loads whole rulesets.
    """

    gateway_ranges: tuple[str, ...] = _gateway_ranges()
    link_ranges: tuple[str, ...] = tuple(f"172.31.255.{last}/30" for last in range(0, 256, 4))
    sandbox_gateway: str = "169.254.1.1"
    task_mtu_bytes: int = 1450
    link_mtu_bytes: int = 1500
    mesh_network: str = "100.127.0.0/16"
    mesh_vni: int = 4096
    wireguard_network: str = "100.126.0.0/16"
    wireguard_port: int = WIREGUARD_PORT
    wireguard_tool: str = "wg"
    wireguard_program: str = "wireguard-go"
    has_kernel_wireguard: bool = True
    has_egress_hook: bool = True
    answers_ipv6: bool = True
    node_number: int = 0
    nft_command: str = "nft"


class Names(Struct):
    """Names in the kernel: interfaces (15 bytes at most) and nft tables."""

    mark: str
    host_link: str
    table: str
    sandbox_link: str = "eth0"
    sandbox_bridge: str = "gw0"
    mesh_link: str = "ing0"

    @property
    def mesh_table(self) -> str:
        """The tables of the mesh between nodes, in the sandbox."""
        return f"{self.table}_mesh"

    @property
    def path_table(self) -> str:
        """The table that keeps VXLAN's packets out of connection tracking, in the host's namespace."""
        return f"{self.table}_path"

    @property
    def secret_link(self) -> str:
        """The WireGuard link of encrypted networks, in the host's namespace."""
        return f"shwg-{self.mark}"

    @property
    def secret_table(self) -> str:
        """The table that keeps encrypted networks from the wire, in the host's namespace."""
        return f"{self.table}_secret"


def names_of(daemon_id: str) -> Names:
    """Return the names of a daemon; the mark is a hash, since ids of one machine may begin alike."""
    mark = hashlib.sha256(daemon_id.encode()).hexdigest()[:MARK_LENGTH]
    return Names(mark=mark, host_link=f"ingh-{mark}", table=f"shoal_{mark}")


def link_name_of(task_id: str) -> str:
    """Return the name of the bridge's end of a task's link."""
    return "v" + hashlib.sha256(task_id.encode()).hexdigest()[:12]
