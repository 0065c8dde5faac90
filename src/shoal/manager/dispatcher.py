"""The dispatcher: tells nodes what to run and balance to, and writes down what they report.

One session a node, over a link. A node is READY while its session lives; when it ends the node is DOWN. What a session
has sent is remembered in the session only: a new session starts with the whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from shoal.core.assign import Sent, diff
from shoal.core.defaults import HEARTBEAT_PERIOD_NS
from shoal.core.ingress import published_ports
from shoal.errors import NotFound, ShoalError
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait
from shoal.manager.loops import ingress_network
from shoal.model.actions import Action, PatchNode, PatchTask
from shoal.model.messages import (
    Assignments,
    DescribeNode,
    EndSession,
    Heartbeat,
    NetworkAcknowledged,
    NetworkUpdate,
    OpenSession,
    ReportStatus,
    SessionOpened,
    StatusAcknowledged,
)
from shoal.model.netstate import IngressPort, IngressState
from shoal.model.objects import Node, NodeStatus, Service, Task
from shoal.model.states import NodeState
from shoal.rpc.link import Link, LinkClosed
from shoal.store.feed import Batch
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

OPEN_TIMEOUT_SECONDS = 5.0
# Changes that come in one burst share a frame; the first of a burst waits this long for the others.
ASSIGNMENT_DEBOUNCE_SECONDS = 0.005
REPORTS_QUEUED_MOST = 10_000


class Dispatcher:
    """Serves the sessions of nodes on the leader."""

    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._sessions: dict[str, Session] = {}

    async def serve(self, link: Link, address: str) -> None:
        """Serve one node's session over `link` until it ends.

        Args:
            link: carries the session; the node speaks first.
            address: where the node was seen, for its status.
        """
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            opening = await link.receive()
        if not isinstance(opening, OpenSession):
            await link.send(EndSession(reason="a session begins with open-session"))
            return
        node = self._store.view.get(Node, opening.node_id)
        if node is None:
            await link.send(EndSession(reason=f"node {opening.node_id} is not part of this swarm"))
            raise NotFound(f"node {opening.node_id} not found")
        session = Session(self._store, self._clock, link, self._ids.new(), node.id)
        previous = self._sessions.get(node.id)
        if previous is not None:
            previous.end("another session of this node has begun")
        self._sessions[node.id] = session
        status = NodeStatus(state=NodeState.READY, address=address)
        try:
            patch = PatchNode(id=node.id, status=status, description=opening.description)
            await self._store.update(lambda _view: (patch,))
            _log.info("node is ready", node=node.id, session=session.id)
            await session.run()
        finally:
            if self._sessions.get(node.id) is session:
                del self._sessions[node.id]


class Session:
    """One node's session: assignments and network state go out, statuses come in."""

    def __init__(self, store: Store, clock: Clock, link: Link, id_: str, node_id: str) -> None:
        self.id = id_
        self._store = store
        self._clock = clock
        self._link = link
        self._node_id = node_id
        self._sent = Sent()
        self._ingress_sent: IngressState | None = None
        self._published: dict[str, tuple[IngressPort, ...]] = {}
        self.ingress_acknowledged = 0
        self._reports: asyncio.Queue[ReportStatus] = asyncio.Queue(REPORTS_QUEUED_MOST)

    async def run(self) -> None:
        """Serve until the link ends."""
        view = self._store.view
        node = view.get(Node, self._node_id)
        if node is None:
            raise NotFound(f"node {self._node_id} not found")
        cluster = view.cluster()
        period_ns = (cluster.spec.dispatcher.heartbeat_period if cluster else 0) or HEARTBEAT_PERIOD_NS
        await self._link.send(SessionOpened(session_id=self.id, node=node, heartbeat_period_seconds=period_ns / 1e9))
        tasks = [
            asyncio.create_task(self._send_assignments()),
            asyncio.create_task(self._write_reports()),
            asyncio.create_task(self._receive()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*tasks)
            self._link.close()
        for task in done:
            error = task.exception()
            if error is not None and not isinstance(error, LinkClosed):
                raise error

    def end(self, reason: str) -> None:
        """End the session from this side."""
        _log.info("session ended", node=self._node_id, session=self.id, reason=reason)
        self._link.close()

    async def _send_assignments(self) -> None:
        follower = self._store.follow("task", "service", "node")
        batch = Batch(changes=(), gap=True)
        while True:
            view = self._store.view
            assignments = self._assignments(view, batch)
            ingress = self._ingress(view, batch)
            # The mesh first: a task that is to stop has then left it before it is told.
            if self._ingress_sent is None or ingress.ports != self._ingress_sent.ports:
                self._ingress_sent = ingress
                await self._link.send(NetworkUpdate(ingress=ingress))
            if assignments is not None:
                await self._link.send(assignments)
            first = await follower.wait()
            await asyncio.sleep(ASSIGNMENT_DEBOUNCE_SECONDS)
            rest = follower.take()
            batch = Batch(changes=first.changes + rest.changes, gap=first.gap or rest.gap)

    def _assignments(self, view: View, batch: Batch) -> Assignments | None:
        """Return what the node does not know yet; only tasks that `batch` changed are looked at."""
        if batch.gap:
            return diff(self._sent, view.tasks_of_node(self._node_id), view.revision_of)
        changed = frozenset(change.id for change in batch.changes if change.kind == "task")
        found = (view.get(Task, id_) for id_ in changed)
        ours = [task for task in found if task is not None and task.node_id == self._node_id]
        return diff(self._sent, ours, view.revision_of, among=changed)

    def _ingress(self, view: View, batch: Batch) -> IngressState:
        """Return the mesh after `batch`; only services that it concerns are looked at again."""
        network = ingress_network(view)
        version = self._store.consensus.applied_index
        if network is None:
            return IngressState(version=version)
        if batch.gap:
            self._published.clear()
            concerned = [service.id for service in view.find(Service)]
        else:
            concerned = list(dict.fromkeys(_services_of(view, batch)))
        for service_id in concerned:
            service = view.get(Service, service_id)
            ports = (
                published_ports((service,), view.tasks_of_service, lambda id_: view.get(Node, id_), network.id)
                if service is not None
                else ()
            )
            if ports:
                self._published[service_id] = ports
            else:
                self._published.pop(service_id, None)
        every = (port for ports in self._published.values() for port in ports)
        return IngressState(version=version, ports=tuple(sorted(every, key=lambda p: (p.protocol, p.published_port))))

    async def _receive(self) -> None:
        while True:
            message = await self._link.receive()
            match message:
                case ReportStatus():
                    await self._reports.put(message)
                case Heartbeat():
                    pass
                case DescribeNode():
                    patch = PatchNode(id=self._node_id, description=message.description)
                    await self._store.update(lambda _view, patch=patch: (patch,))  # type: ignore[misc]
                case NetworkAcknowledged():
                    self.ingress_acknowledged = max(self.ingress_acknowledged, message.ingress_version)
                case EndSession():
                    return
                case _:
                    raise ShoalError(f"a node does not send {type(message).__name__}")

    def _is_ours(self, view: View, task_id: str) -> bool:
        """Whether a task was given to this session's node: nodes speak for their own tasks only."""
        task = view.get(Task, task_id)
        return task is not None and task.node_id == self._node_id

    async def _write_reports(self) -> None:
        """Write statuses as they come; all that wait share an entry."""
        while True:
            reports = [await self._reports.get()]
            while not self._reports.empty():
                reports.append(self._reports.get_nowait())

            def plan(view: View, reports: list[ReportStatus] = reports) -> list[Action]:
                return [
                    PatchTask(id=report.task_id, status=report.status)
                    for message in reports
                    for report in message.reports
                    if self._is_ours(view, report.task_id)
                ]

            await self._store.batch(plan)
            await self._link.send(StatusAcknowledged(sequence=reports[-1].sequence))


def _services_of(view: View, batch: Batch) -> Iterator[str]:
    """Yield the services whose backends a batch of changes can concern."""
    for change in batch.changes:
        value = change.new or change.old
        if isinstance(value, Task):
            yield value.service_id
        elif isinstance(value, Service):
            yield value.id
        elif isinstance(value, Node):
            yield from (task.service_id for task in view.tasks_of_node(value.id))
