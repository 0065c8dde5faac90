"""The rules of the sandbox that lead replies back through the node a flow came in by (dataplane.md 3 and 3b). Pure.

They are tables of their own beside those of the ports: whole as text for `nft -f -`, changes of nodes as batches.

A flow from another node is known by the MAC it came from. Its original direction has a zone of its own, so that one
client address and port may come through several nodes at once; its ct mark, put on the replies, leads them to a next
hop that does not exist, and on the way out of `ing0` the mark becomes the MAC of the node: one rule and one route for
any number of nodes.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from shoal.network.mesh_state import NOWHERE_MAC, RETURN_BIT, mac_of_node, mark_of_node
from shoal.network.nfnetlink import Batch
from shoal.network.nft import Ranges, replace_table
from shoal.network.settings import Names

# linux/netfilter.h
FAMILY_NETDEV = 5


def _mac(raw: bytes) -> str:
    return raw.hex(":")


def _elements(entries: Iterable[str]) -> str:
    joined = ", ".join(entries)
    return f"    elements = {{ {joined} }}\n" if joined else ""


def render_mesh(names: Names, ranges: Ranges, numbers: Iterable[int]) -> str:
    """Return the table for the sandbox: who a flow came through, kept and put on replies.

    Replies are never begun here but by `reject`: a flow to a task that is gone is refused, by the way it came.
    What comes from a MAC of no node is dropped: nothing could lead its replies back.
    """
    numbers = sorted(numbers)
    marks = _elements(f"{_mac(mac_of_node(number))} : {mark_of_node(number):#x}" for number in numbers)
    zones = _elements(f"{_mac(mac_of_node(number))} : {number}" for number in numbers)
    mesh, bridge = f'"{names.mesh_link}"', f'"{names.sandbox_bridge}"'
    body = f"""  map node_mark {{
    type ether_addr : mark
{marks}  }}
  map node_zone {{
    typeof ether saddr : ct zone
{zones}  }}
  chain zone {{
    type filter hook prerouting priority -300; policy accept;
    iifname {mesh} ct original zone set ether saddr map @node_zone
  }}
  chain from_node {{
    ct direction original ct mark set ether saddr map @node_mark
    ct direction original ct mark 0 drop
  }}
  chain entry {{
    type filter hook prerouting priority -150; policy accept;
    iifname {mesh} goto from_node
    iifname {bridge} ct direction reply ct mark & {RETURN_BIT:#x} != 0 meta mark set ct mark
  }}
  chain refusal {{
    type route hook output priority -150; policy accept;
    ct direction reply ct mark & {RETURN_BIT:#x} != 0 meta mark set ct mark
  }}
  chain forward_from_node {{
    oifname {bridge} accept
    ct direction original meta l4proto tcp reject with tcp reset
    ct direction original reject
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname {mesh} goto forward_from_node
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    oifname {mesh} ip saddr {ranges.host_end} masquerade
  }}
"""
    return replace_table("ip", names.mesh_table, body)


def render_path(names: Names, port: int) -> str:
    """Return the table that keeps VXLAN's packets of this host out of its connection tracking.

    Every flow within has a port of its own outside, and its own entry where it comes from and goes to: a second one for
    the packets around it, on the way out and another on the way in, costs time and says nothing.

    Args:
        names: of the daemon.
        port: UDP, of the data path.
    """
    body = f"""  chain incoming {{
    type filter hook prerouting priority -300; policy accept;
    udp dport {port} fib daddr type local notrack
  }}
  chain outgoing {{
    type filter hook output priority -300; policy accept;
    udp dport {port} notrack
  }}
"""
    return replace_table("inet", names.path_table, body)


def render_return(names: Names, numbers: Iterable[int]) -> str:
    """Return the table at the way out of `ing0`; it goes with the link. Needs Linux 5.16."""
    entries = _elements(f"{mark_of_node(number):#x} : {_mac(mac_of_node(number))}" for number in sorted(numbers))
    nowhere = _mac(NOWHERE_MAC)
    body = f"""  map entry {{
    type mark : ether_addr
{entries}  }}
  chain egress {{
    type filter hook egress device "{names.mesh_link}" priority 0; policy accept;
    ether daddr {nowhere} ether daddr set meta mark map @entry
    ether daddr {nowhere} drop
  }}
"""
    return replace_table("netdev", names.mesh_table, body)


def mesh_batch(table: str, added: Iterable[int], gone: Iterable[int]) -> Batch:
    """Return the batch that makes nodes known to, or forgotten by, the table of `render_mesh`."""
    batch = Batch(table, socket.AF_INET)
    for remove, numbers in ((True, sorted(gone)), (False, sorted(added))):
        if numbers:
            marks = [(mac_of_node(number), struct.pack("=I", mark_of_node(number))) for number in numbers]
            zones = [(mac_of_node(number), struct.pack("=H", number)) for number in numbers]
            batch.set_mappings("node_mark", marks, remove)
            batch.set_mappings("node_zone", zones, remove)
    return batch


def return_batch(table: str, added: Iterable[int], gone: Iterable[int]) -> Batch:
    """Return the batch that makes nodes known to, or forgotten by, the table of `render_return`."""
    batch = Batch(table, FAMILY_NETDEV)
    for remove, numbers in ((True, sorted(gone)), (False, sorted(added))):
        if numbers:
            entries = [(struct.pack("=I", mark_of_node(number)), mac_of_node(number)) for number in numbers]
            batch.set_mappings("entry", entries, remove)
    return batch
