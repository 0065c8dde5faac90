"""The agent: this node's side of the session with a manager."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import structlog

from shoal.agent.streams import StreamServer
from shoal.agent.worker import Worker
from shoal.errors import ShoalError
from shoal.lib.backoff import Backoff
from shoal.lib.supervise import cancel_and_wait
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
    OpenStream,
    PullImage,
    SessionOpened,
    StatusAcknowledged,
    StreamRefused,
)
from shoal.model.netstate import NetworkChange
from shoal.model.objects import NodeDescription
from shoal.rpc.link import Frames, Link, LinkClosed

_log = structlog.get_logger(__name__)

OPEN_TIMEOUT_SECONDS = 5.0
RETRY_MOST_SECONDS = 2.0
GOODBYE_TIMEOUT_SECONDS = 1.0
# streams that managers have this node open at a time; more are refused
STREAMS_MOST = 512


class GoElsewhere(LinkClosed):
    """The manager that was dialled does not lead, and has said who does."""


class NodeKeeper(Protocol):
    """What the agent tells the daemon of its node."""

    async def dial(self) -> Link:
        """Open a link to the manager that serves sessions, as far as that is known."""

    async def dial_stream(self, stream_id: str) -> Frames:
        """Open a stream to the manager of the session under way, who asked for it. Raises Unavailable, NotFound."""

    def take_node(self, changed: NodeChanged) -> None:
        """The swarm says what this node is to be, where the managers are, and which roots to trust."""

    def session_refused(self, ended: EndSession) -> None:
        """A manager serves no session: another leads, or this node is no longer of the swarm."""


class MeshNetwork(Protocol):
    """What the agent tells the node's network."""

    async def change(self, change: NetworkChange) -> None:
        """Lead kernel and names to what the swarm wants; returns when they hold it."""


