"""One node's session: assignments, network state and what concerns the node itself go out, statuses come in.

What a session has sent is remembered in the session only: a new one starts with the whole. Which node has a session,
and what it means when one ends, is the dispatcher's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from shoal.ca.root import issuer_of
from shoal.core.assign import Sent, diff
from shoal.core.defaults import HEARTBEAT_PERIOD_NS
from shoal.core.payload_versions import Payload, at_version, from_id_on_node
from shoal.core.privileges import allowed_words
from shoal.errors import ShoalError, Unavailable
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait
from shoal.manager.certificates import managers_of, role_to_certify
from shoal.manager.network_feed import NetworkFeed
from shoal.manager.root_change import active_root
from shoal.manager.session_feed import News, SessionFeed, Subscription
from shoal.manager.streams import NodeStreams
from shoal.model.actions import Action, PatchNode, PatchTask
from shoal.model.base import replace
from shoal.model.messages import (
    Assignments,
    DescribeNode,
    EndSession,
    Heartbeat,
    ImagePulled,
    NetworkAcknowledged,
    NetworkUpdate,
    NodeChanged,
    OpenSession,
    PullImage,
    ReportStatus,
    SessionOpened,
    StatusAcknowledged,
    StreamRefused,
    TaskReport,
)
from shoal.model.netstate import DataPath, IngressState, NetworkChange, OverlayUpdate
from shoal.model.objects import Cluster, Config, Meta, Node, NodeDescription, NodeStatus, Secret, Task, TaskStatus
from shoal.model.states import Role, TaskState
from shoal.rpc.link import Link, LinkClosed
from shoal.store.store import Store
from shoal.store.view import View

# Changes that come in one burst share a frame; the first of a burst waits this long for the others.
ASSIGNMENT_DEBOUNCE_SECONDS = 0.005
# what only the network of others concerns waits longer: every client's namespace is written for it
NETWORK_DEBOUNCE_SECONDS = 0.025
REPORTS_QUEUED_MOST = 10_000
# a node is silent when it has missed this many heartbeats
HEARTBEATS_MISSED_MOST = 3
WATCH_PERIOD_SECONDS = 1.0


class SessionOver(Unavailable):
    """A session that this side ends: its node is told why."""


class NodeLeft(SessionOver):
    """The node has left the swarm: it does not come back."""


class NodePauses(SessionOver):
    """The node's daemon stops; its containers run on, and it will be back."""


class HeartbeatMissed(SessionOver):
    """The node has not been heard of for three heartbeats, though its host answers."""


