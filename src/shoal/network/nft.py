"""The whole rulesets as text for `nft -f -`: the host's and the ingress sandbox's (dataplane.md 3). Pure.

Loaded at start, and again when the hand-made batch of an update is refused; each load replaces its table in one
transaction. The rules of the mesh between nodes are in tables of their own (mesh_rules.py).
"""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.network.settings import Names
from shoal.network.state import BalancedPort, ForwardedPort, KernelState

# fixed, so that every node sends a client's address to the same task
SOURCE_SEED = 0x5EA5


class Ranges(Struct):
    """Addresses of this node's plumbing: both ends of the link to the sandbox, the gateway range (CIDR)."""

    host_end: str
    sandbox_end: str
    gateway_network: str


def chain_name(protocol: str, published_port: int) -> str:
    """Return the name of the chain of a port of the mesh."""
    return f"port_{protocol}_{published_port}"


def take_away(family: str, table: str) -> str:
    """Return the commands that take a table away, whether or not it is there: it is made before it is deleted."""
    return f"table {family} {table} {{\n}}\ndelete table {family} {table}\n"


def replace_table(family: str, table: str, body: str) -> str:
    """Return the commands that put a table in the place of one that may be there, in one transaction."""
    return f"{take_away(family, table)}table {family} {table} {{\n{body}}}\n"


def _elements(entries: list[str]) -> str:
    return f"    elements = {{ {', '.join(entries)} }}\n" if entries else ""


def render_host(names: Names, ranges: Ranges, state: KernelState) -> str:
    """Return the ruleset of the namespace the daemon runs in."""
    link = f'"{names.host_link}"'
    ports = _elements([f"{port.protocol} . {port.published_port}" for port in state.balanced])
    everywhere = [port for port in state.forwarded if not port.host_address]
    by_address = [port for port in state.forwarded if port.host_address]
    forwarded = _elements([_forward(port) for port in everywhere])
    addressed = _elements([f"{port.host_address} . {_forward(port)}" for port in by_address])
    publish = (
        "    fib daddr type local meta l4proto { tcp, udp, sctp } "
        "dnat ip to ip daddr . meta l4proto . th dport map @address_ports\n"
        "    fib daddr type local meta l4proto { tcp, udp, sctp } "
        "dnat ip to meta l4proto . th dport map @host_ports\n"
        f"    fib daddr type local meta l4proto . th dport @ports dnat to {ranges.sandbox_end}\n"
    )
    body = f"""  set ports {{
    type inet_proto . inet_service
{ports}  }}
  map host_ports {{
    type inet_proto . inet_service : ipv4_addr . inet_service
{forwarded}  }}
  map address_ports {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
{addressed}  }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    ip daddr 127.0.0.0/8 iifname != "lo" drop
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
{publish}  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{publish}  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    ct state new oifname {link} ct status & dnat == 0 drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    oifname {link} ip saddr 127.0.0.0/8 masquerade
    oifname {link} fib saddr type local masquerade
    iifname {link} masquerade
  }}
"""
    return replace_table("ip", names.table, body)


def _forward(port: ForwardedPort) -> str:
    return f"{port.protocol} . {port.published_port} : {port.address} . {port.target_port}"


def render_sandbox(names: Names, ranges: Ranges, state: KernelState) -> str:
    """Return the ruleset of the ingress sandbox.

    What no chain takes is refused before connection tracking keeps it: else a UDP client that spoke before there was a
    backend would stay with the sandbox itself. A flow to a task that is gone would leave by the way it came: reset.
    Tasks outside the mesh reach other tasks by published ports only, as on docker_gwbridge.
    """
    link, bridge = f'"{names.sandbox_link}"', f'"{names.sandbox_bridge}"'
    served = [port for port in state.balanced if port.addresses]
    ports = _elements(
        [
            f"{port.protocol} . {port.published_port} : goto {chain_name(port.protocol, port.published_port)}"
            for port in served
        ]
    )
    chains = "".join(
        f"  chain {chain_name(port.protocol, port.published_port)} {{\n    {_balance(port)}\n  }}\n" for port in served
    )
    body = f"""{chains}  map ports {{
    type inet_proto . inet_service : verdict
{ports}  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    iifname {link} ip daddr {ranges.sandbox_end} meta l4proto . th dport vmap @ports
  }}
  chain input {{
    type filter hook input priority 0; policy accept;
    iifname {link} meta l4proto tcp reject with tcp reset
    iifname {link} meta l4proto != icmp reject
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain between_tasks {{
    ip saddr {ranges.gateway_network} drop
    ip daddr {ranges.gateway_network} drop
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname {link} oifname {link} goto refuse
    ct state new iifname {bridge} oifname {bridge} goto between_tasks
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    oifname {bridge} ip saddr {ranges.host_end} masquerade
  }}
"""
    return replace_table("ip", names.table, body)


def _balance(port: BalancedPort) -> str:
    entries = ", ".join(f"{index} : {address}" for index, address in enumerate(port.addresses))
    choice = (
        f"jhash ip saddr mod {len(port.addresses)} seed {SOURCE_SEED:#x}"
        if port.by_source
        else f"numgen inc mod {len(port.addresses)}"
    )
    return f"meta l4proto {port.protocol} dnat to {choice} map {{ {entries} }}:{port.target_port}"
