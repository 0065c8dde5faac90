"""The network of one node, as the agent uses it: asyncio outside, one worker thread inside.

All work on the kernel and all state belong to that thread, one call after another; a call that is cancelled is still
carried out whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from shoal.errors import Forbidden, InvalidArgument, Unavailable
from shoal.lib.supervise import cancel_and_wait, supervise
from shoal.model.base import replace
from shoal.model.diagnosis import PathFacts
from shoal.model.netstate import (
    Connection,
    DataPath,
    GatewayNetwork,
    IngressState,
    NetworkChange,
    OverlayUpdate,
    Sandbox,
    SandboxRequest,
)
from shoal.network import connections, rtnetlink
from shoal.network.balancer import Balancer
from shoal.network.diagnosis import Question, SecretQuestion
from shoal.network.mesh import Mesh
from shoal.network.mesh_state import desired_mesh, nodes_spoken_to
from shoal.network.naming import NameServer, NoNames
from shoal.network.overlay import OverlaySide
from shoal.network.plumbing import Plumbing, check_requirements
from shoal.network.proxy import ProxySide, proxied
from shoal.network.records import DataPathRecord, Records
from shoal.network.settings import NetworkSettings, names_of
from shoal.network.state import KernelState, desired
from shoal.network.wiring import Wiring

_log = structlog.get_logger(__name__)

Result = TypeVar("Result")

WATCH_SECONDS = 5.0


class NodeNetwork:
    """Namespaces for tasks, the routing mesh and host ports of the node the daemon runs on.

    "Host" is the network namespace that the thread calling `start_up` runs in. The bindings under `EXEC/netns` belong
    to the daemon's mount namespace: a daemon in a private one (as `ip netns exec` gives) takes them with it.
    """

    def __init__(
        self,
        exec_root: Path,
        daemon_id: str,
        settings: NetworkSettings,
        names: NameServer | None = None,
        key_file: Path | None = None,
    ) -> None:
        """Touch nothing yet.

        Args:
            exec_root: EXEC; `netns/` and `network/` under it are this class's.
            daemon_id: goes into every name in the kernel.
            settings: ranges and sizes.
            names: is told which names there are and which containers ask; called in the worker thread only.
            key_file: of this node's key in encrypted networks; None: one in the exec root.
        """
        self._settings = settings
        self._records = Records(exec_root / "network")
        self._plumbing = Plumbing(exec_root / "netns", names_of(daemon_id), settings, self._records)
        key_file = key_file or exec_root / "wireguard.key"
        self._overlays = OverlaySide(exec_root / "netns", self._plumbing, self._records, names or NoNames(), key_file)
        self._wiring = Wiring(exec_root / "netns", self._plumbing, self._records, self._overlays.sandboxes)
        self._balancer = Balancer(self._plumbing)
        self._mesh = Mesh(self._plumbing)
        self._proxy = ProxySide(exec_root)
        self._watching: asyncio.Task[None] | None = None
        self._ingress = IngressState()
        self._data_path = DataPath()
        self._sandboxes: tuple[str, ...] = ()
        self._has_overlays = False
        self._worker: ThreadPoolExecutor | None = None
        self._told = asyncio.Event()

    @property
    def ingress_version(self) -> int:
        """The version of the mesh that the kernel holds, 0 on a fresh node."""
        return self._ingress.version

    @property
    def version(self) -> int:
        """The version of the last change that kernel and names hold, 0 on a fresh node."""
        return self._overlays.version

    @property
    def wireguard_key(self) -> str:
        """The public key that others need to share encrypted networks with this node, empty: it can carry none."""
        return self._overlays.secret.public_key

    @property
    def has_overlays(self) -> bool:
        """Whether a task here is on an overlay network."""
        return self._has_overlays

    def sandboxes(self) -> tuple[str, ...]:
        """Return the ids of the tasks that are attached."""
        return self._sandboxes

    def published_ports(self) -> frozenset[tuple[str, int]]:
        """Return the ports (protocol, number) of the mesh, which every node answers on."""
        return frozenset((port.protocol, port.published_port) for port in self._ingress.ports)

    async def start_up(self) -> None:
        """Create or adopt bridges, ingress sandbox and rules, and take up the namespaces of tasks.

        May be called again after a failure, and on what a killed daemon left.

        Raises:
            Unavailable: no root, no nft, no free range, or a kernel that lacks a part; the text says the remedy.
        """
        check_requirements(self._settings)
        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
            try:
                await self._run(self._start)
            except BaseException:
                await self._stop(self._close)
                raise
            self._watching = asyncio.create_task(supervise("network-watch", self._watch), name="network-watch")

    async def close(self, remove: bool) -> None:
        """Stop. `remove`: take every trace away; otherwise the kernel keeps forwarding."""
        if self._worker is None:
            if not remove:
                return
            await self.start_up()
        await self._stop(self._remove if remove else self._close)

    async def forget_swarm(self, kept: Collection[str]) -> None:
        """Take away all that was the swarm's; these namespaces, which are on no network of it, stay as they are."""
        await self._run(lambda: self._forget_swarm(kept))

    async def attach(self, request: SandboxRequest) -> Sandbox:
        """Make a task's namespace with links, addresses, routes and host ports; one that exists is led to the request.

        The path is empty for a task on the host's network.

        Raises:
            Unavailable: not started, a network that no change has told of, no address left, or the kernel refuses.
            InvalidArgument: the task id cannot be a file name.
        """
        if not request.task_id or "/" in request.task_id or request.task_id.startswith("."):
            raise InvalidArgument(f'invalid task id "{request.task_id}": it names files')
        return await self._run(lambda: self._attach(request))

    async def detach(self, task_id: str) -> None:
        """Take a task's namespace and host ports away; does nothing for a task that is not attached."""
        await self._run(lambda: self._detach(task_id))

    async def connections(self, task_id: str) -> tuple[Connection, ...]:
        """Return the connections that others have to a task's container; none for one that is not attached."""
        return await self._run(lambda: self._connections(task_id))

    async def change(self, update: NetworkChange) -> None:
        """Lead kernel and names to a change; a version lower than the held one is ignored.

        What is held outlives the daemon. Names and balancing lead to a new endpoint after its address is reached, and
        away from one before. UDP flows to an endpoint that serves no more move on; all flows to one that is gone end.

        Raises:
            Unavailable: not started, or a part was refused: the same change may be given again.
        """
        await self._run(lambda: self._change(update))
        self._told.set()
        self._told = asyncio.Event()

    async def set_local_networks(self, updates: tuple[OverlayUpdate, ...]) -> None:
        """Lead kernel and names to these networks of the node alone (VXLAN id 0), all there are. Raises as `change`."""
        await self._run(lambda: self._overlays.set_local_networks(updates))

    async def routed_subnets(self) -> tuple[str, ...]:
        """Return the IPv4 subnets that the host leads to, those of the node's own network among them."""

        def look() -> tuple[str, ...]:
            plumbing = self._plumbing
            routed = rtnetlink.routed_networks(plumbing.host_links, frozenset())
            return (*map(str, routed), plumbing.link_network, plumbing.gateway_network)

        return await self._run(look)

    def way_out(self) -> tuple[str, str]:
        """Return the network by which containers go out, and its gateway."""
        return self._plumbing.gateway_network, self._plumbing.settings.sandbox_gateway

    def host_address(self) -> str:
        """Return the address by which containers reach this node itself."""
        return self._plumbing.ranges.host_end

    async def set_way_out(self, asked: GatewayNetwork) -> None:
        """Have containers go out by this network from now on.

        Raises:
            Forbidden: a container goes out by the one there is.
            InvalidArgument: a route of the host overlaps it.
        """
        await self._run(lambda: self._set_way_out(asked))

    async def has_link(self, name: str) -> bool:
        """Tell whether the host has a link of that name."""
        return await self._run(lambda: bool(rtnetlink.link_index(self._plumbing.host_links, name)))

    async def wait_for_network(self, network_id: str) -> None:
        """Wait until a change has told of an overlay network."""
        while not self._overlays.is_known(network_id):
            await self._told.wait()

    async def set_ingress(self, state: IngressState) -> None:
        """Make the kernel balance to these backends, port by port atomic; an older version is ignored.

        TCP flows to a backend that goes are left alone (it drains); UDP flows move on.
        """
        await self._run(lambda: self._set_ingress(state))

    async def set_node_number(self, number: int) -> None:
        """Take the number that the swarm gave this node (0: none): backends of this number are here."""
        await self._run(lambda: self._set_node_number(number))

    async def set_data_path(self, data_path: DataPath) -> None:
        """Join the mesh to these nodes' (this one among them), so that every node's ports lead to all tasks.

        Where that cannot be (the reason is logged), the node goes on serving its own tasks.
        """
        await self._run(lambda: self._set_data_path(data_path))

    async def ask_peers(self) -> PathFacts:
        """Return what the ways to all other nodes are like; takes up to 2 s."""

        def prepare() -> tuple[Question, SecretQuestion]:
            number, secret_nodes = self._settings.node_number, self._overlays.secret_nodes()
            plain = Question(self._plumbing, self._mesh, self._data_path, number)
            return plain, SecretQuestion(self._plumbing, self._overlays.secret, self._data_path, secret_nodes)

        plain, secret = await self._run(prepare)
        peers, secret_peers = await asyncio.gather(asyncio.to_thread(plain.answer), asyncio.to_thread(secret.answer))
        return PathFacts(
            port=self._data_path.port,
            peers=peers,
            secret_port=self._settings.wireguard_port,
            secret_refusal=secret.port_refusal,
            secret_peers=secret_peers,
        )

    # from here on: the worker thread

    def _set_way_out(self, asked: GatewayNetwork) -> None:
        if asked == self._plumbing.asked:
            return
        if any(record.address for record in self._wiring.tasks.values()):
            raise Forbidden(
                "docker_gwbridge has active endpoints: stop the containers of this node that have a way out "
                "(those on bridge, too), and leave the swarm"
            )
        self._plumbing.change_gateway(asked)
        self._balancer.load(self._desired())

    def _set_node_number(self, number: int) -> None:
        self._settings = replace(self._settings, node_number=number)
        self._overlays.set_node_number(number)
        self._set_data_path(self._data_path)

    def _set_data_path(self, data_path: DataPath) -> None:
        record = DataPathRecord(node_number=self._settings.node_number, data_path=data_path)
        self._records.write_data_path(record)
        self._data_path = data_path
        self._join()

    def _join(self) -> int:
        """Lead the kernel to what is known now: ways to tasks before the traffic, and traffic away before the ways."""
        self._begin_mesh()
        count = self._balance()
        self._mesh.finish()
        if not self._ingress.encrypted:
            self._overlays.shrink_secret()
        return count

    def _expect_mesh(self) -> None:
        number, ingress = self._settings.node_number, self._ingress
        others = {peer.node_number for peer in self._data_path.peers} - {number}
        if ingress.encrypted:
            self._overlays.expect_mesh(self._settings.mesh_vni, nodes_spoken_to(ingress, number, others))
        else:
            self._overlays.expect_mesh(0)

    def _begin_mesh(self) -> None:
        """Lead the mesh to what is known now; one that cannot be encrypted as it should be leads nowhere."""
        self._expect_mesh()
        wanted = desired_mesh(self._ingress, self._data_path, self._settings.node_number)
        if self._ingress.encrypted and wanted.link is not None:
            try:
                wanted = self._overlays.carry_mesh(wanted, self._data_path, self._plumbing.settings.task_mtu_bytes)
            except (OSError, Unavailable) as error:
                self._mesh.stay_alone(error)
                return
        self._mesh.begin(wanted)

    def _balance(self, without: str = "") -> int:
        state = self._desired(without)
        count = self._balancer.change(state)
        self._pass_on(state)
        return count

    def _pass_on(self, state: KernelState) -> None:
        if self._settings.answers_ipv6:
            self._proxy.lead_to(proxied(state, self._plumbing.ranges.sandbox_end))

    def _start(self) -> None:
        self._records.prepare()
        self._plumbing.start()
        self._wiring.adopt()
        known = self._records.read_data_path()
        self._data_path = known.data_path
        if not self._settings.node_number:
            self._settings = replace(self._settings, node_number=known.node_number)
        self._ingress = self._records.read_ingress()
        self._expect_mesh()
        self._overlays.start(self._wiring.networks(), self._settings.node_number)
        self._wiring.finish_changes()
        for record in self._wiring.tasks.values():
            self._connect(record.request)
        self._overlays.sweep(self._wiring.networks())
        self._begin_mesh()
        state = self._desired()
        self._balancer.load(state)
        self._mesh.finish()
        self._pass_on(state)
        self._publish()
        _log.info("the node's network is up", tasks=len(self._sandboxes), ingress_version=self._ingress.version)

    def _attach(self, request: SandboxRequest) -> Sandbox:
        before = self._wiring.tasks.get(request.task_id)
        try:
            self._overlays.prepare(request)
            sandbox = self._wiring.attach(request)
            if before is None or before.request != request or request.task_id not in self._overlays.clients:
                self._connect(request)
            # what the mesh balances to is not this node's to say: host ports are
            if request.host_ports or (before is not None and before.request.host_ports) or self._balancer.is_behind:
                self._balance()
        except OSError as error:
            raise Unavailable(f"the network of task {request.task_id} could not be made: {error}") from error
        finally:
            self._overlays.sweep(self._wiring.networks())
            self._publish()
        return replace(sandbox, networks=self._overlays.joined(request))

    def _connect(self, request: SandboxRequest) -> None:
        """Give a task that is linked what it needs on overlay networks."""
        if request.host_network:
            return
        is_client = request.task_id in self._overlays.clients
        if request.overlays or is_client:
            rules = None if is_client else self._wiring.open_rules(request.task_id)
            self._overlays.connect(request, self._wiring.path_of(request.task_id), rules)

    def _detach(self, task_id: str) -> None:
        record = self._wiring.tasks.get(task_id)
        if record is None:
            return
        if record.request.host_ports or self._balancer.is_behind:
            self._balance(without=task_id)
        self._overlays.disconnect(task_id)
        self._wiring.detach(task_id)
        self._overlays.sweep(self._wiring.networks())
        self._publish()

    def _connections(self, task_id: str) -> tuple[Connection, ...]:
        record = self._wiring.tasks.get(task_id)
        if record is None or record.request.host_network:
            return ()
        try:
            channel = self._wiring.open_socket(task_id, connections.SOCK_DIAG)
        except FileNotFoundError:
            return ()
        try:
            return connections.inbound(channel)
        except OSError as error:
            raise Unavailable(f"the connections of task {task_id} could not be read: {error}") from error
        finally:
            channel.close()

    def _change(self, update: NetworkChange) -> None:
        if update.complete:
            # all there is, from whoever leads now: after a restored backup, or in another swarm, versions begin lower
            self._overlays.version_falls(update.version)
            self._ingress = replace(self._ingress, version=min(self._ingress.version, update.version))
        if update.version >= self._overlays.version:
            if update.data_path is not None:
                self._set_data_path(update.data_path)
            if update.ingress is not None:
                self._set_ingress(update.ingress)
        self._overlays.change(update)

    def _set_ingress(self, state: IngressState) -> None:
        if state.version < self._ingress.version:
            _log.info("ignored an older mesh", version=state.version, current=self._ingress.version)
            return
        if state == self._ingress:
            return
        self._records.write_ingress(state)
        before, self._ingress = self._ingress, state
        try:
            count = self._join()
        except BaseException:
            # the same state, when it comes again, is to be tried again
            self._ingress = before
            raise
        _log.debug("mesh set", version=state.version, operations=count)

    def _desired(self, without: str = "") -> KernelState:
        tasks = [
            (record.request, record.address)
            for task_id, record in self._wiring.tasks.items()
            if task_id != without and record.address
        ]
        return desired(self._ingress, tasks, self._settings.node_number, self._mesh.reached)

    def _forget_swarm(self, kept: Collection[str]) -> None:
        for task_id in list(self._wiring.tasks):
            if task_id not in kept:
                self._overlays.disconnect(task_id)
                self._wiring.detach(task_id)
        self._change(NetworkChange(version=0, ingress=IngressState(), data_path=DataPath(), complete=True))
        self._set_node_number(0)
        self._overlays.sweep(self._wiring.networks())
        self._publish()

    def _publish(self) -> None:
        self._sandboxes = tuple(sorted(self._wiring.tasks))
        self._has_overlays = bool(self._wiring.networks())

    def _remove(self) -> None:
        try:
            for task_id in list(self._wiring.tasks):
                self._overlays.disconnect(task_id)
                self._wiring.detach(task_id)
            self._overlays.close(remove=True)
            self._overlays.secret.forget()
            self._proxy.stop()
            self._balancer.remove()
            self._mesh.delete()
            self._plumbing.remove()
            self._records.forget_all()
            self._ingress, self._data_path = IngressState(), DataPath()
            self._publish()
        finally:
            self._close()

    def _close(self) -> None:
        self._overlays.close(remove=False)
        self._plumbing.close()

    async def _run(self, work: Callable[[], Result]) -> Result:
        if self._worker is None:
            raise Unavailable("the node's network is not started")
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def _watch(self) -> None:
        """Start the proxy and the program that encrypts again if they have ended; nothing else can end by itself."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            await self._run(self._proxy.ensure)
            await self._run(self._overlays.secret.ensure)

    async def _stop(self, last: Callable[[], None]) -> None:
        worker = self._worker
        if worker is None:
            return
        watching, self._watching = self._watching, None
        await cancel_and_wait(watching)
        try:
            await self._run(last)
        finally:
            self._worker = None
            worker.shutdown(wait=False)
