"""The certificate authority of the leader: lets nodes in by token, and renews what their certificates say.

A node's role is what the store says of it; that is how promotion and demotion reach the node. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence

import structlog

from shoal.ca.root import Subject
from shoal.ca.tokens import parse_join_token
from shoal.core.validate.node import parse_availability
from shoal.errors import Forbidden, InvalidArgument, NotLeader, Unavailable
from shoal.lib.ids import Ids
from shoal.manager.lookup import require_cluster
from shoal.manager.root_change import Signer
from shoal.model.actions import Action, Create
from shoal.model.node_port import CertificateAnswer, CertificateCall, Identity, ManagerAddress
from shoal.model.objects import Cluster, Node
from shoal.model.specs import NodeSpec
from shoal.model.states import Availability, Role
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

NODE_NUMBERS = range(1, 65_536)
WRONG_TOKEN = "A valid join token is necessary to join this cluster"  # noqa: S105


class CertificateAuthority:
    """Signs requests of nodes, on the leader."""

    def __init__(self, store: Store, signer: Signer, ids: Ids) -> None:
        self._store = store
        self._signer = signer
        self._ids = ids
        # one at a time: the number of a new node is the least that is free
        self._joining = asyncio.Lock()

    def root(self) -> str:
        """Return the root, PEM, as join tokens name it; any manager answers this."""
        root = require_cluster(self._store.view).root_ca
        if root is None:
            raise Unavailable("the swarm has no certificate authority yet; try again in a moment")
        return root.certificate

    async def admit(self, call: CertificateCall) -> CertificateAnswer:
        """Let a new node in by its token: it gets an id, a number, and a certificate for the token's role.

        Raises:
            InvalidArgument: a token that is none or none of this swarm's; a bad request or availability.
            NotLeader: another manager signs.
        """
        self._require_lead()
        availability = parse_availability(call.availability or Availability.ACTIVE)
        role = self._role_of(call.token)
        node_id = self._ids.new()
        # first of all: a request that cannot be signed makes no node
        await self._sign(require_cluster(self._store.view), call.request, node_id, role)
        async with self._joining:

            def plan(view: View) -> Sequence[Action]:
                spec = NodeSpec(role=role, availability=availability)
                return [Create(object=Node(id=node_id, spec=spec, number=_free_number(view)))]

            await self._store.update(plan)
        _log.info("a node was let in", node=node_id, role=role.value)
        return await self._answer(call.request, node_id, role)

    async def renew(self, call: CertificateCall, identity: Identity) -> CertificateAnswer:
        """Sign anew for a node that has a certificate, with the role that the swarm gives it now.

        Raises:
            Forbidden: the node was removed.
            NotLeader: another manager signs.
        """
        self._require_lead()
        node = self._store.view.get(Node, identity.node_id)
        if node is None:
            raise Forbidden(f"node {identity.node_id} is not part of this swarm any more")
        return await self._answer(call.request, node.id, role_to_certify(node))

    async def _answer(self, request: str, node_id: str, role: Role) -> CertificateAnswer:
        view = self._store.view
        cluster = require_cluster(view)
        node = view.get(Node, node_id)
        if node is None:
            raise Forbidden(f"node {node_id} is not part of this swarm any more")
        return CertificateAnswer(
            node_id=node_id,
            cluster_id=cluster.id,
            role=role,
            certificate=await self._sign(cluster, request, node_id, role),
            root=self.root(),
            node_number=node.number,
            managers=managers_of(view),
        )

    async def _sign(self, cluster: Cluster, request: str, node_id: str, role: Role) -> str:
        subject = Subject(node_id=node_id, role=role, cluster_id=cluster.id)
        return await self._signer.sign(cluster, request, subject)

    def _role_of(self, token: str) -> Role:
        parse_join_token(token)
        tokens = require_cluster(self._store.view).join_tokens
        if tokens is not None:
            for role, wanted in ((Role.MANAGER, tokens.manager), (Role.WORKER, tokens.worker)):
                if hmac.compare_digest(token, wanted):
                    return role
        raise InvalidArgument(WRONG_TOKEN)

    def _require_lead(self) -> None:
        if not self._store.consensus.is_leader:
            raise NotLeader("only the leader signs certificates")


def role_to_certify(node: Node) -> Role:
    """Return what a node's certificate should say: a demoted manager stays one until it has left the raft group."""
    return Role.MANAGER if node.spec.role == Role.MANAGER or node.manager_status is not None else Role.WORKER


def managers_of(view: View) -> tuple[ManagerAddress, ...]:
    """Return where the managers' node ports answer, in order of node id."""
    return tuple(
        ManagerAddress(node_id=node.id, raft_id=node.manager_status.raft_id, address=node.manager_status.address)
        for node in sorted(view.find(Node), key=lambda node: node.id)
        if node.manager_status is not None
    )


def _free_number(view: View) -> int:
    taken = {node.number for node in view.find(Node)}
    for number in NODE_NUMBERS:
        if number not in taken:
            return number
    raise InvalidArgument(f"the swarm has {len(taken)} nodes, the most there can be")
