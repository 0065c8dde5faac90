"""The standing parts of a node's network: the ingress sandbox and its link to the host (dataplane.md 3).

Every task hangs on the sandbox's `gw0`, those without an address in the mesh too, so that there is one way in and out.
A docker_gwbridge in the host's namespace was tried: with bridge-nf-call-iptables=1, which other programs need, the
kernel bridges what is DNATed from one of its ports to another, past the port's isolation: host ports failed by hairpin.

Every step creates what is missing and adopts what is there. Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import structlog

from shoal.errors import InvalidArgument, Unavailable
from shoal.model.base import replace
from shoal.model.netstate import GatewayNetwork
from shoal.network import namespace, rtnetlink
from shoal.network.addresses import choose_range, host_of, prefix_bits
from shoal.network.netlink import NETFILTER, ROUTE, Socket
from shoal.network.nft import Ranges
from shoal.network.records import NodeRecord, Records
from shoal.network.settings import Names, NetworkSettings

_log = structlog.get_logger(__name__)

SANDBOX_SETTINGS = (
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/bridge/bridge-nf-call-iptables", "0"),
)


def check_requirements(settings: NetworkSettings) -> None:
    """Raise Unavailable, saying what is missing and what to do."""
    if os.geteuid() != 0:
        raise Unavailable("the network of a node needs root: start shoald as root")
    if shutil.which(settings.nft_command) is None:
        raise Unavailable(f"{settings.nft_command} is not installed: install the package nftables")


class Plumbing:
    """The standing parts, with a socket into each of the two namespaces."""

    def __init__(self, netns_directory: Path, names: Names, settings: NetworkSettings, records: Records) -> None:
        self.names = names
        self.settings = settings
        self._usual = settings
        self.asked = GatewayNetwork()
        self._records = records
        self._directory = netns_directory
        self._sandbox_path = netns_directory / f"ingress-{names.mark}"
        self.home = -1
        self.sandbox = -1
        self.is_sandbox_fresh = False

    def start(self) -> None:
        """Create or adopt everything.

        Raises:
            Unavailable: no range is free, or the kernel refuses a part.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        self.home = namespace.open_own()
        self.host_links = Socket(ROUTE)
        self.host_rules = Socket(NETFILTER)
        self.host_rules.enlarge_buffers()
        self._choose_ranges()
        try:
            self._build_sandbox()
        except OSError as error:
            raise Unavailable(
                f"the kernel refuses a part of the node's network ({error}): it needs network namespaces, veth, "
                "bridge and nftables, and the daemon CAP_NET_ADMIN and CAP_SYS_ADMIN"
            ) from error

    def _choose_ranges(self) -> None:
        own = frozenset({rtnetlink.link_index(self.host_links, self.names.host_link)}) - {0}
        taken = rtnetlink.routed_networks(self.host_links, own)
        before = self._records.read_node()
        if before is not None:
            self._take(before.asked)
        first_links = (before.link_network,) if before else ()
        first_gateways = (before.gateway_network,) if before else ()
        link = choose_range((*first_links, *self.settings.link_ranges), taken)
        gateway = choose_range((*first_gateways, *self._gateway_ranges()), taken)
        if link is None or gateway is None:
            setting = "link_ranges" if link is None else "gateway_ranges"
            raise Unavailable(f"every range of the setting {setting} overlaps a route of this host: set a free one")
        if before is not None and (link, gateway) != (before.link_network, before.gateway_network) and own:
            raise Unavailable(
                f"a route of this host now overlaps {before.link_network} or {before.gateway_network}, which this "
                "node's network uses: remove the route, or stop the node's tasks and leave the swarm"
            )
        self.link_network = link
        self._set_ranges(gateway)
        _log.info("ranges of the node's network", link=link, gateway=gateway, adopted=before is not None)

    def _set_ranges(self, gateway: str) -> None:
        link = self.link_network
        self.gateway_network = gateway
        self.ranges = Ranges(host_end=host_of(link, 1), sandbox_end=host_of(link, 2), gateway_network=gateway)
        self._records.write_node(NodeRecord(link_network=link, gateway_network=gateway, asked=self.asked))

    def _take(self, asked: GatewayNetwork) -> None:
        """Have the settings say what is asked for, and nothing of what was asked for before."""
        usual = self._usual
        self.asked = asked
        self.settings = replace(
            usual,
            sandbox_gateway=asked.gateway or usual.sandbox_gateway,
            task_mtu_bytes=asked.mtu_bytes or usual.task_mtu_bytes,
        )

    def _gateway_ranges(self) -> tuple[str, ...]:
        return (self.asked.subnet,) if self.asked.subnet else self.settings.gateway_ranges

    def change_gateway(self, asked: GatewayNetwork) -> None:
        """Give the way out another range and gateway; no container goes out yet.

        Raises:
            InvalidArgument: a route of the host overlaps the range.
        """
        before, old_gateway = self.asked, self.settings.sandbox_gateway
        own = frozenset({rtnetlink.link_index(self.host_links, self.names.host_link)}) - {0}
        self._take(asked)
        chosen = choose_range(self._gateway_ranges(), rtnetlink.routed_networks(self.host_links, own))
        if chosen is None:
            self._take(before)
            raise InvalidArgument(f"IPAM: a route of this host overlaps {asked.subnet}: choose another --subnet")
        index, gateway = self.sandbox_bridge_index, self.settings.sandbox_gateway
        if gateway != old_gateway:
            self.sandbox_links.talk(
                [rtnetlink.delete_address(index, old_gateway, 32), rtnetlink.add_address(index, gateway, 32)]
            )
        self._set_ranges(chosen)
        _log.info("another range for the way out", gateway_network=chosen, gateway=gateway)

    def _build_sandbox(self) -> None:
        names = self.names
        namespace.write_setting("net/ipv4/ip_forward", "1")
        if namespace.exists(self._sandbox_path):
            self.sandbox = os.open(self._sandbox_path, os.O_RDONLY | os.O_CLOEXEC)
        else:
            self.is_sandbox_fresh = True
            self.sandbox = namespace.make(self._sandbox_path, self.home)
        with namespace.inside(self.sandbox, self.home):
            for setting, value in SANDBOX_SETTINGS:
                namespace.write_setting(setting, value)
            self.sandbox_links = Socket(ROUTE)
            self.sandbox_rules = Socket(NETFILTER)
            self.sandbox_rules.enlarge_buffers()
        if not rtnetlink.link_index(self.sandbox_links, names.sandbox_link):
            # the peer of a link that lost its sandbox can linger for a moment: clear the name first
            self.host_links.talk([rtnetlink.delete_link(names.host_link)])
            self.host_links.talk(
                [rtnetlink.add_veth(names.host_link, names.sandbox_link, self.sandbox, self.settings.link_mtu_bytes)]
            )
        bits = prefix_bits(self.link_network)
        self.host_link_index = rtnetlink.link_index(self.host_links, names.host_link)
        namespace.write_setting(f"net/ipv6/conf/{names.host_link}/disable_ipv6", "1")
        self.host_links.talk(
            [
                rtnetlink.add_address(self.host_link_index, self.ranges.host_end, bits),
                rtnetlink.set_up(self.host_link_index),
            ]
        )
        namespace.write_setting(f"net/ipv4/conf/{names.host_link}/route_localnet", "1")
        gateway = self.settings.sandbox_gateway
        uplink = rtnetlink.link_index(self.sandbox_links, names.sandbox_link)
        self.sandbox_links.talk([rtnetlink.add_bridge(names.sandbox_bridge, rtnetlink.mac_of(gateway))])
        self.sandbox_bridge_index = rtnetlink.link_index(self.sandbox_links, names.sandbox_bridge)
        self.sandbox_links.talk(
            [
                rtnetlink.set_up(rtnetlink.LOOPBACK_INDEX),
                rtnetlink.add_address(uplink, self.ranges.sandbox_end, bits),
                rtnetlink.set_up(uplink),
                rtnetlink.set_default_route(uplink, self.ranges.host_end),
                rtnetlink.add_address(self.sandbox_bridge_index, gateway, 32),
                rtnetlink.set_up(self.sandbox_bridge_index),
            ]
        )

    def close(self) -> None:
        """Give the descriptors back; the kernel keeps forwarding."""
        for name in ("host_links", "host_rules", "sandbox_links", "sandbox_rules"):
            channel = self.__dict__.pop(name, None)
            if channel is not None:
                channel.close()
        for descriptor in (self.home, self.sandbox):
            if descriptor >= 0:
                os.close(descriptor)
        self.home = self.sandbox = -1

    def remove(self) -> None:
        """Take links and namespaces away; `close` comes after."""
        self.host_links.talk([rtnetlink.delete_link(self.names.host_link)])
        namespace.remove(self._sandbox_path)
        if self._directory.is_dir() and not any(self._directory.iterdir()):
            self._directory.rmdir()
