"""The namespaces of overlay networks on this node: a bridge and a VXLAN each, and where tasks on other nodes are.

One of a macvlan's is empty, and is there for as long as the network is used, as all are.
One exists while a task of its network is here. Every step creates what is missing and adopts what is there, so that a
daemon killed at any step heals. What a container has inside is wiring.py's and clients.py's. dataplane.md 1.
Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

import structlog

from shoal.model.base import Struct
from shoal.model.netstate import Overlay
from shoal.network import namespace, rtnetlink, vxlan
from shoal.network.netlink import ROUTE, Message, Socket, attributes
from shoal.network.overlays import Remote, is_ipv4, mac_of_addresses
from shoal.network.plumbing import Plumbing
from shoal.network.records import NetworkRecord, Records

_log = structlog.get_logger(__name__)

PREFIX = "network-"
SHORT_ID_LENGTH = 12
BRIDGE, VXLAN = "br0", "vxlan0"
MESSAGES_PER_SEND = 600
SANDBOX_SETTINGS = (
    ("net/ipv4/ip_forward", "0"),
    ("net/ipv6/conf/all/forwarding", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
)


class Trunk(Struct):
    """What a network's VXLAN is made with; another one of any part is another link."""

    vni: int
    port: int
    local: str | None
    mtu_bytes: int


class OverlaySandbox:
    """One network's namespace: a descriptor, a socket inside, and what it has been told."""

    def __init__(self, path: Path, descriptor: int, links: Socket) -> None:
        self.path = path
        self.descriptor = descriptor
        self.links = links
        self.trunk: Trunk | None = None
        self.overlay: Overlay | None = None
        self.bridge_index = 0
        self.vxlan_index = 0
        self.remotes: dict[bytes, Remote] = {}

    @property
    def mtu_bytes(self) -> int:
        """What every link of the network is set to."""
        return self.trunk.mtu_bytes if self.trunk is not None else 0

    def close(self) -> None:
        """Give the descriptors back."""
        self.links.close()
        os.close(self.descriptor)


