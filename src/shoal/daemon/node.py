"""One node: engine and network always, manager and agent while it is in a swarm. The composition root of shoald."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import structlog
from aiohttp import ClientError, web

from shoal.agent.container_network import ContainerNetwork
from shoal.agent.containers import PlainContainers
from shoal.api.application import make_application
from shoal.api.context import HostFacts, ManagerView
from shoal.api.requests import LOCKED
from shoal.ca.tokens import parse_unlock_key
from shoal.core.bootstrap import check_init_request
from shoal.core.container import TASK_ID_LABEL
from shoal.core.diagnosis import examine_swarm
from shoal.daemon.addresses import split_address
from shoal.daemon.attachments import NodeAttachments
from shoal.daemon.doctor import examine_this_machine, look_at_helpers, look_at_managers
from shoal.daemon.forwarding import OUTCOME_UNKNOWN, ask_leader, forward
from shoal.daemon.joining import JoinPlan, enter, prepare_founding, revive
from shoal.daemon.layout import Layout, SwarmMembership
from shoal.daemon.local_networks import LocalNetworks
from shoal.daemon.machine import DOCKER_VERSION, describe_node, survey_machine
from shoal.daemon.manager import NO_LEADER, Manager
from shoal.daemon.participation import Machinery, Participation
from shoal.daemon.restoring import back_up, restore
from shoal.daemon.settings import Settings
from shoal.engine.engine import RuncEngine
from shoal.engine.images.credentials import decode_credentials
from shoal.errors import Conflict, InvalidArgument, Locked, NotFound, ShoalError, Unavailable
from shoal.lib.clock import SystemClock
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait
from shoal.model.container import LogLine, LogOptions, RemoteManifest
from shoal.model.diagnosis import Finding, PathFacts, SwarmFacts
from shoal.model.objects import ManagerStatus, Node, NodeDescription, Task
from shoal.model.requests import JoinRequest, RestoreRequest
from shoal.model.specs import InitRequest
from shoal.model.states import LocalNodeState
from shoal.network.names.client import ResolverClient
from shoal.network.node import NodeNetwork
from shoal.network.settings import NetworkSettings
from shoal.rpc.port import check_can_listen

_log = structlog.get_logger(__name__)

ALREADY_IN_SWARM = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
NOT_IN_SWARM = "This node is not part of a swarm"
RESTORE_ONLY = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
    "Use `--force` to suppress this message."
)
JOIN_GOES_ON = (
    "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. "
    'Use the "docker info" command to see the current swarm status of your node.'
)
JOIN_TIMEOUT_SECONDS = 20.0
LEADER_TIMEOUT_SECONDS = 20.0
LEAVE_TIMEOUT_SECONDS = 60.0


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
        self._facts = survey_machine()
        self._part: Participation | None = None
        self._joining: asyncio.Task[None] | None = None
        self._join_error = ""
        # what this node remembers of its swarm while it cannot be read without the unlock key
        self._locked: SwarmMembership | None = None
        self._changing = asyncio.Lock()
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
        names = ResolverClient(settings.exec_root, f"shoal-resolver-{daemon_id}")
        key_file = settings.data_root / "wireguard.key"
        network_settings = NetworkSettings(wireguard_port=settings.wireguard_port)
        self._network = NodeNetwork(settings.exec_root, daemon_id, network_settings, names, key_file)
        directory = settings.data_root / "networks"
        self.local_networks = LocalNetworks(directory, self.engine, self._network, self.clock, self.ids)
        attachments = NodeAttachments(lambda: self._part, self._network, self.local_networks)
        self.containers = PlainContainers(self.engine, ContainerNetwork(self.engine, self._network, attachments))
        self._machinery = Machinery(
            layout,
            self.engine,
            self._network,
            self.local_networks,
            self.clock,
            self.ids,
            self._describe,
            lambda: make_application(self, is_forwarded=True),
            session_began=self.containers.session_began,
        )

    # -- life

    async def start(self) -> None:
        """Start the engine and the network, and take the swarm up again if this node is in one."""
        await asyncio.gather(self.engine.start_up(), self._network.start_up())
        await self.local_networks.start_up()
        await self.containers.start_up()
        membership = self._layout.read_membership()
        if membership is None:
            # A swarm that was being left when the daemon was killed is left for good now.
            await self._remove_task_containers()
        else:
            async with self._changing:
                try:
                    await self._enter(self._part_of(membership))
                except Locked:
                    self._locked = membership
                    _log.warning("the manager is locked: docker swarm unlock", node=membership.node_id)

    async def stop(self) -> None:
        """Stop; containers and the kernel's balancing go on. Where there are none, nothing is left behind."""
        async with self._changing:
            await cancel_and_wait(self._joining)
            part, self._part = self._part, None
            in_swarm = part is not None or self._locked is not None
            if part is not None:
                await part.say_goodbye(for_good=False)
                await part.stop()
        await self.containers.close()
        idle = not in_swarm and not self.engine.list()
        await self.engine.close(stop_keeper=idle)
        await self._network.close(remove=idle)

    async def _enter(self, part: Participation, forgets_others: bool = False) -> None:
        try:
            await part.start(forgets_others=forgets_others)
        except BaseException:
            await part.stop()
            raise
        self._part = part
        part.start_agent()

    def _part_of(self, membership: SwarmMembership, unlock_key: str = "") -> Participation:
        return Participation(self._machinery, membership, self._manager_failed, unlock_key)

    def _manager_failed(self, error: BaseException) -> None:
        """End the daemon: what is on the disk is known again only by reading it anew."""
        _log.error("the manager has failed", reason=str(error))
        self.failed.set()

    # -- what the API asks

    @property
    def node_id(self) -> str:
        """This node's id, empty outside a swarm."""
        return self._part.membership.node_id if self._part else ""

    def local_state(self) -> LocalNodeState:
        """Return how this daemon stands to a swarm."""
        if self._locked is not None:
            return LocalNodeState.LOCKED
        if self._part is None:
            return LocalNodeState.PENDING if self._joining is not None else LocalNodeState.INACTIVE
        return LocalNodeState.ACTIVE

    def local_error(self) -> str:
        """Return why it is not well in the swarm, empty if it is."""
        if self._part is None:
            return self._join_error
        manager = self._part.manager
        if manager is not None and manager.is_quorum_lost:
            return NO_LEADER
        return self._part.error

    def manager(self) -> ManagerView | None:
        """Return the manager on this node."""
        return self._part.manager if self._part is not None else None

    def describe_node(self) -> NodeDescription:
        """Return what this node says of itself."""
        return self._part.describe() if self._part is not None else self._describe(NodeDescription())

    def _describe(self, trust: NodeDescription) -> NodeDescription:
        return describe_node(self._facts, self._settings, trust, self._network.wireguard_key)

    def host(self) -> HostFacts:
        """Return facts of the machine and the daemon, read now."""
        machine = self._facts
        membership = self._part.membership if self._part is not None else None
        address = split_address(membership.advertise_address)[0] if membership else ""
        managers = tuple((each.node_id, each.address) for each in membership.managers) if membership else ()
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
            runc_version=machine.runc_version,
            data_root=str(self._settings.data_root),
            labels=self._settings.labels,
            generic_resources=self._settings.generic_resources,
            insecure_registries=("127.0.0.0/8", *self._settings.insecure_registries),
            open_files=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            debug=self._settings.log_level == "debug",
            node_address=address,
            remote_managers=managers,
            way_out=self._network.way_out(),
        )

    async def examine(self) -> tuple[Finding, ...]:
        """Look at this node and its ways to the others; takes seconds."""
        membership = self._part.membership if self._part is not None else None
        managers = [each.address for each in membership.managers] if membership else []
        machine, helpers, asked, paths = await asyncio.gather(
            asyncio.to_thread(examine_this_machine),
            asyncio.to_thread(look_at_helpers, self._settings.exec_root, self._network.has_overlays),
            look_at_managers(managers),
            self._network.ask_peers(),
        )
        facts = SwarmFacts(
            own_address=self.host().node_address,
            state=self.local_state().value,
            error=self.local_error(),
            helpers=helpers,
            managers=asked,
            paths=paths if membership is not None else PathFacts(),
        )
        return (*machine, *examine_swarm(facts))

    async def init_swarm(self, request: InitRequest) -> str:
        """Make a swarm with this node as its manager; returns the node's id."""
        check_init_request(request)
        async with self._changing:
            if request.force_new_cluster and self._part is not None:
                return await self._go_on_alone(request, self._part)
            self._require_no_swarm()
            return await self._init(request)

    def _require_no_swarm(self) -> None:
        """Raise Unavailable if this node is in a swarm, or has one that it cannot read: entering another erases it."""
        if self._locked is not None:
            raise Unavailable(LOCKED)
        if self._part is not None or self._joining is not None:
            raise Unavailable(ALREADY_IN_SWARM)

    async def _go_on_alone(self, request: InitRequest, old: Participation) -> str:
        """Make a swarm of one manager out of what this one knows; services and workers stay."""
        if old.manager is None:
            raise Unavailable("this node is not a swarm manager: --force-new-cluster goes on with what a manager knows")
        membership = revive(request, old.membership)
        await old.stop()
        self._part = None
        try:
            check_can_listen(*split_address(membership.listen_address))
        except InvalidArgument:
            # nothing has been forgotten yet
            await self._enter(self._part_of(old.membership, old.unlock_key))
            raise
        self._layout.write_membership(membership)
        await self._lead_alone(self._part_of(membership, old.unlock_key), forgets_others=True)
        return membership.node_id

    async def _lead_alone(self, part: Participation, forgets_others: bool = False) -> None:
        membership = part.membership
        await self._enter(part, forgets_others)
        manager = part.manager
        assert manager is not None, "its certificate is a manager's"
        async with asyncio.timeout(LEADER_TIMEOUT_SECONDS):
            await manager.wait_until_leading()
        status = ManagerStatus(raft_id=membership.raft_id, address=membership.advertise_address)
        await manager.control.forget_other_managers(membership.node_id, status)
        _log.warning("the swarm goes on with this manager alone", node=membership.node_id)

    async def _init(self, request: InitRequest) -> str:
        # Left over from an init that was killed half-way: the membership is written last.
        await asyncio.to_thread(self._layout.erase_swarm)
        membership, actions = prepare_founding(request, self._layout, self.clock, self.ids)
        part = self._part_of(membership)
        try:
            await part.start(founds=True)
            manager = part.manager
            assert manager is not None, "a founder has a manager"
            async with asyncio.timeout(LEADER_TIMEOUT_SECONDS):
                await manager.wait_until_leading()
            await manager.store.update(lambda _view: actions)
            self._layout.write_membership(membership)
        except BaseException:
            await part.stop()
            await asyncio.to_thread(self._layout.erase_swarm)
            raise
        self._part = part
        part.start_agent()
        _log.info(
            "swarm made",
            cluster=membership.cluster_id,
            node=membership.node_id,
            advertise_address=membership.advertise_address,
        )
        return membership.node_id

    async def back_up_swarm(self, passphrase: str) -> AsyncIterator[bytes]:
        """Return what this manager knows as a sealed file, in pieces."""
        part = self._part
        if part is None or part.manager is None:
            raise Unavailable(NOT_IN_SWARM)
        return await back_up(part.manager, part.membership, passphrase, self.clock.now_ns())

    async def restore_swarm(self, request: RestoreRequest, content: bytes) -> str:
        """Make a swarm of this manager alone out of a backup."""
        async with self._changing:
            self._require_no_swarm()
            await asyncio.to_thread(self._layout.erase_swarm)
            try:
                membership = await restore(request, content, self._layout, self.clock, self.ids)
                check_can_listen(*split_address(membership.listen_address))
            except BaseException:
                await asyncio.to_thread(self._layout.erase_swarm)
                raise
            self._layout.write_membership(membership)
            await self._lead_alone(self._part_of(membership))
            return membership.node_id

    async def join_swarm(self, request: JoinRequest) -> None:
        """Join a swarm by a token; after 20 s it goes on in the background."""
        async with self._changing:
            self._require_no_swarm()
            plan = JoinPlan(request)
            self._join_error = ""
            await asyncio.to_thread(self._layout.erase_swarm)
            self._joining = asyncio.create_task(self._join(plan), name="join")
        joining = self._joining
        done, _ = await asyncio.wait({joining}, timeout=JOIN_TIMEOUT_SECONDS)
        if not done:
            raise Unavailable(JOIN_GOES_ON)
        if joining.cancelled():
            raise Unavailable("the join was given up: the node left or the daemon stops")
        joining.result()

    async def _join(self, plan: JoinPlan) -> None:
        part: Participation | None = None
        try:
            membership = await enter(plan, self._layout, self.clock)
            self._layout.write_membership(membership)
            part = self._part_of(membership)
            await part.start()
            self._part = part
            part.start_agent()
            if part.manager is not None:
                await part.join_group()
                part.error = ""
            else:
                await part.wait_for_session()
        except BaseException as error:
            if self._part is None:
                if part is not None:
                    await part.stop()
                await asyncio.to_thread(self._layout.erase_swarm)
            self._join_error = error.message if isinstance(error, ShoalError) else ""
            raise
        finally:
            self._joining = None

    async def unlock_swarm(self, key: str) -> None:
        """Unlock a locked manager."""
        async with self._changing:
            if self._locked is None:
                if self._part is None:
                    raise Unavailable(NOT_IN_SWARM)
                raise Conflict("swarm is not locked")
            parse_unlock_key(key)
            await self._enter(self._part_of(self._locked, key))
            self._locked = None
            _log.info("the manager is unlocked")

    async def leave_swarm(self, force: bool) -> None:
        """Leave the swarm: its tasks are stopped, all it kept of the swarm is erased."""
        async with self._changing:
            if self._part is None and self._joining is None and self._locked is None:
                raise Unavailable(NOT_IN_SWARM)
            if self._locked is not None and not force:
                raise Unavailable(LOCKED)
            manager = self._part.manager if self._part is not None else None
            if manager is not None and not force:
                raise Unavailable(refuse_to_leave(manager))
            await cancel_and_wait(self._joining)
            await self.containers.leave_swarm()
            part, self._part = self._part, None
            if part is not None:
                await part.say_goodbye(for_good=True)
                await part.stop()
            await self._remove_task_containers()
            # plain containers run on, and keep their way out and their ports
            plain = {container.id for container in self.engine.list() if container.config.plain is not None}
            await self._network.forget_swarm(plain)
            await self.local_networks.forget_swarm()
            await asyncio.to_thread(self._layout.erase_swarm)
            self._locked = None
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

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Let the leading manager answer a request."""
        if self._part is None or self._part.manager is None:
            raise Unavailable(NOT_IN_SWARM)
        return await forward(self._part.dialer, self._part.manager, request)

    async def answer_of_leader(self, request: web.Request) -> tuple[int, bytes]:
        """Return status and body of the leading manager's answer to a request."""
        if self._part is None or self._part.manager is None:
            raise Unavailable(NOT_IN_SWARM)
        answer = await ask_leader(self._part.dialer, self._part.manager, request)
        try:
            return answer.status, await answer.read()
        except (ClientError, TimeoutError) as error:
            raise Unavailable(OUTCOME_UNKNOWN) from error
        finally:
            answer.release()

    async def task_logs(self, task: Task, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield the output of a task of any node; nothing if its container was removed."""
        for container in self.engine.list():
            if container.config.labels.get(TASK_ID_LABEL) == task.id:
                async for line in self.engine.logs(container.id, options):
                    yield line
                return
        manager = self.manager()
        if manager is None or task.node_id == self.node_id:
            return
        try:
            async with manager.remote_containers.container(task.node_id, task.id) as remote:
                async for line in remote.logs(options):
                    yield line
        except NotFound:
            return

    async def inspect_remote(self, reference: str, registry_auth: str) -> RemoteManifest:
        """Ask a registry about an image."""
        return await self.engine.images.inspect_remote(reference, decode_credentials(registry_auth))


def refuse_to_leave(manager: Manager) -> str:
    """Return why a manager should not leave, in Docker's words."""
    managers = [node for node in manager.store.view.find(Node) if node.manager_status is not None]
    text = "You are attempting to leave the swarm on a node that is participating as a manager. "
    if len(managers) <= 1:
        text += (
            "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
        )
        return text
    if not manager.raft.has_quorum():
        return text + RESTORE_ONLY
    reachable = sum(manager.reachability(node.id) == "reachable" for node in managers)
    if reachable - 1 < len(managers) // 2 + 1:
        return text + (
            f"Removing this node leaves {reachable - 1} managers out of {len(managers)}. "
            f"Without a Raft quorum your swarm will be inaccessible. {RESTORE_ONLY}"
        )
    return text + "Demote the node first (docker node demote), or use `--force` to suppress this message."
