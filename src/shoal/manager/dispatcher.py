"""The dispatcher: which nodes are there. One session a node, on the leader only.

A node is READY while its session lives. When the session ends: a link that was closed gives the node a moment to come
back (a daemon that says that it will be back gets longer: its containers run on); one that fell silent means that its
host or wire is dead, and three missed heartbeats that it does not work: then the node is DOWN at once. A new leader
gives all nodes three heartbeats to come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from shoal.errors import Forbidden, NotFound, ShoalError
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait, supervise
from shoal.manager.session import (
    HEARTBEATS_MISSED_MOST,
    HeartbeatMissed,
    NodeLeft,
    NodePauses,
    Session,
    SessionOver,
    heartbeat_seconds,
)
from shoal.manager.session_feed import SessionFeed
from shoal.model.actions import Action, PatchNode
from shoal.model.base import replace
from shoal.model.messages import EndSession, OpenSession
from shoal.model.node_port import Identity
from shoal.model.objects import Node, NodeStatus
from shoal.model.states import NodeState
from shoal.rpc.link import Link, LinkClosed, LinkSilent
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

LEADER_CHANGED = 'Node moved to "unknown" state due to leadership change in cluster'
OPEN_TIMEOUT_SECONDS = 5.0
# how long a node whose link was closed may be gone before it counts as down
RETURN_SECONDS = 2.0
# as long as a link may be without an acknowledgement, and a little for the first one to open
MEMBER_SILENCE_SECONDS = 3.5


class Dispatcher:
    """Serves the sessions of nodes on the leader, from gaining the lead to losing it.

    Args:
        store: read and written.
        ids: names sessions.
        is_linked: whether the host of a raft member answers: a new leader has no sessions yet to tell it by.
    """

    def __init__(self, store: Store, ids: Ids, is_linked: Callable[[int], bool] | None = None) -> None:
        self._is_linked = is_linked
        self._store = store
        self._ids = ids
        self._sessions: dict[str, Session] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._absent: dict[str, asyncio.Task[None]] = {}
        self._stopping = False
        self._feed = SessionFeed(store)
        self._feeding: asyncio.Task[None] | None = None

    async def expect_nodes(self) -> None:
        """Give every node that was ready under the last leader its time to come here; until then it gets no new tasks.

        Raises:
            ShoalError: it could not be written down.
        """

        def plan(view: View) -> Sequence[Action]:
            return [
                PatchNode(id=node.id, status=replace(node.status, state=NodeState.UNKNOWN, message=LEADER_CHANGED))
                for node in view.find(Node)
                if node.status.state == NodeState.READY and node.id not in self._sessions
            ]

        await self._store.batch(plan)
        for node in self._store.view.find(Node):
            if node.status.state == NodeState.UNKNOWN and node.id not in self._sessions:
                self._expect(node.id, self._patience_seconds(), "heartbeat failure")

    def _patience_seconds(self) -> float:
        return HEARTBEATS_MISSED_MOST * heartbeat_seconds(self._store.view)

    async def stop(self) -> None:
        """End all sessions: the lead is lost, or the daemon stops. No node is called down for it."""
        self._stopping = True
        await cancel_and_wait(*self._serving, *self._absent.values(), self._feeding)
        self._serving.clear()
        self._absent.clear()

    def session_of(self, node_id: str) -> Session | None:
        """Return the session of a node, None if it has none here."""
        return self._sessions.get(node_id)

    async def serve(self, link: Link, identity: Identity, address: str) -> None:
        """Serve one node's session over `link` until it ends.

        Args:
            link: carries the session; the node speaks first.
            identity: who it is, by its certificate.
            address: where the node was seen, for its status.
        """
        task = asyncio.current_task()
        assert task is not None, "a session is served within a task"
        if self._feeding is None:
            self._feeding = asyncio.create_task(supervise("session feed", self._feed.run), name="session feed")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
                opening = await link.receive()
            if not isinstance(opening, OpenSession) or opening.node_id != identity.node_id:
                raise Forbidden("a session begins with open-session of the node that its certificate names")
            if self._store.view.get(Node, identity.node_id) is None:
                # one that was deposed and has not heard of it may not know the node yet
                await self._store.barrier()
            if self._store.view.get(Node, identity.node_id) is None:
                await link.send(EndSession(reason=f"node {identity.node_id} is not part of this swarm", removed=True))
                raise NotFound(f"node {identity.node_id} not found")
            await self._serve(link, identity, address, opening)
        except asyncio.CancelledError:
            await _part(link, "this manager leads no more")
            raise
        finally:
            link.close()

    async def _serve(self, link: Link, identity: Identity, address: str, opening: OpenSession) -> None:
        node_id = identity.node_id
        session = Session(self._store, self._feed, link, self._ids, opening, identity.role)
        previous = self._sessions.get(node_id)
        if previous is not None:
            previous.end("another session of this node has begun")
        self._sessions[node_id] = session
        absence = self._absent.pop(node_id, None)
        if absence is not None:
            absence.cancel()
        status = NodeStatus(state=NodeState.READY, address=address)
        try:
            patch = PatchNode(id=node_id, status=status, description=opening.description)
            await self._store.update(lambda _view: (patch,))
            _log.info("node is ready", node=node_id, session=session.id, address=address)
            await session.run()
        except (HeartbeatMissed, NodeLeft) as error:
            self._lost(session, node_id, 0.0, error.message)
        except NodePauses as error:
            self._lost(session, node_id, self._patience_seconds(), error.message)
        except SessionOver as error:
            await _part(link, error.message)
            self._lost(session, node_id, RETURN_SECONDS, error.message)
        except LinkSilent as error:
            self._lost(session, node_id, 0.0, error.message)
        except LinkClosed as error:
            self._lost(session, node_id, RETURN_SECONDS, error.message)
        except ShoalError as error:
            await _part(link, error.message)
            self._lost(session, node_id, RETURN_SECONDS, error.message)
        finally:
            if self._sessions.get(node_id) is session:
                del self._sessions[node_id]

    def _lost(self, session: Session, node_id: str, within_seconds: float, reason: str) -> None:
        if self._sessions.get(node_id) is not session or self._stopping:
            return
        _log.info("session ended", node=node_id, session=session.id, reason=reason)
        self._expect(node_id, within_seconds, reason)

    def _expect(self, node_id: str, within_seconds: float, reason: str) -> None:
        task = asyncio.create_task(self._mark_down(node_id, within_seconds, reason), name=f"absence of {node_id}")
        self._absent[node_id] = task

        def ended(done: asyncio.Task[None]) -> None:
            if self._absent.get(node_id) is done:
                del self._absent[node_id]

        task.add_done_callback(ended)

    def _is_member_dead(self, node_id: str) -> bool:
        """Whether a manager runs on this node, and its host does not answer."""
        node = self._store.view.get(Node, node_id)
        if node is None or node.manager_status is None or self._is_linked is None:
            return False
        return not self._is_linked(node.manager_status.raft_id)

    async def _mark_down(self, node_id: str, within_seconds: float, reason: str) -> None:
        first_look_seconds = min(within_seconds, MEMBER_SILENCE_SECONDS)
        await asyncio.sleep(first_look_seconds)
        if not self._is_member_dead(node_id):
            await asyncio.sleep(within_seconds - first_look_seconds)
        node = self._store.view.get(Node, node_id)
        if node is None or node_id in self._sessions:
            return
        status = NodeStatus(state=NodeState.DOWN, message=reason, address=node.status.address)
        try:
            await self._store.update(lambda _view: (PatchNode(id=node_id, status=status),))
        except ShoalError as error:
            # the next leader expects the node itself
            _log.warning("a node could not be written down as down", node=node_id, reason=error.message)
            return
        _log.warning("node is down", node=node_id, reason=reason)


async def _part(link: Link, reason: str) -> None:
    """Tell the other side why it ends, if it still listens."""
    try:
        async with asyncio.timeout(1.0):
            await link.send(EndSession(reason=reason))
    except (LinkClosed, TimeoutError):
        return