class Sandboxes:
    """The networks that have a task here, by id."""

    def __init__(self, directory: Path, plumbing: Plumbing, records: Records) -> None:
        self._directory = directory
        self._plumbing = plumbing
        self._records = records
        self._open: dict[str, OverlaySandbox] = {}

    def __contains__(self, network_id: str) -> bool:
        return network_id in self._open

    def __getitem__(self, network_id: str) -> OverlaySandbox:
        return self._open[network_id]

    def ids(self) -> tuple[str, ...]:
        """Return the networks that have a namespace."""
        return tuple(self._open)

    def path_of(self, network_id: str) -> Path:
        """Return where a network's namespace is bound."""
        return self._directory / f"{PREFIX}{network_id[:SHORT_ID_LENGTH]}"

    def is_there(self, network_id: str) -> bool:
        """Tell whether a namespace of the network exists, made by this daemon or an earlier one."""
        return network_id in self._open or namespace.exists(self.path_of(network_id))

    def adopt(self, network_ids: Collection[str]) -> None:
        """Take up the namespaces of networks that tasks here are on; take all others away."""
        wanted = {self.path_of(network_id): network_id for network_id in network_ids}
        for path in sorted(self._directory.glob(f"{PREFIX}*")):
            if path not in wanted:
                _log.info("removing the namespace of a network without tasks", path=path.name)
                self._destroy(path)
        for path, network_id in wanted.items():
            if namespace.exists(path):
                sandbox = self._enter(path)
                record = self._records.read_network(network_id)
                if record is not None:
                    sandbox.trunk = Trunk(
                        vni=record.vni, port=record.port, local=record.local or None, mtu_bytes=record.mtu_bytes
                    )
                self._open[network_id] = sandbox
                self._find_links(sandbox)
                sandbox.remotes = _told(sandbox)

    def make(self, overlay: Overlay, trunk: Trunk) -> OverlaySandbox:
        """Make a network's namespace whole, or adopt it; its links keep the length of packets they have.

        Raises:
            Unavailable: the VXLAN identifier or the port is another's.
        """
        network_id = overlay.network_id
        sandbox = self._open.get(network_id)
        if sandbox is None:
            path = self.path_of(network_id)
            sandbox = self._enter(path) if namespace.exists(path) else self._new(path)
            self._open[network_id] = sandbox
            self._find_links(sandbox)
            sandbox.remotes = _told(sandbox)
        if sandbox.trunk is not None:
            kept = sandbox.trunk.mtu_bytes
            trunk = Trunk(vni=trunk.vni, port=trunk.port, local=trunk.local, mtu_bytes=kept)
        sandbox.overlay = overlay
        needs_bridge = not overlay.parent and not sandbox.bridge_index
        if sandbox.trunk != trunk or needs_bridge or (trunk.vni and not sandbox.vxlan_index):
            self._build(overlay, sandbox, trunk)
        return sandbox

    def _new(self, path: Path) -> OverlaySandbox:
        os.close(namespace.make(path, self._plumbing.home))
        return self._enter(path)

    def _enter(self, path: Path) -> OverlaySandbox:
        plumbing = self._plumbing
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with namespace.inside(descriptor, plumbing.home):
                for setting, value in SANDBOX_SETTINGS:
                    namespace.write_setting(setting, value)
                links = Socket(ROUTE)
        except BaseException:
            os.close(descriptor)
            raise
        links.enlarge_buffers()
        return OverlaySandbox(path, descriptor, links)

    def _find_links(self, sandbox: OverlaySandbox) -> None:
        sandbox.bridge_index = rtnetlink.link_index(sandbox.links, BRIDGE)
        sandbox.vxlan_index = rtnetlink.link_index(sandbox.links, VXLAN)

    def _build(self, overlay: Overlay, sandbox: OverlaySandbox, trunk: Trunk) -> None:
        if overlay.parent:
            sandbox.trunk = trunk
            return
        if not sandbox.bridge_index:
            sandbox.links.talk(
                [
                    rtnetlink.set_up(rtnetlink.LOOPBACK_INDEX),
                    rtnetlink.add_bridge(BRIDGE, mac_of_addresses(overlay.gateways or ("0.0.0.0",)), trunk.mtu_bytes),  # noqa: S104
                ]
            )
            sandbox.bridge_index = rtnetlink.link_index(sandbox.links, BRIDGE)
        has_ipv6 = any(not is_ipv4(subnet) for subnet in overlay.subnets)
        if has_ipv6:
            self._enable_ipv6(sandbox, BRIDGE)
        addresses = []
        for gateway, subnet in zip(overlay.gateways, overlay.subnets, strict=False):
            addresses.append(rtnetlink.add_address(sandbox.bridge_index, gateway, int(subnet.partition("/")[2])))
        sandbox.links.talk([*addresses, rtnetlink.set_up(sandbox.bridge_index)])
        if sandbox.vxlan_index:
            sandbox.links.talk([rtnetlink.delete_link(VXLAN)])
            sandbox.vxlan_index, sandbox.remotes = 0, {}
        self._records.write_network(
            NetworkRecord(
                network_id=overlay.network_id,
                vni=trunk.vni,
                port=trunk.port,
                local=trunk.local or "",
                mtu_bytes=trunk.mtu_bytes,
            )
        )
        if not trunk.vni:
            # of this node alone
            sandbox.trunk = trunk
            return
        link = vxlan.add_vxlan(
            VXLAN,
            trunk.vni,
            trunk.port,
            sandbox.descriptor,
            trunk.mtu_bytes,
            trunk.local,
            proxy=True,
            bridge_index=sandbox.bridge_index,
        )
        vxlan.create(self._plumbing.host_links, link, trunk.vni, trunk.port)
        sandbox.vxlan_index = rtnetlink.link_index(sandbox.links, VXLAN)
        if has_ipv6:
            self._enable_ipv6(sandbox, VXLAN)
        sandbox.trunk = trunk

    def _enable_ipv6(self, sandbox: OverlaySandbox, link: str) -> None:
        # without it the kernel takes no fixed IPv6 neighbours on the link
        with namespace.inside(sandbox.descriptor, self._plumbing.home):
            namespace.write_setting(f"net/ipv6/conf/{link}/disable_ipv6", "0")

    def tell(self, network_id: str, gone: Collection[bytes], wanted: Mapping[bytes, Remote]) -> int:
        """Say where tasks on other nodes are: `gone` MACs leave, `wanted` come or move; return how many changed."""
        sandbox = self._open[network_id]
        index, known = sandbox.vxlan_index, sandbox.remotes
        messages: list[Message] = []
        for mac in gone:
            old = known.get(mac)
            if old is not None and mac not in wanted:
                messages += _forget(index, old)
        changed = [remote for mac, remote in wanted.items() if known.get(mac) != remote]
        for remote in changed:
            old = known.get(remote.mac)
            if old is not None:
                lost = set(old.addresses) - set(remote.addresses)
                messages += [vxlan.delete_neighbour(index, address) for address in lost]
            messages.append(vxlan.set_remote(index, remote.mac, remote.host))
            messages.append(vxlan.set_port(index, remote.mac))
            messages += [vxlan.set_neighbour(index, address, remote.mac) for address in remote.addresses]
        for first in range(0, len(messages), MESSAGES_PER_SEND):
            sandbox.links.talk(messages[first : first + MESSAGES_PER_SEND])
        for mac in gone:
            if mac not in wanted:
                known.pop(mac, None)
        known.update({remote.mac: remote for remote in changed})
        return len(messages)

    def remove(self, network_id: str) -> None:
        """Take a network's namespace away."""
        sandbox = self._open.pop(network_id)
        sandbox.close()
        self._destroy(sandbox.path)
        self._records.forget_network(network_id)

    def _destroy(self, path: Path) -> None:
        if namespace.exists(path):
            # the namespace ends in the kernel's own time; the VXLAN's identifier must be free at once
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with namespace.inside(descriptor, self._plumbing.home):
                    links = Socket(ROUTE)
                try:
                    if rtnetlink.link_index(links, VXLAN):
                        links.talk([rtnetlink.delete_link(VXLAN)])
                finally:
                    links.close()
            finally:
                os.close(descriptor)
        namespace.remove(path)

    def close(self) -> None:
        """Give the descriptors back; the kernel keeps forwarding."""
        for sandbox in self._open.values():
            sandbox.close()
        self._open.clear()


