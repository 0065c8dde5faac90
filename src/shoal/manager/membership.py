"""Who is a member of the raft group: managers join, are promoted, demoted and removed, on the leader.

A change of members carries what the store says of it, and both are applied at one index: the store and the group never
differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import structlog

from shoal.errors import Forbidden, NotLeader, ShoalError, Unavailable
from shoal.lib.backoff import Backoff
from shoal.manager.certificates import managers_of
from shoal.model.actions import PatchNode
from shoal.model.node_port import Identity, JoinGroupAnswer, JoinGroupCall
from shoal.model.objects import ManagerStatus, Node
from shoal.model.states import Role
from shoal.raft.membership import MemberView
from shoal.store.store import Store

_log = structlog.get_logger(__name__)

PROMOTE_RETRY_SECONDS = 5.0
PROMOTE_WAIT_SECONDS = 10.0


class Group(Protocol):
    """The raft group, as its leader changes it (RaftDriver)."""

    @property
    def raft_id(self) -> int:
        """This member."""

    async def add_learner(self, raft_id: int, data: bytes = b"") -> object:
        """Add a member that does not vote yet."""

    async def promote(self, raft_id: int, data: bytes = b"") -> object:
        """Let a member vote."""

    async def remove_member(self, raft_id: int, data: bytes = b"") -> object:
        """Remove a member."""

    async def transfer_lead(self, to: int | None = None) -> None:
        """Hand the lead to another."""

    def can_remove(self, raft_id: int) -> bool:
        """Whether a quorum remains."""

    def members(self) -> Iterable[MemberView]:
        """The members, and how this one sees them."""


class Membership:
    """Keeps the group as the nodes' roles want it; runs on the leader.

    Args:
        store: says what role each node should have.
        group: the raft group.
        check_reachable: raises if a manager does not answer at an address.
    """

    def __init__(self, store: Store, group: Group, check_reachable: Callable[[str], Awaitable[None]]) -> None:
        self._store = store
        self._group = group
        self._check_reachable = check_reachable

    async def join(self, call: JoinGroupCall, identity: Identity, seen_host: str) -> JoinGroupAnswer:
        """Make a manager a member: a learner first, that is let vote when it has caught up.

        Args:
            call: its member and where it answers.
            identity: who asks.
            seen_host: the address it asks from, for one that listens everywhere.

        Raises:
            NotLeader: another manager leads.
            Forbidden: the node should be no manager.
            Unavailable: it does not answer at its address, or the change was not made in time.
        """
        if not self._store.consensus.is_leader:
            raise NotLeader("only the leader takes members in")
        node = self._store.view.get(Node, identity.node_id)
        if node is None or node.spec.role != Role.MANAGER:
            raise Forbidden(f"node {identity.node_id} is no manager of this swarm")
        host, _, port = call.address.rpartition(":")
        address = f"{seen_host}:{port}" if host in ("", "0.0.0.0", "[::]") else call.address  # noqa: S104
        await self._check_reachable(address)
        status = ManagerStatus(raft_id=call.raft_id, address=address)
        old = node.manager_status
        if old is not None and old.raft_id != call.raft_id:
            # It has lost its disk: what it knew under its old id is gone with that id.
            await self._remove(node, old.raft_id)
        if call.raft_id not in self._members() or old is None or old != status:
            patch = PatchNode(id=node.id, manager_status=status)
            if call.raft_id in self._members():
                await self._store.update(lambda _view: (patch,))
            else:
                await self._group.add_learner(call.raft_id, self._store.encode((patch,)))
            _log.info("a manager has joined", node=node.id, member=call.raft_id, address=address)
        await self._promote_soon(call.raft_id)
        return JoinGroupAnswer(address=address, members=managers_of(self._store.view))

    async def _promote_soon(self, raft_id: int) -> None:
        """Let a member vote before it is told that it has joined; one that needs longer to catch up votes later.

        Who has added a second and a third manager counts on them.
        """
        try:
            async with asyncio.timeout(PROMOTE_WAIT_SECONDS):
                await self._group.promote(raft_id)
        except (ShoalError, TimeoutError) as error:
            _log.info("a new member does not vote yet", member=raft_id, reason=str(error))

    async def run(self) -> None:
        """Follow the roles of nodes: let learners vote, and take out those that should be workers or were removed."""
        follower = self._store.follow("node")
        backoff = Backoff(0.2, PROMOTE_RETRY_SECONDS)
        while True:
            try:
                await self._settle()
                backoff.reset()
                await follower.wait()
            except NotLeader:
                return
            except ShoalError as error:
                _log.info("members are not as they should be yet", reason=error.message)
                await follower.wait(backoff.next_delay_seconds())

    async def _settle(self) -> None:
        for node in self._nodes_to_demote():
            await self._demote(node)
        for node in tuple(self._store.view.find(Node)):
            status = node.manager_status
            if status is None or node.spec.role != Role.MANAGER:
                continue
            if status.raft_id in self._learners():
                await self._group.promote(status.raft_id)
                _log.info("a manager votes now", node=node.id, member=status.raft_id)
        await self._remove_strangers()

    def _nodes_to_demote(self) -> Iterable[Node]:
        nodes = [n for n in self._store.view.find(Node) if n.manager_status is not None and n.spec.role == Role.WORKER]
        # this member last: it hands the lead on, and the next leader removes it
        return sorted(nodes, key=lambda n: n.manager_status is not None and n.manager_status.raft_id == self._own_id)

    def _members(self) -> frozenset[int]:
        return frozenset(member.raft_id for member in self._group.members())

    def _learners(self) -> frozenset[int]:
        return frozenset(member.raft_id for member in self._group.members() if not member.is_voter)

    @property
    def _own_id(self) -> int:
        return self._group.raft_id

    async def _demote(self, node: Node) -> None:
        assert node.manager_status is not None, "only nodes with a member are demoted"
        raft_id = node.manager_status.raft_id
        if raft_id == self._own_id:
            _log.info("this leader is to be a worker: it hands the lead on", node=node.id)
            await self._group.transfer_lead()
            raise NotLeader("another manager leads now")
        if not self._group.can_remove(raft_id):
            raise Unavailable(f"node {node.id} stays a manager: without it the others that answer are no quorum")
        await self._remove(node, raft_id)
        _log.info("a manager is a worker now", node=node.id, member=raft_id)

    async def _remove(self, node: Node, raft_id: int) -> None:
        patch = PatchNode(id=node.id, clear_manager_status=True)
        if raft_id in self._members():
            await self._group.remove_member(raft_id, self._store.encode((patch,)))
        else:
            await self._store.update(lambda _view: (patch,))

    async def _remove_strangers(self) -> None:
        """Take out members that no node claims: left by a join that ended half-way."""
        known = {n.manager_status.raft_id for n in self._store.view.find(Node) if n.manager_status is not None}
        for raft_id in self._members() - known - {self._own_id}:
            await self._group.remove_member(raft_id)
            _log.info("a member without a node was removed", member=raft_id)