class Agent:
    """Keeps a session with a manager and hands what comes to the worker and the network.

    Args:
        node_id: who this node is.
        describe: what it is like now.
        keeper: dials managers, and hears what the swarm wants of this node.
        worker: runs the tasks.
        network: balances to them.
        streams: answers managers that want something of a container here.
    """

    def __init__(
        self,
        node_id: str,
        describe: Callable[[], NodeDescription],
        keeper: NodeKeeper,
        worker: Worker,
        network: MeshNetwork,
        streams: StreamServer,
    ) -> None:
        self._node_id = node_id
        self._describe = describe
        self._keeper = keeper
        self._worker = worker
        self._network = network
        self._streams = streams
        self._open_streams: set[asyncio.Task[None]] = set()
        self._works: set[asyncio.Task[None]] = set()
        self.session_id = ""
        self._heartbeat_period_seconds = 5.0
        self._link: Link | None = None

    async def say_goodbye(self, for_good: bool) -> None:
        """Tell the manager that this node leaves the swarm, or that its daemon stops for a while; best effort."""
        if self._link is None or not self.session_id:
            return
        ending = EndSession(reason="the daemon stops; its containers run on", returns=True)
        if for_good:
            ending = EndSession(reason="the node leaves the swarm", removed=True)
        with contextlib.suppress(LinkClosed, TimeoutError):
            async with asyncio.timeout(GOODBYE_TIMEOUT_SECONDS):
                await self._link.send(ending)

    def reconnect(self, reason: str) -> None:
        """End the session under way; another is opened at once."""
        if self._link is not None:
            _log.info("session is opened anew", node=self._node_id, reason=reason)
            self._link.close()

    async def run(self) -> None:
        """Keep a session for ever; when it ends, open another."""
        backoff = Backoff(most_seconds=RETRY_MOST_SECONDS)
        redirected = False
        while True:
            try:
                self._link = link = await self._keeper.dial()
                await self._serve(link, backoff)
            except GoElsewhere:
                # once at a time: two managers that name each other are asked at the pace of a failure
                redirected = not redirected
                if redirected:
                    continue
            except (ShoalError, OSError, TimeoutError) as error:
                redirected = False
                _log.info("session lost", node=self._node_id, reason=str(error))
            self.session_id = ""
            self._link = None
            await asyncio.sleep(backoff.next_delay_seconds())

    async def _serve(self, link: Link, backoff: Backoff) -> None:
        description = self._describe()
        await link.send(
            OpenSession(
                node_id=self._node_id,
                description=description,
                serves_streams=True,
                takes_overlays=True,
                pulls_ahead=True,
            )
        )
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            opened = await link.receive()
        if not isinstance(opened, SessionOpened):
            link.close()
            if isinstance(opened, EndSession):
                self._keeper.session_refused(opened)
                if opened.leader_address:
                    raise GoElsewhere(opened.reason)
                raise LinkClosed(opened.reason)
            raise LinkClosed("no session was opened")
        self.session_id = opened.session_id
        self._heartbeat_period_seconds = opened.heartbeat_period_seconds
        backoff.reset()
        self._worker.report_all()
        tasks = [
            asyncio.create_task(self._receive(link)),
            asyncio.create_task(self._send_reports(link)),
            asyncio.create_task(self._beat(link, opened, description)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*tasks)
            await cancel_and_wait(*self._works)
            link.close()
        for task in done:
            task.result()

    async def _receive(self, link: Link) -> None:
        while True:
            message = await link.receive()
            match message:
                case Assignments():
                    self._worker.take(message)
                case NetworkUpdate():
                    # a manager of an older version sends the mesh and nothing else
                    change = message.change or NetworkChange(version=message.ingress.version, ingress=message.ingress)
                    await self._network.change(change)
                    acknowledged = NetworkAcknowledged(ingress_version=message.ingress.version, version=change.version)
                    await link.send(acknowledged)
                case StatusAcknowledged():
                    self._worker.acknowledge(message.sequence)
                case NodeChanged():
                    self._heartbeat_period_seconds = message.heartbeat_period_seconds
                    self._worker.take_policy(message.allowed)
                    self._keeper.take_node(message)
                case PullImage():
                    self._begin(self._pull(link, message), "pull ahead")
                case OpenStream():
                    await self._begin_stream(link, message.stream_id)
                case EndSession():
                    self._keeper.session_refused(message)
                    raise LinkClosed(message.reason)
                case _:
                    raise ShoalError(f"a manager does not send {type(message).__name__}")

    async def _begin_stream(self, link: Link, stream_id: str) -> None:
        if len(self._open_streams) >= STREAMS_MOST:
            reason = f"the node serves {STREAMS_MOST} streams already: end some and try again"
            await link.send(StreamRefused(stream_id=stream_id, message=reason))
            return
        task = self._begin(self._serve_stream(link, stream_id), "stream")
        self._open_streams.add(task)
        task.add_done_callback(self._open_streams.discard)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Do something that ends with the session at the latest."""
        task = asyncio.create_task(work, name=name)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
        return task

    async def _pull(self, link: Link, asked: PullImage) -> None:
        refused = await self._worker.pull_ahead(asked.revision)
        with contextlib.suppress(LinkClosed):
            await link.send(ImagePulled(task_id=asked.task_id, refused=refused))

    async def _serve_stream(self, link: Link, stream_id: str) -> None:
        try:
            frames = await self._keeper.dial_stream(stream_id)
        except ShoalError as error:
            _log.info("a stream was not opened", reason=error.message)
            with contextlib.suppress(LinkClosed):
                await link.send(StreamRefused(stream_id=stream_id, message=error.message))
            return
        await self._streams.serve(frames)

    async def _send_reports(self, link: Link) -> None:
        while True:
            await link.send(await self._worker.next_report())

    async def _beat(self, link: Link, opened: SessionOpened, description: NodeDescription) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_period_seconds)
            await link.send(Heartbeat(session_id=opened.session_id))
            fresh = self._describe()
            if fresh != description:
                description = fresh
                await link.send(DescribeNode(description=fresh))