class Session:
    """A session under way.

    Args:
        store: read, and written with what the node reports.
        feed: says what to look at.
        link: carries the session.
        ids: names it and its streams.
        opening: what the node opened it with; the node is the one that its certificate names.
        certified_role: the role in its certificate.
    """

    def __init__(
        self, store: Store, feed: SessionFeed, link: Link, ids: Ids, opening: OpenSession, certified_role: Role
    ) -> None:
        self.id = ids.new()
        self._feed = feed
        self.streams = NodeStreams(link, ids, opening.serves_streams)
        self._store = store
        self._link = link
        self._node_id = opening.node_id
        self._certified_role = certified_role
        self._sent = Sent()
        self._told: NodeChanged | None = None
        self._takes_overlays = opening.takes_overlays
        self._pulls_ahead = opening.pulls_ahead
        self._pulls: set[str] = set()
        self._ingress_sent: IngressState | None = None
        self._data_path_sent: DataPath | None = None
        self._heard_at = asyncio.get_running_loop().time()
        self._reports: asyncio.Queue[ReportStatus] = asyncio.Queue(REPORTS_QUEUED_MOST)
        self._ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until the session ends.

        Raises:
            LinkClosed, LinkSilent: the link has ended, with or without a word.
            SessionOver, HeartbeatMissed: this side has ended it.
        """
        await self._link.send(
            SessionOpened(session_id=self.id, heartbeat_period_seconds=heartbeat_seconds(self._store.view))
        )
        self.streams.begin()
        tasks = [
            asyncio.create_task(self._send_assignments()),
            asyncio.create_task(self._write_reports()),
            asyncio.create_task(self._receive()),
            asyncio.create_task(self._watch_heartbeat()),
            asyncio.create_task(self._await_end()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*tasks)
            self.streams.close("the node's session has ended")
            self._link.close()
        for task in done:
            error = task.exception()
            if error is not None:
                raise error

    def end(self, reason: str) -> None:
        """End the session from this side."""
        if not self._ending.done():
            self._ending.set_result(reason)

    async def _await_end(self) -> None:
        reason = await self._ending
        raise SessionOver(reason)

    async def _watch_heartbeat(self) -> None:
        """Miss the node only by this manager's own waking time: while it was stopped itself, it heard of nobody."""
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            await asyncio.sleep(WATCH_PERIOD_SECONDS)
            now = loop.time()
            self._heard_at += max(0.0, now - looked_at - 2 * WATCH_PERIOD_SECONDS)
            looked_at = now
            if now - self._heard_at > HEARTBEATS_MISSED_MOST * heartbeat_seconds(self._store.view):
                raise HeartbeatMissed("heartbeat failure")

    async def _send_assignments(self) -> None:
        place = self._feed.subscribe(self._node_id)
        try:
            while True:
                await place.wait()
                await asyncio.sleep(ASSIGNMENT_DEBOUNCE_SECONDS)
                await place.wait_for_tasks(NETWORK_DEBOUNCE_SECONDS)
                await self._send_news(place, place.take())
        finally:
            self._feed.unsubscribe(self._node_id, place)

    async def _send_news(self, place: Subscription, news: News) -> None:
        view = self._store.view
        network = self._feed.network()
        if news.everything or news.node:
            await self._tell_node(view)
        assignments = self._assignments(view, news)
        # The network first: a task that starts finds its own, one that is to stop has left it before it is told.
        update = self._network_update(place, news, network)
        if update is not None:
            await self._link.send(update)
        if assignments is not None:
            await self._link.send(assignments)
        await self._send_pulls(view, news)

    async def _send_pulls(self, view: View, news: News) -> None:
        """Have the node pull images of tasks that are to come when another has left."""
        if news.everything:
            found: Iterable[Task | None] = (
                task for state in (TaskState.NEW, TaskState.PENDING) for task in view.unassigned_tasks(state)
            )
        else:
            found = (view.get(Task, id_) for id_ in news.tasks)
        for task in found:
            if task is None or not self._is_to_pull(task) or task.id in self._pulls:
                continue
            if self._pulls_ahead:
                self._pulls.add(task.id)
                await self._link.send(PullImage(task_id=task.id, revision=view.revision_of(task)))
            else:
                # its daemon is of a version that pulls when the task has come
                await self._write_pulled(ImagePulled(task_id=task.id))

    def _is_to_pull(self, task: Task) -> bool:
        is_asked = task.pull_node_id == self._node_id and not task.pulled
        return is_asked and task.is_wanted and task.status.state <= TaskState.PENDING

    async def _write_pulled(self, told: ImagePulled) -> None:
        self._pulls.discard(told.task_id)

        def plan(view: View) -> list[Action]:
            task = view.get(Task, told.task_id)
            if task is None or not self._is_to_pull(task):
                return []
            if told.refused is not None and told.refused.state == TaskState.REJECTED:
                return [PatchTask(id=task.id, node_id=self._node_id, status=told.refused)]
            return [PatchTask(id=task.id, pulled=True)]

        await self._store.batch(plan)

    def _network_update(self, place: Subscription, news: News, network: NetworkFeed) -> NetworkUpdate | None:
        """Return what the node's network is to become, None if it is so already."""
        ingress = network.mesh if network.mesh is not self._ingress_sent else None
        data_path = network.data_path if network.data_path is not self._data_path_sent else None
        self._ingress_sent, self._data_path_sent = network.mesh, network.data_path
        if not self._takes_overlays:
            return NetworkUpdate(ingress=ingress) if ingress is not None else None
        before = frozenset[str]() if news.everything else place.networks
        wanted = place.networks
        if news.everything or news.tasks:
            wanted = network.networks_of_node(self._node_id)
        place.networks = wanted
        overlays: list[OverlayUpdate | None] = [network.whole(id_) for id_ in sorted(wanted - before)]
        changed = sorted(news.services.keys() & wanted & before)
        overlays += [network.difference(id_, news.services[id_]) for id_ in changed]
        removed = tuple(sorted(before - wanted))
        if not (news.everything or ingress is not None or data_path is not None or overlays or removed):
            return None
        change = NetworkChange(
            version=network.version,
            ingress=ingress,
            data_path=data_path,
            overlays=tuple(overlay for overlay in overlays if overlay is not None),
            removed_network_ids=removed,
            complete=news.everything,
        )
        return NetworkUpdate(change=change)

    async def _tell_node(self, view: View) -> None:
        """Tell the node what has changed about itself, the managers or the roots."""
        node = view.get(Node, self._node_id)
        if node is None:
            await self._link.send(EndSession(reason=f"node {self._node_id} was removed from the swarm", removed=True))
            raise SessionOver(f"node {self._node_id} was removed")
        cluster = view.cluster()
        changed = NodeChanged(
            # what the node reports itself need not come back
            node=replace(node, meta=Meta(), description=NodeDescription(), status=NodeStatus()),
            managers=managers_of(view),
            roots=cluster.root_ca.certificate if cluster is not None and cluster.root_ca is not None else "",
            certificate_wanted=role_to_certify(node) != self._certified_role or _has_old_issuer(node, cluster),
            heartbeat_period_seconds=heartbeat_seconds(self._store.view),
            allowed=tuple(sorted(allowed_words(cluster.spec.labels))) if cluster is not None else (),
        )
        if changed != self._told:
            self._told = changed
            await self._link.send(changed)

    def _assignments(self, view: View, news: News) -> Assignments | None:
        """Return what the node does not know yet; only tasks that changed are looked at."""
        if not news.everything and not news.tasks:
            return None
        if news.everything:
            wanted, among = view.tasks_of_node(self._node_id), None
        else:
            found = [view.get(Task, id_) for id_ in news.tasks]
            wanted = tuple(task for task in found if task is not None and task.node_id == self._node_id)
            among = news.tasks
        return diff(
            self._sent,
            [self._feed.as_told(task) for task in wanted],
            view.revision_of,
            among,
            secret_of=lambda text: _version(view, Secret, text),
            config_of=lambda text: _version(view, Config, text),
        )

    async def _receive(self) -> None:
        while True:
            message = await self._link.receive()
            self._heard_at = asyncio.get_running_loop().time()
            match message:
                case ReportStatus():
                    await self._reports.put(message)
                case Heartbeat():
                    pass
                case DescribeNode():
                    patch = PatchNode(id=self._node_id, description=message.description)
                    await self._store.update(lambda _view, patch=patch: (patch,))  # type: ignore[misc]
                case NetworkAcknowledged():
                    self._feed.acknowledge(self._node_id, max(message.version, message.ingress_version))
                case ImagePulled():
                    await self._write_pulled(message)
                case StreamRefused():
                    self.streams.refuse(message)
                case EndSession():
                    raise _ended_by_node(message)
                case _:
                    raise ShoalError(f"a node does not send {type(message).__name__}")

    def _with_note(self, report: TaskReport) -> TaskStatus:
        """Return a status as it is stored: what the managers know of a task's end stands in its message."""
        note = self._feed.note_of(report.task_id)
        status = report.status
        return replace(status, message=f"{status.message}; {note}") if note else status

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
                    PatchTask(id=report.task_id, status=self._with_note(report))
                    for message in reports
                    for report in message.reports
                    if self._is_ours(view, report.task_id)
                ]

            await self._store.batch(plan)
            await self._link.send(StatusAcknowledged(sequence=reports[-1].sequence))


def _version(view: View, kind: type[Payload], id_on_node: str) -> Payload | None:
    id_, version = from_id_on_node(id_on_node)
    return at_version(view.get(kind, id_), version)


def heartbeat_seconds(view: View) -> float:
    """Return how often a node is to be heard of."""
    cluster = view.cluster()
    return ((cluster.spec.dispatcher.heartbeat_period if cluster else 0) or HEARTBEAT_PERIOD_NS) / 1e9


def _ended_by_node(message: EndSession) -> ShoalError:
    if message.removed:
        return NodeLeft(message.reason)
    return NodePauses(message.reason) if message.returns else LinkClosed(message.reason)


def _has_old_issuer(node: Node, cluster: Cluster | None) -> bool:
    """Whether a node's certificate is of another root than the one that signs now."""
    issuer = node.description.certificate_issuer_public_key
    if cluster is None or cluster.root_ca is None or not issuer:
        return False
    return issuer != issuer_of(active_root(cluster).certificate).public_key
