"""What is said over the node port outside a session: certificates, members, refusals (architecture.md 4.4).

Bodies of requests and replies are msgpack of these; a refusal comes with the status code of its error.
"""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.specs import NetworkSpec
from shoal.model.states import Role


class Identity(Struct):
    """Who a node is, by its certificate."""

    node_id: str
    role: Role
    cluster_id: str


class ManagerAddress(Struct):
    """Where a manager's node port answers; `raft_id` names its member."""

    node_id: str
    raft_id: int
    address: str


class Refusal(Struct):
    """Why a call was refused; `leader_address` (host:port), if not empty, says who would answer it."""

    message: str
    leader_address: str = ""


class Acknowledged(Struct):
    """Done, and nothing more to say."""


class RootAnswer(Struct):
    """The root of the swarm, PEM, as its token's digest names it."""

    root: str


class CertificateCall(Struct):
    """Asks for a certificate: with `token` a new node, without it the node that the caller's certificate names."""

    request: str
    token: str = ""
    availability: str = ""


class CertificateAnswer(Struct):
    """A signed certificate, and what a node must know to take part."""

    node_id: str
    cluster_id: str
    role: Role
    certificate: str
    root: str
    node_number: int
    managers: tuple[ManagerAddress, ...]


class AttachCall(Struct):
    """A node asks for a place of a plain container on a network (name or id); `addresses` (no masks) if it must be."""

    network: str
    container_id: str
    name: str
    aliases: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class AttachAnswer(Struct):
    """The place given; `addresses` are CIDR.

    `spec`: of a network that each node makes for itself, which then gives the addresses. `driver`: of one of a node.
    """

    task_id: str
    network_id: str
    network_name: str
    addresses: tuple[str, ...]
    internal: bool = False
    driver: str = ""
    spec: NetworkSpec | None = None


class ReleaseCall(Struct):
    """A node needs these places no more."""

    task_ids: tuple[str, ...] = ()


class AttachmentsAnswer(Struct):
    """The places that containers of the node have."""

    task_ids: tuple[str, ...] = ()


class JoinGroupCall(Struct):
    """A manager asks to become a member of the raft group. `address`: where it answers (unspecified host: as seen)."""

    raft_id: int
    address: str


class JoinGroupAnswer(Struct):
    """The members, the new one among them."""

    address: str
    members: tuple[ManagerAddress, ...]


class MemberHello(Struct):
    """Opens a link between members: who sends on it and where it answers."""

    raft_id: int
    node_id: str
    address: str
