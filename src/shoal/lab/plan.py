"""What a lab is made of and what it is called: names, addresses, who is missing, the rules of its cuts. Pure.

Must not know how any of it is made: that is `kernel.py`, `processes.py` and `swarm.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.model.base import Struct

Role = Literal["manager", "worker"]
Way = Literal["in", "out"]

DEFAULT_NAME = "lab"
DEFAULT_MANAGERS = 3
DEFAULT_WORKERS = 2
ROLES: tuple[Role, ...] = ("manager", "worker")
# Outside of 10.0.0.0/8 and 172.16.0.0/12, from which the networks of services come. A lab sees no other network: the
# ranges of this machine and of other labs are kept clear for the reader's sake.
RANGES = tuple(f"192.168.{third}.0/24" for third in (*range(77, 255), *range(1, 77)))
NODES_MOST = 253
PREFIX = "shoal-lab"
EVERYBODY = "*"
NFT_TABLE = "shoal_lab_cuts"
# The address of a unix socket has 108 bytes, the last of them a zero; the longest is SCRATCH/NODE/run/resolver.sock.
SOCKET_PATH_MOST = 107
_LONGEST_SOCKET = "m253/run/resolver.sock"
_LAB_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")


class Process(Struct):
    """A process that cannot be mistaken for another: `started` is its start, in the kernel's ticks since the boot."""

    pid: int
    started: int


class NodeRecord(Struct):
    """A node of a lab; `number` is the last byte of its address, `daemon` the shoald that was started last."""

    name: str
    role: Role
    number: int
    daemon: Process | None = None


class Cut(Struct):
    """Frames that are not delivered: from `sender` to `receiver`, each a node or everybody."""

    sender: str
    receiver: str


class LabState(Struct):
    """All that is remembered of a lab. `network`: the first three bytes of its addresses; `flags`: more of shoald's."""

    name: str
    scratch: str
    network: str
    nodes: tuple[NodeRecord, ...] = ()
    cuts: tuple[Cut, ...] = ()
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    owns_scratch: bool = False

    def find(self, name: str) -> NodeRecord:
        """Return a node.

        Raises:
            NotFound: the lab has no such node; names those it has.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        there = ", ".join(node.name for node in self.nodes) or "none"
        raise NotFound(f'lab "{self.name}" has no node "{name}"; there is {there}')

    def address(self, node: NodeRecord) -> str:
        """Return the address of a node on the lab's bridge."""
        return f"{self.network}.{node.number}"


def check_name(name: str) -> str:
    """Return a lab's name.

    Raises:
        InvalidArgument: it cannot be part of the names of namespaces.
    """
    if not _LAB_NAME.fullmatch(name):
        raise InvalidArgument(
            f'--name "{name}": use a letter, then up to 15 letters and digits, all small, such as lab2'
        )
    return name


def check_scratch(scratch: Path) -> Path:
    """Return the directory of a lab's data.

    Raises:
        InvalidArgument: sockets in it would have longer paths than the kernel takes.
    """
    length = len(str(scratch / _LONGEST_SOCKET).encode())
    if length > SOCKET_PATH_MOST:
        raise InvalidArgument(
            f"--scratch {scratch}: paths of sockets in it have {length} bytes, the kernel takes {SOCKET_PATH_MOST}: "
            f"name a directory whose path is {length - SOCKET_PATH_MOST} bytes shorter"
        )
    return scratch


def namespace_of(lab: str, part: str) -> str:
    """Return the name of the network namespace of a node, or of the bridge."""
    return f"{PREFIX}-{lab}-{part}"


def hardware_address(address: str) -> str:
    """Return the link address of a node: always the same, so that nobody remembers a wrong one after a restart."""
    return "02:00:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def choose_network(taken: Iterable[str]) -> str:
    """Return the first three bytes of a range that overlaps none of `taken` (networks in CIDR form).

    Raises:
        Conflict: all are taken.
    """
    used = [ipaddress.ip_network(network, strict=False) for network in taken]
    for candidate in map(ipaddress.ip_network, RANGES):
        if not any(network.version == 4 and candidate.overlaps(network) for network in used):
            return str(candidate.network_address).rpartition(".")[0]
    raise Conflict("no range of 192.168.0.0/16 is free: take a lab down with `shoal lab down --name NAME`")


