"""The manager of this node: store, consensus, control, and the leader's loops while it leads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from shoal.ca.tokens import make_join_token, make_unlock_key
from shoal.core.validate.cluster import LOG_ENTRIES_FOR_SLOW_FOLLOWERS, SNAPSHOT_INTERVAL_ENTRIES
from shoal.errors import NotBuilt, NotFound, NotLeader, ShoalError, Unavailable
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait, supervise
from shoal.manager.certificates import CertificateAuthority, managers_of
from shoal.manager.control import Control
from shoal.manager.leader import Leader
from shoal.manager.membership import Membership
from shoal.manager.raft_transport import RaftTransport
from shoal.manager.remote_containers import RemoteContainers
from shoal.manager.root_change import RotationLoop, Signer
from shoal.manager.streams import NodeStreams
from shoal.model.messages import EndSession
from shoal.model.metrics import ConsensusStatus
from shoal.model.node_port import Acknowledged, Identity, ManagerAddress, MemberHello
from shoal.model.objects import Node
from shoal.model.states import NodeState
from shoal.raft.driver import RaftDriver
from shoal.rpc.dialer import Dialer
from shoal.rpc.link import Link
from shoal.rpc.relay import OPEN_SECONDS, ManagerEnd
from shoal.rpc.tls import ExternalContext
from shoal.store.store import Store

_log = structlog.get_logger(__name__)

HEALTH_PATH = "/health"
# where the leader opens streams to nodes for other managers
RELAY_PATH = "/nodes/{id}/stream"
HEALTH_TIMEOUT_SECONDS = 5.0
LEADER_WAIT_SECONDS = 20.0
# the leader needs a moment to say that a node has not opened a stream in its time
RELAY_TIMEOUT_SECONDS = OPEN_SECONDS + 1.0
# how often one who waits for a leader looks whether there can be one
LOST_QUORUM_PERIOD_SECONDS = 0.5
# between a win and the moment its loops run, or the leader's first word
LEAD_SETTLES_SECONDS = 0.01
NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)

OpenRaft = Callable[[Store, RaftTransport], Awaitable[RaftDriver]]


class Manager:
    """A manager, from its start to its stop.

    Args:
        clock, ids: for what is written.
        open_raft: starts the consensus engine over a store and a transport.
        dialer: reaches other managers.
        hello: who this manager is.
        known: where other managers are, as long as the store does not say it.
        external_context: how outside authorities are dialled.
    """

    def __init__(
        self,
        clock: Clock,
        ids: Ids,
        open_raft: OpenRaft,
        dialer: Dialer,
        hello: MemberHello,
        known: tuple[ManagerAddress, ...] = (),
        external_context: ExternalContext | None = None,
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._open_raft = open_raft
        self._dialer = dialer
        self._known = known
        self._hello = hello
        self.store = Store(clock)
        signer = Signer(clock, external_context)
        self.control = Control(
            self.store,
            ids,
            clock,
            make_join_token=lambda root: make_join_token(root, ids),
            make_unlock_key=lambda: make_unlock_key(ids),
            signer=signer,
        )
        self.authority = CertificateAuthority(self.store, signer, ids)
        self.remote_containers = RemoteContainers(self.open_stream)
        self.transport = RaftTransport(dialer, hello, self._address_of)
        self._raft: RaftDriver | None = None
        self._leader: Leader | None = None
        self._leading = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._sessions: set[asyncio.Task[None]] = set()

    # -- who leads

    @property
    def raft(self) -> RaftDriver:
        """The consensus engine."""
        if self._raft is None:
            raise Unavailable("the manager has not started yet")
        return self._raft

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads and its loops run."""
        return self._raft is not None and self._raft.is_leader and self._leader is not None

    @property
    def is_current(self) -> bool:
        """Whether this manager knows what a quorum knows, as far as it can tell."""
        return self._raft is not None and self._raft.has_quorum() and self.store.view.cluster() is not None

    @property
    def has_quorum(self) -> bool:
        """Whether a leader with a quorum behind it is known."""
        return self.raft.has_quorum()

    @property
    def is_quorum_lost(self) -> bool:
        """Whether it is known that nobody can lead: too few of those who vote can be reached."""
        if self.raft.has_quorum():
            return False
        voters = [member for member in self.raft.members() if member.is_voter]
        return sum(voter.is_reachable for voter in voters) < len(voters) // 2 + 1

    @property
    def membership(self) -> Membership | None:
        """Who changes the members, while this manager leads."""
        return self._leader.membership if self._leader is not None and self.is_leader else None

    @property
    def leader_node_id(self) -> str:
        """The node of the leading manager, empty if none is known."""
        leader_id = self._leader_id
        for node in self.store.view.find(Node):
            if leader_id and node.manager_status is not None and node.manager_status.raft_id == leader_id:
                return node.id
        return ""

    @property
    def _leader_id(self) -> int:
        """Who leads, 0 if nobody has been heard of lately: one that may not vote never notices."""
        return self.raft.leader_id if self.raft.has_quorum() or self.raft.is_leader else 0

    @property
    def leader_address(self) -> str:
        """Where the leader's node port answers, empty if that is not known (or nobody leads)."""
        leader_id = self._leader_id
        return self._address_of(leader_id) if leader_id else ""

    def _address_of(self, raft_id: int) -> str:
        for manager in (*managers_of(self.store.view), *self._known):
            if manager.raft_id == raft_id:
                return manager.address
        return self.transport.announced_address(raft_id)

    def reachability(self, node_id: str) -> str:
        """Say how the manager on a node is seen from here."""
        node = self.store.view.get(Node, node_id)
        if node is None or node.manager_status is None:
            return "unknown"
        return "reachable" if self.raft.is_reachable(node.manager_status.raft_id) else "unreachable"

    def consensus_status(self) -> ConsensusStatus:
        """Return how this manager stands in the Raft group."""
        members = self.raft.members()
        return ConsensusStatus(
            is_leader=self.is_leader,
            has_leader=self.raft.has_quorum(),
            term=self.raft.term,
            applied_index=self.raft.applied_index,
            members=len(members),
            members_reachable=sum(member.is_reachable for member in members),
        )

    async def await_other_leader(self, address: str, timeout_seconds: float | None = None) -> None:
        """Return when another than the manager at `address` leads, or after a while."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._address_of(self.raft.leader_id) == address:
                    await self.raft.wait_for_leader(other_than=self.raft.leader_id)
        except TimeoutError:
            return

    async def find_leader(self, timeout_seconds: float = LEADER_WAIT_SECONDS) -> str:
        """Return where the leader's node port answers, empty if this manager leads; waits while one is elected.

        Raises:
            Unavailable: nobody leads within the time.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        while True:
            if self.is_leader:
                return ""
            address = self.leader_address
            if address and self._leader_id != self._hello.raft_id:
                return address
            remaining = deadline - loop.time()
            if remaining <= 0 or self.is_quorum_lost:
                raise Unavailable(NO_LEADER)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, LOST_QUORUM_PERIOD_SECONDS)):
                    await self._wait_for_lead()
            await asyncio.sleep(LEAD_SETTLES_SECONDS)

    async def _wait_for_lead(self) -> None:
        """Return when this manager leads, or another is known to."""
        waits = [
            asyncio.ensure_future(self._leading.wait()),
            asyncio.ensure_future(self.raft.wait_for_leader(other_than=self._hello.raft_id)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)

    # -- life

    async def start(self) -> None:
        """Start the consensus engine and follow who leads."""
        self._raft = await self._open_raft(self.store, self.transport)
        self.transport.attach(self._raft)
        self.store.attach(self._raft)
        self._tasks = [
            asyncio.create_task(supervise("leadership", self._follow_leadership), name="leadership"),
            asyncio.create_task(supervise("raft settings", self._follow_settings), name="raft settings"),
        ]

    async def stop(self) -> None:
        """Stop everything; what was acknowledged is on disk."""
        await cancel_and_wait(*self._tasks, *self._sessions)
        if self._leader is not None:
            await self._leader.stop()
            self._leader = None
        if self._raft is not None:
            await self._raft.stop()
            self._raft = None
        await self.transport.stop()

    async def wait_until_leading(self) -> None:
        """Return when this manager leads and its loops run."""
        await self._leading.wait()

    async def _follow_settings(self) -> None:
        """Take the raft settings of the swarm, and who is a member, whenever they change."""
        follower = self.store.follow("cluster", "node")
        while True:
            cluster = self.store.view.cluster()
            if cluster is not None:
                raft = cluster.spec.raft
                self.raft.set_snapshots(
                    raft.snapshot_interval or SNAPSHOT_INTERVAL_ENTRIES,
                    raft.log_entries_for_slow_followers or LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
                    raft.keep_old_snapshots or 0,
                )
            if self.is_current:
                self.transport.forget_except(member.raft_id for member in self.raft.members())
            await follower.wait()

    async def _follow_leadership(self) -> None:
        while True:
            await self.raft.wait_for_leadership(True)
            membership = Membership(self.store, self.raft, self._check_reachable)
            rotation = RotationLoop(self.store, lambda root: make_join_token(root, self._ids))
            self._leader = Leader(self.store, self._clock, self._ids, membership, rotation, self._is_linked)
            self._leader.start()
            self._leading.set()
            _log.info("this manager leads", applied_index=self.raft.applied_index)
            await self.raft.wait_for_leadership(False)
            self._leading.clear()
            _log.info("this manager no longer leads")
            leader, self._leader = self._leader, None
            await leader.stop()

    def _is_linked(self, raft_id: int) -> bool:
        """Whether the host of a member answers."""
        return raft_id == self._hello.raft_id or self.transport.is_linked(raft_id)

    async def _check_reachable(self, address: str) -> None:
        try:
            await self._dialer.call(address, HEALTH_PATH, Acknowledged(), Acknowledged, HEALTH_TIMEOUT_SECONDS)
        except ShoalError as error:
            raise Unavailable(
                f"could not connect to prospective new cluster member using its advertised address: {error.message}"
            ) from error

    # -- sessions

    async def serve_session(self, link: Link, identity: Identity, address: str) -> None:
        """Serve a node's session over `link` until it ends; a manager that does not lead says who does."""
        leader = self._leader
        if leader is None or not self.is_leader:
            address = self.leader_address
            reason = "another manager leads" if address else NO_LEADER
            await link.send(EndSession(reason=reason, leader_address=address))
            link.close()
            return
        try:
            await leader.dispatcher.serve(link, identity, address)
        except (ShoalError, TimeoutError) as error:
            _log.info("session ended", node=identity.node_id, reason=str(error))

    def accept(self, link: Link, identity: Identity, address: str) -> None:
        """Serve a session of this node itself in the background."""
        task = asyncio.create_task(self.serve_session(link, identity, address), name="own session")
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    # -- streams to nodes

    async def open_stream(self, node_id: str) -> ManagerEnd:
        """Have a node open a stream for calls about its containers; whoever asks closes it.

        Raises:
            Unavailable: the node, or the leader on the way to it, is down, does not answer in time, or cannot.
        """
        node = self.store.view.get(Node, node_id)
        name = f"{node.description.hostname} ({node_id})" if node is not None else node_id
        if node is None or node.status.state == NodeState.DOWN:
            raise Unavailable(f"node {name} is {'down' if node is not None else 'not part of the swarm any more'}")
        try:
            address = await self.find_leader(OPEN_SECONDS)
            if not address:
                return ManagerEnd(await self.streams_of(node_id).open(), name)
            path = RELAY_PATH.format(id=node_id)
            frames = await self._dialer.open_frames(address, path, RELAY_TIMEOUT_SECONDS, is_patient=True)
            return ManagerEnd(frames, name)
        except (Unavailable, NotBuilt, NotFound) as error:
            raise Unavailable(f"node {name} cannot be reached: {error.message}") from error

    def streams_of(self, node_id: str) -> NodeStreams:
        """Return the streams of a node's session with this manager. Raises NotLeader, Unavailable: it has none."""
        leader = self._leader
        if leader is None or not self.is_leader:
            raise NotLeader("only the leader has sessions with nodes", self.leader_address)
        session = leader.dispatcher.session_of(node_id)
        if session is None:
            raise Unavailable("it has no session with the leading manager")
        return session.streams

    def require_lead(self, what: str) -> None:
        """Raise NotLeader, with the leader's address, if this manager does not lead."""
        if not self.is_leader:
            raise NotLeader(f"only the leader {what}", self.leader_address)