def _forget(index: int, remote: Remote) -> list[Message]:
    return [
        *(vxlan.delete_neighbour(index, address) for address in remote.addresses),
        vxlan.delete_port(index, remote.mac),
        vxlan.delete_remote(index, remote.mac),
    ]


def _told(sandbox: OverlaySandbox) -> dict[bytes, Remote]:
    """Return what the kernel holds of other nodes' tasks, without a host: what an earlier daemon told is told again."""
    if not sandbox.vxlan_index:
        return {}
    addresses: dict[bytes, list[str]] = {}
    for family in (socket.AF_BRIDGE, socket.AF_INET, socket.AF_INET6):
        for body in sandbox.links.dump(vxlan.GETNEIGHBOUR, struct.pack("=BBHiHBB", family, 0, 0, 0, 0, 0, 0)):
            kind, _, _, index, state, _, _ = struct.unpack_from("=BBHiHBB", body)
            values = dict(attributes(body[12:]))
            mac = values.get(vxlan.NEIGHBOUR_ADDRESS, b"")
            if index != sandbox.vxlan_index or len(mac) != 6:
                continue
            if kind == socket.AF_BRIDGE:
                if vxlan.NEIGHBOUR_DESTINATION in values or state & vxlan.STATE_STATIC:
                    addresses.setdefault(mac, [])
            elif state & vxlan.STATE_PERMANENT:
                packed = values[vxlan.NEIGHBOUR_DESTINATION]
                addresses.setdefault(mac, []).append(socket.inet_ntop(kind, packed))
    return {mac: Remote(mac=mac, addresses=tuple(found), host="") for mac, found in addresses.items()}
