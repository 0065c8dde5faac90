"""One node: engine and network always, manager and agent while it is in a swarm. The composition root of shoald."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import structlog

from shoal.agent.agent import Agent
from shoal.agent.database import TaskDatabase
from shoal.agent.images import ImageSource, decode_registry_auth
from shoal.agent.runner import NodeParts
from shoal.agent.worker import Worker
from shoal.api.context import HostFacts, ManagerView
from shoal.ca.root import create_root, issue_node_certificate, issuer_of
from shoal.ca.tokens import make_join_token
from shoal.core.bootstrap import check_init_request, first_actions
from shoal.core.container import TASK_ID_LABEL
from shoal.daemon.addresses import choose_advertise_address, resolve, split_address
from shoal.daemon.layout import Layout, SwarmMembership
from shoal.daemon.machine import DOCKER_VERSION, describe_node, survey_machine
from shoal.daemon.manager import Manager
from shoal.daemon.raft import open_raft
from shoal.daemon.settings import Settings
from shoal.engine.engine import RuncEngine
from shoal.errors import Conflict, InvalidArgument, NotBuilt, NotFound, Unavailable
from shoal.lib.clock import SystemClock
from shoal.lib.files import write_atomically
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait, supervise
from shoal.model.container import LogLine, LogOptions, RemoteManifest
from shoal.model.objects import Cluster, JoinTokens, Node, NodeDescription
from shoal.model.requests import JoinRequest
from shoal.model.specs import InitRequest
from shoal.model.states import LocalNodeState, Role
from shoal.network.node import NodeNetwork
from shoal.network.settings import NetworkSettings
from shoal.rpc.link import Link, make_pair

_log = structlog.get_logger(__name__)

ALREADY_IN_SWARM = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NOT_IN_SWARM = "This node is not part of a swarm"
LAST_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. "
    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
)
LEADER_TIMEOUT_SECONDS = 20.0
LEAVE_TIMEOUT_SECONDS = 60.0
PREFER_OFFLINE_VARIABLE = "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"


class SwarmNode:
    """A daemon's node; what the API is given as its context.

    Args:
        settings: roots, labels, registries.
        layout: the opened roots.
        daemon_id: names this daemon in the kernel.
    """

    version = DOCKER_VERSION

    def __init__(self, settings: Settings, layout: Layout, daemon_id: str) -> None:
        self.clock = SystemClock()
        self.ids = Ids()
        self._settings = settings
        self._layout = layout
        self._daemon_id = daemon_id
        self._machine = survey_machine()
        self._trust = NodeDescription()
        self._membership: SwarmMembership | None = None
        self._manager: Manager | None = None
        self._database: TaskDatabase | None = None
        self._worker: Worker | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()
        self._error = ""
        # set when a part has died for good; the daemon is to end then
        self.failed = asyncio.Event()
        self.engine = RuncEngine(
            data_root=settings.data_root,
            exec_root=settings.exec_root,
            image_root=settings.images,
            daemon_id=daemon_id,
            clock=self.clock,
            ids=self.ids,
            insecure_registries=settings.insecure_registries,
        )
        self._network = NodeNetwork(settings.exec_root, daemon_id, NetworkSettings(node_number=1))

    # -- life

    async def start(self) -> None:
        """Start the engine and the network, and take the swarm up again if this node is in one."""
        await asyncio.gather(self.engine.start_up(), self._network.start_up())
        membership = self._layout.read_membership()
        if membership is None:
            # A swarm that was being left when the daemon was killed is left for good now.
            await self._remove_task_containers()
        else:
            async with self._changing:
                await self._enter(membership)

    async def stop(self) -> None:
        """Stop; containers and the kernel's balancing go on. Where there are none, nothing is left behind."""
        async with self._changing:
            await self._stop_parts()
        idle = self._membership is None and not self.engine.list()
        await self.engine.close(stop_keeper=idle)
        await self._network.close(remove=idle)

    async def _enter(self, membership: SwarmMembership) -> None:
        self._membership = membership
        await self._start_manager(membership)
        self._start_agent(membership)

    async def _start_manager(self, membership: SwarmMembership) -> None:
        manager = Manager(self.clock, self.ids, lambda store: open_raft(self._layout, membership, store))
        await manager.start()
        manager.raft.failure.add_done_callback(self._manager_failed)
        self._manager = manager
        async with asyncio.timeout(LEADER_TIMEOUT_SECONDS):
            await manager.wait_until_leading()
        cluster = manager.store.view.cluster()
        if cluster is not None:
            self._take_trust(cluster)

    def _manager_failed(self, failure: asyncio.Future[BaseException]) -> None:
        """End the daemon: what is on the disk is known again only by reading it anew."""
        if not failure.cancelled():
            self._error = f"the manager has failed: {failure.result()}"
            self.failed.set()

    def _take_trust(self, cluster: Cluster) -> None:
        if cluster.root_ca is not None:
            issuer = issuer_of(cluster.root_ca.certificate)
            self._trust = NodeDescription(
                trust_root=cluster.root_ca.certificate,
                certificate_issuer_subject=issuer.subject,
                certificate_issuer_public_key=issuer.public_key,
            )

    def _start_agent(self, membership: SwarmMembership) -> None:
        prefer_local = os.environ.get(PREFER_OFFLINE_VARIABLE, "") in ("1", "true")
        parts = NodeParts(
            membership.node_id,
            self.describe_node,
            self.engine,
            self._network,
            ImageSource(self.engine, prefer_local),
            self.clock,
        )
        self._database = TaskDatabase(self._layout.worker_database)
        self._worker = Worker(parts, self._database)
        agent = Agent(membership.node_id, self.describe_node, self._dial, self._worker, self._network)
        self._worker.start()
        self._tasks = [
            asyncio.create_task(supervise("agent", agent.run), name="agent"),
            asyncio.create_task(supervise("task database", self._database.run), name="task database"),
        ]

    async def _dial(self) -> Link:
        if self._manager is None or self._membership is None:
            raise Unavailable("there is no manager to dial")
        ours, theirs = make_pair()
        address, _ = split_address(self._membership.advertise_address)
        await self._manager.accept(theirs, address)
        return ours

    async def _stop_parts(self) -> None:
        await cancel_and_wait(*self._tasks)
        self._tasks = []
        if self._worker is not None:
            await self._worker.stop()
            self._worker = None
        if self._manager is not None:
            await self._manager.stop()
            self._manager = None
        if self._database is not None:
            self._database.close()
            self._database = None

    # -- what the API asks

    @property
    def node_id(self) -> str:
        """This node's id, empty outside a swarm."""
        return self._membership.node_id if self._membership else ""

    def local_state(self) -> LocalNodeState:
        """Return how this daemon stands to a swarm."""
        if self._membership is None:
            return LocalNodeState.INACTIVE
        return LocalNodeState.ACTIVE if self._manager is not None else LocalNodeState.PENDING

    def local_error(self) -> str:
        """Return why it is not well in the swarm, empty if it is."""
        return self._error

    def manager(self) -> ManagerView | None:
        """Return the manager on this node."""
        return self._manager

    def describe_node(self) -> NodeDescription:
        """Return what this node says of itself."""
        return describe_node(self._machine, self._settings, self._trust)

    def host(self) -> HostFacts:
        """Return facts of the machine and the daemon, read now."""
        machine, membership = self._machine, self._membership
        address = split_address(membership.advertise_address)[0] if membership else ""
        managers: tuple[tuple[str, str], ...] = ()
        if self._manager is not None:
            managers = tuple(
                (node.id, node.manager_status.address)
                for node in self._manager.store.view.find(Node)
                if node.manager_status is not None
            )
        return HostFacts(
            daemon_id=self._daemon_id,
            hostname=machine.hostname,
            kernel_version=machine.kernel_version,
            operating_system=machine.operating_system,
            os_version=machine.os_version,
            architecture=machine.architecture,
            cpus=machine.cpus,
            memory_bytes=machine.memory_bytes,
            cgroup_version=machine.cgroup_version,
            data_root=str(self._settings.data_root),
            labels=self._settings.labels,
            generic_resources=self._settings.generic_resources,
            insecure_registries=("127.0.0.0/8", *self._settings.insecure_registries),
            open_files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            debug=self._settings.log_level == "debug",
            node_address=address,
            remote_managers=managers,
        )

    async def init_swarm(self, request: InitRequest) -> str:
        """Make a swarm with this node as its manager; returns the node's id."""
        check_init_request(request)
        async with self._changing:
            if self._membership is not None:
                if request.force_new_cluster:
                    raise NotBuilt("force-new-cluster: not built yet")
                raise Unavailable(ALREADY_IN_SWARM)
            if request.auto_lock_managers:
                raise NotBuilt("autolock: not built yet")
            return await self._init(request)

    async def _init(self, request: InitRequest) -> str:
        listen_host, listen_port = _part("ListenAddr", request.listen_addr or "0.0.0.0:2377")
        advertise = _advertise_address(request, listen_host, listen_port)
        cluster_id, node_id, network_id = self.ids.new(), self.ids.new(), self.ids.new()
        raft_id = int.from_bytes(self.ids.random_bytes(8), "big") >> 1 or 1
        root = create_root(self.clock.now_ns())
        tokens = JoinTokens(worker=make_join_token(root, self.ids), manager=make_join_token(root, self.ids))
        actions = first_actions(request, (cluster_id, node_id, network_id), root, tokens, raft_id, advertise)
        membership = SwarmMembership(
            node_id=node_id,
            cluster_id=cluster_id,
            raft_id=raft_id,
            advertise_address=advertise,
            listen_address=f"{listen_host}:{listen_port}",
            data_path_address=resolve(request.data_path_addr) if request.data_path_addr else "",
        )
        # Left over from an init that was killed half-way: the membership is written last.
        await asyncio.to_thread(self._layout.erase_swarm)
        self._layout.certificates.mkdir(parents=True, mode=0o700)
        try:
            await self._start_manager(membership)
            assert self._manager is not None, "a started manager is there"
            await self._manager.store.update(lambda _view: actions)
            cluster = self._manager.store.view.cluster()
            assert cluster is not None, "the first entry makes the swarm"
            self._take_trust(cluster)
            expiry_ns = cluster.spec.ca_config.node_cert_expiry
            now_ns = self.clock.now_ns()
            issued = issue_node_certificate(root, node_id, Role.MANAGER, cluster_id, now_ns, expiry_ns)
            write_atomically(self._layout.certificates / "swarm-root-ca.crt", root.certificate.encode(), 0o644)
            write_atomically(self._layout.certificates / "swarm-node.crt", issued.certificate.encode(), 0o644)
            write_atomically(self._layout.certificates / "swarm-node.key", issued.key.encode())
            self._layout.write_membership(membership)
        except BaseException:
            await self._stop_parts()
            await asyncio.to_thread(self._layout.erase_swarm)
            raise
        self._membership = membership
        self._start_agent(membership)
        _log.info("swarm made", cluster=cluster_id, node=node_id, advertise_address=advertise)
        return node_id

    async def join_swarm(self, request: JoinRequest) -> None:
        """Join a swarm."""
        if self._membership is not None:
            raise Unavailable(ALREADY_IN_SWARM)
        for field, text in (("ListenAddr", request.listen_addr), *(("RemoteAddrs", a) for a in request.remote_addrs)):
            _part(field, text)
        raise NotBuilt("swarm join: a swarm of several nodes is not built yet")

    async def unlock_swarm(self, key: str) -> None:
        """Unlock a locked manager."""
        del key
        if self._membership is None:
            raise Unavailable(NOT_IN_SWARM)
        raise Conflict("swarm is not locked")

    async def leave_swarm(self, force: bool) -> None:
        """Leave the swarm: its tasks are stopped, all it kept of the swarm is erased."""
        async with self._changing:
            if self._membership is None:
                raise Unavailable(NOT_IN_SWARM)
            if not force:
                raise Unavailable(LAST_MANAGER)
            await self._stop_parts()
            await self._remove_task_containers()
            await self._network.close(remove=True)
            await asyncio.to_thread(self._layout.erase_swarm)
            self._membership = None
            self._trust = NodeDescription()
            await self._network.start_up()
            _log.info("left the swarm")

    async def _remove_task_containers(self) -> None:
        ours = [container for container in self.engine.list() if TASK_ID_LABEL in container.config.labels]

        async def end(container_id: str) -> None:
            try:
                # At once, as Docker: who leaves by force asks for no grace.
                await self.engine.remove(container_id, force=True)
            except NotFound:
                return

        async with asyncio.timeout(LEAVE_TIMEOUT_SECONDS):
            await asyncio.gather(*(end(container.id) for container in ours))

    async def task_logs(self, task_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield the output of a task."""
        for container in self.engine.list():
            if container.config.labels.get(TASK_ID_LABEL) == task_id:
                async for line in self.engine.logs(container.id, options):
                    yield line
                return

    async def inspect_remote(self, reference: str, registry_auth: str) -> RemoteManifest:
        """Ask a registry about an image."""
        return await self.engine.images.inspect_remote(reference, decode_registry_auth(registry_auth))


def _part(field: str, text: str) -> tuple[str, int]:
    try:
        return split_address(text)
    except InvalidArgument as error:
        raise InvalidArgument(f'invalid {field} "{text}": {error.message}') from None


def _advertise_address(request: InitRequest, listen_host: str, listen_port: int) -> str:
    """Return host and port to advertise: what was asked for, the listen address, or the one address there is."""
    if request.advertise_addr:
        host, port = _part("AdvertiseAddr", request.advertise_addr)
        if ":" not in request.advertise_addr:
            port = listen_port
        return f"{resolve(host)}:{port}"
    if listen_host not in ("", "0.0.0.0", "::"):  # noqa: S104
        return f"{resolve(listen_host)}:{listen_port}"
    return f"{choose_advertise_address()}:{listen_port}"
