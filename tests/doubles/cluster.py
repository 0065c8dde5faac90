"""A swarm of fake nodes over a store in memory: leader, dispatcher and agents are the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from shoal.agent.agent import Agent
from shoal.agent.database import TaskDatabase
from shoal.agent.images import ImageSource
from shoal.agent.runner import NodeParts
from shoal.agent.streams import StreamServer
from shoal.agent.worker import Worker
from shoal.core.defaults import is_job
from shoal.engine.fake import FakeEngine
from shoal.lib.clock import Clock, SystemClock
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait
from shoal.manager.leader import Leader
from shoal.model.actions import Create
from shoal.model.messages import EndSession, NodeChanged
from shoal.model.netstate import Connection, IngressState, NetworkChange, OverlayService, Sandbox, SandboxRequest
from shoal.model.node_port import AttachAnswer, Identity
from shoal.model.objects import Cluster, JobStatus, Network, Node, NodeDescription, Revision, Service, Task
from shoal.model.specs import NetworkSpec, NodeSpec, Platform, Resources, ServiceSpec
from shoal.model.states import Availability, NodeState, Role, TaskState
from shoal.rpc.link import Frames, Link, make_frame_pair, make_pair
from shoal.rpc.relay import FRAMES_QUEUED_MOST
from shoal.store.store import Store
from tests.doubles.consensus import make_store

WAIT_SECONDS = 10.0


class FakeNetwork:
    def __init__(self) -> None:
        self.attached: dict[str, SandboxRequest] = {}
        self.ingress = IngressState()
        self.overlays: dict[str, dict[str, OverlayService]] = {}
        self.version = 0

    async def attach(self, request: SandboxRequest) -> Sandbox:
        self.attached[request.task_id] = request
        return Sandbox(task_id=request.task_id, path="/none", addresses=("172.18.0.2/16",))

    async def detach(self, task_id: str) -> None:
        self.attached.pop(task_id, None)

    async def connections(self, task_id: str) -> tuple[Connection, ...]:
        assert task_id in self.attached
        return ()

    async def change(self, change: NetworkChange) -> None:
        self.version = change.version
        if change.ingress is not None:
            self.ingress = change.ingress
        if change.complete:
            self.overlays.clear()
        for update in change.overlays:
            services = {} if update.complete else self.overlays.get(update.overlay.network_id, {})
            services = {**services, **{service.service_id: service for service in update.services}}
            for id_ in update.removed_service_ids:
                services.pop(id_, None)
            self.overlays[update.overlay.network_id] = services
        for id_ in change.removed_network_ids:
            self.overlays.pop(id_, None)


class NoOwnNetworks:
    """Of a node that makes no networks for itself."""

    async def join(self, _task: Task, _revision: Revision) -> tuple[AttachAnswer, ...]:
        return ()

    async def leave(self, _task_id: str) -> None:
        """Nothing was joined."""


class FakeNode:
    def __init__(self, cluster: FakeCluster, number: int) -> None:
        self.id = f"node{number}"
        self.clock, self.ids = cluster.clock, Ids()
        self.engine = FakeEngine(cluster.clock, self.ids)
        self.network = FakeNetwork()
        self.description = NodeDescription(
            hostname=f"h{number}",
            platform=Platform(architecture="x86_64", os="linux"),
            resources=Resources(nano_cpus=2_000_000_000, memory_bytes=1 << 32),
        )
        parts = NodeParts(
            self.id,
            lambda: self.description,
            self.engine,
            self.network,
            ImageSource(self.engine, True),
            cluster.clock,
            NoOwnNetworks(),
        )
        self.database = TaskDatabase(cluster.directory / f"{self.id}.sqlite")
        self.worker = Worker(parts, self.database)

        self._cluster = cluster
        self.told: list[NodeChanged] = []
        streams = StreamServer(self.engine, self.id)
        self.agent = Agent(self.id, lambda: self.description, self, self.worker, self.network, streams)
        self._task: asyncio.Task[None] | None = None

    async def dial(self) -> Link:
        ours, theirs = make_pair()
        self._cluster.serve(theirs, self.id)
        return ours

    async def dial_stream(self, stream_id: str) -> Frames:
        ours, theirs = make_frame_pair(FRAMES_QUEUED_MOST)
        session = self._cluster.leader.dispatcher.session_of(self.id)
        assert session is not None
        session.streams.take(stream_id, theirs)
        return ours

    def take_node(self, changed: NodeChanged) -> None:
        self.told.append(changed)

    def session_refused(self, ended: EndSession) -> None:
        pass

    def start(self) -> None:
        self.worker.start()
        self._task = asyncio.create_task(self.agent.run())

    async def stop(self) -> None:
        if self._task is not None:
            await cancel_and_wait(self._task)
            self._task = None
            await self.worker.stop()
            self.database.close()


class FakeCluster:
    def __init__(self, directory: Path, clock: Clock) -> None:
        self.directory = directory
        self.clock = clock
        self.ids = Ids()
        self.store: Store = make_store(clock)
        self.leader = Leader(self.store, clock, self.ids)
        self.nodes: list[FakeNode] = []
        self._sessions: set[asyncio.Task[None]] = set()

    def serve(self, link: Link, node_id: str) -> None:
        identity = Identity(node_id=node_id, role=Role.WORKER, cluster_id="c")
        task = asyncio.create_task(self.leader.dispatcher.serve(link, identity, "127.0.0.1"))
        self._sessions.add(task)
        task.add_done_callback(self._sessions.discard)

    async def start(self, node_count: int) -> None:
        network = Network(
            id="ingress-id",
            spec=NetworkSpec(name="ingress", ingress=True, driver="overlay"),
            subnets=("10.0.0.0/24",),
            gateways=("10.0.0.1",),
        )
        await self.store.update(lambda _view: [Create(object=Cluster(id="c")), Create(object=network)])
        for number in range(1, node_count + 1):
            node = FakeNode(self, number)
            spec = NodeSpec(role=Role.WORKER, availability=Availability.ACTIVE)
            value = Node(id=node.id, spec=spec, number=number)
            await self.store.update(lambda _view, value=value: [Create(object=value)])  # type: ignore[misc]
            self.nodes.append(node)
            node.start()
        self.leader.start()
        nodes = self.store.view
        await self.until(
            lambda: all(n.status.state == NodeState.READY for n in nodes.find(Node)), "all nodes are ready"
        )

    async def stop(self) -> None:
        await self.leader.stop()
        for node in self.nodes:
            await node.stop()
        await cancel_and_wait(*self._sessions)

    async def create(self, spec: ServiceSpec) -> str:
        status = JobStatus() if is_job(spec) else None
        service = Service(id=self.ids.new(), spec=spec, spec_version=1, job_status=status)
        await self.store.update(lambda _view: [Create(object=service)])
        return service.id

    def tasks(self, service_id: str, *states: TaskState) -> list[Task]:
        tasks = self.store.view.tasks_of_service(service_id)
        return [task for task in tasks if not states or task.status.state in states]

    def wanted_running(self, service_id: str) -> list[Task]:
        return [t for t in self.tasks(service_id, TaskState.RUNNING) if t.desired_state == TaskState.RUNNING]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        follower = self.store.follow()
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while not condition():
            remaining = deadline - asyncio.get_running_loop().time()
            assert remaining > 0, f"not within {WAIT_SECONDS} s: {what}"
            await follower.wait(min(0.05, remaining))


@asynccontextmanager
async def running_cluster(directory: Path, node_count: int, clock: Clock | None = None) -> AsyncIterator[FakeCluster]:
    cluster = FakeCluster(directory, clock or SystemClock())
    await cluster.start(node_count)
    try:
        yield cluster
    finally:
        await cluster.stop()
