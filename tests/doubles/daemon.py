"""A daemon around a real store, for tests of the API: one node, consensus in memory, containers in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from shoal.agent.container_network import ContainerNetwork
from shoal.agent.containers import PlainContainers
from shoal.api.context import HostFacts
from shoal.ca.root import create_root
from shoal.core.local_networks import make_local_network
from shoal.core.validate.cluster import prepare_cluster
from shoal.core.validate.network import prepare_local_network
from shoal.errors import Conflict, NotBuilt, NotFound, Unavailable
from shoal.lib.clock import Clock, ManualClock, SystemClock
from shoal.lib.ids import Ids
from shoal.manager.control import Control
from shoal.manager.remote_containers import RemoteContainers
from shoal.manager.root_change import Signer
from shoal.model.actions import Create
from shoal.model.base import replace
from shoal.model.container import LogLine, LogOptions, RemoteManifest
from shoal.model.diagnosis import Finding
from shoal.model.metrics import ConsensusStatus
from shoal.model.netstate import Sandbox, SandboxRequest
from shoal.model.node_port import AttachAnswer, AttachCall
from shoal.model.objects import (
    Cluster,
    JoinTokens,
    ManagerStatus,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    Plugin,
    RootCA,
    Task,
)
from shoal.model.requests import JoinRequest
from shoal.model.specs import (
    EncryptionConfig,
    InitRequest,
    NetworkSpec,
    NodeSpec,
    Platform,
    Resources,
)
from shoal.model.states import LocalNodeState, NodeState
from shoal.rpc.relay import ManagerEnd
from shoal.store.store import Store
from tests.doubles.consensus import make_store
from tests.doubles.engine import MemoryEngine

ALREADY = 'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
STAY = (
    "You are attempting to leave the swarm on a node that is participating as a manager. "
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
    "Use `--force` to suppress this message."
)
ROOT = create_root(1_700_000_000_000_000_000)


def describe(hostname: str = "h1") -> NodeDescription:
    return NodeDescription(
        hostname=hostname,
        platform=Platform(architecture="x86_64", os="linux"),
        resources=Resources(nano_cpus=2_000_000_000, memory_bytes=8 << 30),
        engine_version="28.2.2",
        plugins=(Plugin(type="Log", name="json-file"), Plugin(type="Network", name="overlay")),
        trust_root=ROOT.certificate,
        certificate_issuer_subject=b"subject",
        certificate_issuer_public_key=b"public key",
    )


class MemoryNetwork:
    def __init__(self) -> None:
        self.requests: dict[str, SandboxRequest] = {}

    async def attach(self, request: SandboxRequest) -> Sandbox:
        self.requests[request.task_id] = request
        return Sandbox(task_id=request.task_id, path="/netns", addresses=("172.19.0.2/32",))

    async def detach(self, task_id: str) -> None:
        self.requests.pop(task_id, None)

    def sandboxes(self) -> tuple[str, ...]:
        return tuple(self.requests)

    def host_address(self) -> str:
        return "172.31.255.1"

    def published_ports(self) -> frozenset[tuple[str, int]]:
        return frozenset()


class NoSwarmNetworks:
    async def attach(self, call: AttachCall) -> AttachAnswer:
        raise NotFound(f"network {call.network} not found")

    async def release(self, task_ids: Sequence[str]) -> tuple[str, ...]:
        return ()


class MemoryManager:
    def __init__(self, store: Store, control: Control, node_id: str) -> None:
        self.store = store
        self.control = control
        self.is_leader = True
        self.has_quorum = True
        self.leader_node_id = node_id
        self.remote_containers = RemoteContainers(self.open_stream)

    async def open_stream(self, node_id: str) -> ManagerEnd:
        raise Unavailable(f"node {node_id} has no session")

    def consensus_status(self) -> ConsensusStatus:
        return ConsensusStatus(is_leader=True, has_leader=True, term=3, applied_index=7, members=1, members_reachable=1)

    def reachability(self, node_id: str) -> str:
        return "reachable"


class MemoryLocalNetworks:
    """Networks of one node that are only records."""

    def __init__(self) -> None:
        self._known: dict[str, Network] = {}

    def list(self) -> tuple[Network, ...]:
        return tuple(self._known.values())

    def find(self, reference: str) -> Network | None:
        return next((each for each in self._known.values() if reference in (each.id, each.spec.name)), None)

    async def create(self, spec: NetworkSpec) -> str:
        network = make_local_network(Ids().new_hex(), prepare_local_network(spec), self.list(), (), 1)
        self._known[network.id] = network
        return network.id

    async def remove(self, network: Network) -> None:
        del self._known[network.id]


class MemoryDaemon:
    """Implements `ApiContext`. `task_lines` holds what tasks wrote, `remote` what registries have."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or ManualClock()
        self.ids = Ids()
        self.version = "28.2.2"
        self.node_id = ""
        self.engine = MemoryEngine()
        self.containers = PlainContainers(
            self.engine, ContainerNetwork(self.engine, MemoryNetwork(), NoSwarmNetworks())
        )
        self.local_networks = MemoryLocalNetworks()
        self.state = LocalNodeState.INACTIVE
        self.error = ""
        self.the_manager: MemoryManager | None = None
        self.task_lines: dict[str, tuple[LogLine, ...]] = {}
        self.remote: dict[str, RemoteManifest] = {}
        self.token_count = 0

    def local_state(self) -> LocalNodeState:
        return self.state

    def local_error(self) -> str:
        return self.error

    def manager(self) -> MemoryManager | None:
        return self.the_manager

    def describe_node(self) -> NodeDescription:
        return describe()

    async def examine(self) -> tuple[Finding, ...]:
        return (Finding(check="root", level="problem", text="not root", remedy="run as root"),)

    def host(self) -> HostFacts:
        managers = ((self.node_id, "10.99.0.1:2377"),) if self.node_id else ()
        return HostFacts(
            daemon_id="44706c02-a085-46eb-bb10-ff3806f68d7f",
            hostname="h1",
            kernel_version="6.1",
            operating_system="Debian GNU/Linux",
            cpus=2,
            memory_bytes=8 << 30,
            data_root="/var/lib/shoal",
            runc_version="1.1.5",
            node_address="10.99.0.1" if self.node_id else "",
            remote_managers=managers,
        )

    def make_token(self, _root: RootCA) -> str:
        self.token_count += 1
        return f"SWMTKN-1-{'1' * 50}-{self.token_count:025d}"

    async def init_swarm(self, request: InitRequest) -> str:
        if self.node_id:
            raise Unavailable(ALREADY)
        store = make_store(self.clock)
        node_id = self.ids.new()
        spec = prepare_cluster(request.spec)
        cluster = Cluster(
            id=self.ids.new(),
            spec=replace(spec, encryption_config=EncryptionConfig(auto_lock_managers=request.auto_lock_managers)),
            root_ca=ROOT,
            join_tokens=JoinTokens(worker=self.make_token(ROOT), manager=self.make_token(ROOT)),
        )
        node = Node(
            id=node_id,
            spec=NodeSpec(role="manager", availability=request.availability or "active"),
            description=describe(),
            status=NodeStatus(state=NodeState.READY, address="10.99.0.1"),
            manager_status=ManagerStatus(raft_id=1, address="10.99.0.1:2377"),
            number=1,
        )
        ingress = Network(
            id=self.ids.new(),
            spec=NetworkSpec(name="ingress", driver="overlay", ingress=True),
            subnets=("10.0.0.0/24",),
            gateways=("10.0.0.1/24",),
            vni=4096,
        )
        await store.update(lambda _view: [Create(object=cluster), Create(object=node), Create(object=ingress)])
        control = Control(
            store,
            self.ids,
            self.clock,
            make_join_token=self.make_token,
            make_unlock_key=lambda: "SWMKEY-1-" + "k" * 43,
            signer=Signer(self.clock, None),
        )
        self.node_id = node_id
        self.state = LocalNodeState.ACTIVE
        self.the_manager = MemoryManager(store, control, node_id)
        return node_id

    async def join_swarm(self, request: JoinRequest) -> None:
        if self.node_id:
            raise Unavailable(ALREADY)
        raise NotBuilt("joining a swarm is not built yet")

    async def unlock_swarm(self, key: str) -> None:
        raise Conflict("swarm is not locked")

    async def leave_swarm(self, force: bool) -> None:
        if not self.node_id:
            raise Unavailable("This node is not part of a swarm")
        if not force:
            raise Unavailable(STAY)
        self.node_id, self.state, self.the_manager = "", LocalNodeState.INACTIVE, None

    async def task_logs(self, task: Task, options: LogOptions) -> AsyncIterator[LogLine]:
        for line in self.task_lines.get(task.id, ()):
            if getattr(options, line.stream):
                yield line

    async def inspect_remote(self, reference: str, registry_auth: str) -> RemoteManifest:
        if reference not in self.remote:
            raise NotFound(f"manifest for {reference} not found")
        return self.remote[reference]


def real_time_daemon() -> MemoryDaemon:
    return MemoryDaemon(SystemClock())