def grow(state: LabState, managers: int | None, workers: int | None) -> tuple[NodeRecord, ...]:
    """Return the nodes of a lab that is to have so many; None leaves what is there (in a new lab: the default).

    Raises:
        InvalidArgument: a number that cannot be.
        Conflict: there are more already; names what removes them.
    """
    nodes = state.nodes
    for role, asked, default in (("manager", managers, DEFAULT_MANAGERS), ("worker", workers, DEFAULT_WORKERS)):
        there = [node.name for node in nodes if node.role == role]
        wanted = asked if asked is not None else (len(there) if state.nodes else default)
        if wanted < (1 if role == "manager" else 0):
            raise InvalidArgument(f"--{role}s {wanted}: a lab has one manager at least, and no worker or more")
        if wanted < len(there):
            extra = " and ".join(f"`shoal lab remove {name}`" for name in there[wanted:])
            raise Conflict(f'lab "{state.name}" has {len(there)} {role}s: to have {wanted}, use {extra}')
        for _ in range(wanted - len(there)):
            nodes = (*nodes, next_node(nodes, role))  # type: ignore[arg-type]
    return nodes


def next_node(nodes: Sequence[NodeRecord], role: Role) -> NodeRecord:
    """Return one node more, with the first free name and the first free address.

    Raises:
        Conflict: the range is full.
    """
    names = {node.name for node in nodes}
    numbers = {node.number for node in nodes}
    if len(nodes) >= NODES_MOST:
        raise Conflict(f"a lab has {NODES_MOST} nodes at most")
    name = next(name for name in (f"{role[0]}{count}" for count in range(1, NODES_MOST + 1)) if name not in names)
    return NodeRecord(name=name, role=role, number=next(n for n in range(1, NODES_MOST + 1) if n not in numbers))


def add_cuts(cuts: Sequence[Cut], node: str, one_way: Way | None = None, others: Sequence[str] = ()) -> tuple[Cut, ...]:
    """Return the cuts with those that part a node from others (from everybody, if none is named).

    Raises:
        InvalidArgument: a node cannot be parted from itself.
    """
    if node in others:
        raise InvalidArgument(f"{node} cannot be parted from itself")
    added = []
    for other in others or (EVERYBODY,):
        if one_way != "out":
            added.append(Cut(sender=other, receiver=node))
        if one_way != "in":
            added.append(Cut(sender=node, receiver=other))
    return (*cuts, *(cut for cut in added if cut not in cuts))


def cuts_without(cuts: Sequence[Cut], node: str | None = None) -> tuple[Cut, ...]:
    """Return what is left when a node is healed; None heals all."""
    return tuple(cut for cut in cuts if node is not None and node not in (cut.sender, cut.receiver))


def describe_cuts(cuts: Sequence[Cut], node: str) -> str:
    """Say in words what a node is parted from."""
    said = []
    for cut in cuts:
        both = Cut(sender=cut.receiver, receiver=cut.sender) in cuts
        if cut.receiver == node:
            other = "everybody" if cut.sender == EVERYBODY else cut.sender
            said.append(f"cut from {other}" if both else f"hears nothing of {other}")
        elif cut.sender == node and not both:
            other = "everybody" if cut.receiver == EVERYBODY else cut.receiver
            said.append(f"not heard by {other}")
    return ", ".join(said)


def cut_rules(cuts: Sequence[Cut]) -> str:
    """Return the nft script that puts exactly these cuts on the bridge, in one transaction."""
    lines = [f"table bridge {NFT_TABLE}", f"delete table bridge {NFT_TABLE}"]
    if cuts:
        rules = []
        for cut in cuts:
            sender = "" if cut.sender == EVERYBODY else f'iifname "{cut.sender}" '
            receiver = "" if cut.receiver == EVERYBODY else f'oifname "{cut.receiver}" '
            rules.append(f"    {sender}{receiver}drop")
        lines += [
            f"table bridge {NFT_TABLE} {{",
            "  chain forward {",
            "    type filter hook forward priority 0; policy accept;",
            *rules,
            "  }",
            "}",
        ]
    return "\n".join(lines) + "\n"
