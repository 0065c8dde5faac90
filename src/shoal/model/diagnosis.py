"""What `shoal doctor` looks at and what it says: facts of a machine and of the ways between nodes, and findings."""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.netstate import WIREGUARD_PORT

GOOD, NOTE, PROBLEM = "good", "note", "problem"


class Finding(Struct):
    """One thing that was looked at. `level`: good, note (works, with less) or problem. `remedy`: what to do."""

    check: str
    level: str
    text: str
    remedy: str = ""


class Leftover(Struct):
    """Something in the kernel that carries the mark of a daemon which is gone. `removal`: the command that ends it."""

    owner: str
    what: str
    removal: str


class MachineFacts(Struct):
    """One machine. `features`: kernel features that were tried, with the refusal, empty if there was none."""

    is_root: bool
    programs: dict[str, bool] = {}
    features: dict[str, str] = {}
    leftovers: tuple[Leftover, ...] = ()


class HelperFacts(Struct):
    """A process that the daemon keeps beside it; `is_wanted`: there is something for it to do."""

    name: str
    is_alive: bool
    is_wanted: bool
    log: str


class PeerFacts(Struct):
    """The way over VXLAN to another node, asked by echo through the mesh between nodes.

    `refusal`: why nothing was asked. `carries_whole`: packets of `mtu_bytes` came back, too. `skew_ms`: how far the
    other clock is ahead, None if it did not say.
    """

    node_number: int
    address: str
    refusal: str = ""
    answers: bool = False
    carries_whole: bool = False
    mtu_bytes: int = 0
    skew_ms: int | None = None


class SecretPeerFacts(Struct):
    """The way of encrypted networks to another node that has tasks on one of those here, asked by echo through it.

    `port`: UDP, where the other listens for it. `has_key`: it has announced one: without one it can carry none.
    """

    node_number: int
    address: str
    port: int
    has_key: bool = True
    answers: bool = False
    carries_whole: bool = False
    mtu_bytes: int = 0


class PathFacts(Struct):
    """The ways from this node to the others.

    `port`: UDP, of VXLAN. `secret_port`: UDP, of encrypted networks; `secret_refusal`: why nothing can listen there,
    empty: it can, or this node does.
    """

    port: int = 4789
    peers: tuple[PeerFacts, ...] = ()
    secret_port: int = WIREGUARD_PORT
    secret_refusal: str = ""
    secret_peers: tuple[SecretPeerFacts, ...] = ()


class ManagerFacts(Struct):
    """A manager's node port, asked over TCP; `refusal` empty: it listens."""

    address: str
    refusal: str = ""


class SwarmFacts(Struct):
    """What a daemon knows more than its machine: its helpers, and the ways to others from this node."""

    own_address: str = ""
    state: str = ""
    error: str = ""
    helpers: tuple[HelperFacts, ...] = ()
    managers: tuple[ManagerFacts, ...] = ()
    paths: PathFacts = PathFacts()
