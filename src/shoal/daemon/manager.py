"""The manager of this node: store, consensus, control, and the leader's loops while it leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from shoal.ca.tokens import make_join_token
from shoal.core.validate.cluster import LOG_ENTRIES_FOR_SLOW_FOLLOWERS, SNAPSHOT_INTERVAL_ENTRIES
from shoal.errors import Unavailable
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait, supervise
from shoal.manager.control import Control
from shoal.manager.leader import Leader
from shoal.model.objects import Node
from shoal.raft.driver import RaftDriver
from shoal.rpc.link import Link
from shoal.store.store import Store

_log = structlog.get_logger(__name__)

OpenRaft = Callable[[Store], Awaitable[RaftDriver]]


class Manager:
    """A manager, from its start to its stop.

    Args:
        clock, ids: for what is written.
        open_raft: starts the consensus engine over a store.
    """

    def __init__(self, clock: Clock, ids: Ids, open_raft: OpenRaft) -> None:
        self._clock = clock
        self._ids = ids
        self._open_raft = open_raft
        self.store = Store(clock)
        self.control = Control(
            self.store,
            ids,
            clock,
            make_join_token=lambda root: make_join_token(root, ids),
        )
        self._raft: RaftDriver | None = None
        self._leader: Leader | None = None
        self._leading = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._settings: asyncio.Task[None] | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    @property
    def raft(self) -> RaftDriver:
        """The consensus engine."""
        if self._raft is None:
            raise Unavailable("the manager has not started yet")
        return self._raft

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads."""
        return self._raft is not None and self._raft.is_leader

    @property
    def leader_node_id(self) -> str:
        """The node of the leading manager, empty if none is known."""
        leader_id = self.raft.leader_id
        for node in self.store.view.find(Node):
            if node.manager_status is not None and node.manager_status.raft_id == leader_id:
                return node.id
        return ""

    def reachability(self, node_id: str) -> str:
        """Say how the manager on a node is seen from here."""
        node = self.store.view.get(Node, node_id)
        if node is None or node.manager_status is None:
            return "unknown"
        return "reachable" if self.raft.is_reachable(node.manager_status.raft_id) else "unreachable"

    async def start(self) -> None:
        """Start the consensus engine and follow who leads."""
        self._raft = await self._open_raft(self.store)
        self.store.attach(self._raft)
        self._watch = asyncio.create_task(supervise("leadership", self._follow_leadership), name="leadership")
        self._settings = asyncio.create_task(supervise("raft settings", self._follow_settings), name="raft settings")

    async def stop(self) -> None:
        """Stop everything; what was acknowledged is on disk."""
        await cancel_and_wait(self._watch, self._settings, *self._sessions)
        if self._leader is not None:
            await self._leader.stop()
            self._leader = None
        if self._raft is not None:
            await self._raft.stop()
            self._raft = None

    async def wait_until_leading(self) -> None:
        """Return when this manager leads and its loops run."""
        await self._leading.wait()

    async def _follow_settings(self) -> None:
        """Take the raft settings of the swarm whenever they change."""
        follower = self.store.follow("cluster")
        while True:
            cluster = self.store.view.cluster()
            if cluster is not None:
                raft = cluster.spec.raft
                self.raft.set_snapshots(
                    raft.snapshot_interval or SNAPSHOT_INTERVAL_ENTRIES,
                    raft.log_entries_for_slow_followers or LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
                    raft.keep_old_snapshots or 0,
                )
            await follower.wait()

    async def _follow_leadership(self) -> None:
        while True:
            await self.raft.wait_for_leadership(True)
            self._leader = Leader(self.store, self._clock, self._ids)
            self._leader.start()
            self._leading.set()
            _log.info("this manager leads", applied_index=self.raft.applied_index)
            await self.raft.wait_for_leadership(False)
            self._leading.clear()
            _log.info("this manager no longer leads")
            leader, self._leader = self._leader, None
            await leader.stop()

    async def accept(self, link: Link, address: str) -> None:
        """Serve a node's session over `link`, when this manager leads."""
        await self._leading.wait()
        leader = self._leader
        if leader is None:
            link.close()
            return
        task = asyncio.create_task(leader.dispatcher.serve(link, address), name="session")
        self._sessions.add(task)
        task.add_done_callback(self._session_ended)

    def _session_ended(self, task: asyncio.Task[None]) -> None:
        self._sessions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.info("session ended", reason=str(error))
