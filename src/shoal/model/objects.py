"""What the store holds: cluster, nodes, services, their revisions, tasks, networks, secrets, configs.

Objects refer to each other by id. A task holds the key of its revision, never a copy of its spec: 100,000 tasks of
a few services then share a few specs. Times are nanoseconds since the epoch; `Meta.version` is the raft index of the
last write.
"""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.netstate import WIREGUARD_PORT
from shoal.model.specs import (
    ClusterSpec,
    ConfigSpec,
    GenericResource,
    NetworkSpec,
    NodeSpec,
    Platform,
    PortConfig,
    Resources,
    SecretSpec,
    ServiceSpec,
)
from shoal.model.states import NodeState, Promotion, TaskState, UpdateState


class Meta(Struct):
    """When an object was made and last written; set by the store when an entry is applied.

    `created_version` is the raft index of its creation: it orders objects by age where clocks of leaders may differ.
    """

    version: int = 0
    created_version: int = 0
    created_at_ns: int = 0
    updated_at_ns: int = 0


class Plugin(Struct):
    """A capability of an engine, such as ("Volume", "local")."""

    type: str
    name: str


class NodeDescription(Struct):
    """What a node says of itself when it opens a session."""

    hostname: str = ""
    platform: Platform = Platform()
    resources: Resources = Resources()
    engine_version: str = ""
    engine_labels: dict[str, str] = {}
    plugins: tuple[Plugin, ...] = ()
    trust_root: str = ""
    certificate_issuer_subject: bytes = b""
    certificate_issuer_public_key: bytes = b""
    # where other nodes send packets for tasks here; empty: to the address the node was seen at
    data_path_address: str = ""
    # the public half, base64; empty: this node cannot take part in encrypted networks
    wireguard_key: str = ""
    # UDP, where this node's end of encrypted networks listens
    wireguard_port: int = WIREGUARD_PORT


class NodeStatus(Struct):
    """How a node is seen by the dispatcher."""

    state: NodeState = NodeState.UNKNOWN
    message: str = ""
    address: str = ""


class ManagerStatus(Struct):
    """The raft member that runs on a node; who leads is not stored, it is asked of raft."""

    raft_id: int
    address: str


class Node(Struct, tag="node"):
    """A member of the swarm. `number` (1 to 65,535) names its links in the data plane."""

    id: str
    meta: Meta = Meta()
    spec: NodeSpec = NodeSpec()
    description: NodeDescription = NodeDescription()
    status: NodeStatus = NodeStatus()
    manager_status: ManagerStatus | None = None
    number: int = 0


class VirtualIP(Struct):
    """The address of a service on a network, in CIDR form."""

    network_id: str
    address: str


class Endpoint(Struct):
    """What the allocator gave a service; `mode` empty means: nothing allocated yet."""

    mode: str = ""
    ports: tuple[PortConfig, ...] = ()
    virtual_ips: tuple[VirtualIP, ...] = ()


class UpdateStatus(Struct):
    """Where a rolling update stands; while it awaits its promotion it is PAUSED, since `completed_at_ns`."""

    state: UpdateState
    started_at_ns: int = 0
    completed_at_ns: int = 0
    message: str = ""
    promotion: Promotion = Promotion.NONE


class JobStatus(Struct):
    """The run of a job: `iteration` counts the runs before it."""

    iteration: int = 0
    last_execution_ns: int = 0


class Service(Struct, tag="service"):
    """A service. `spec_version` keys its current revision, `previous_spec_version` the one before (0: none)."""

    id: str
    meta: Meta = Meta()
    spec: ServiceSpec = ServiceSpec()
    spec_version: int = 0
    previous_spec_version: int = 0
    endpoint: Endpoint = Endpoint()
    update_status: UpdateStatus | None = None
    job_status: JobStatus | None = None
    # somebody asked for its tasks to be spread evenly, and they are not yet
    rebalancing: bool = False
    # of one that runs at times: the last due time that had its turn, or when it was first seen; 0: not yet
    last_due_ns: int = 0


class Revision(Struct, tag="revision"):
    """One spec of a service, as it stood from `spec_version` on; immutable. Its id: `service_id.spec_version`."""

    id: str
    service_id: str
    spec_version: int
    spec: ServiceSpec
    meta: Meta = Meta()


def revision_id(service_id: str, spec_version: int) -> str:
    """Return the id of a revision: its service's id and the version."""
    return f"{service_id}.{spec_version}"


class ContainerStatus(Struct):
    """The container behind a task."""

    container_id: str = ""
    pid: int = 0
    exit_code: int = 0


class TaskStatus(Struct):
    """What was last observed of a task.

    `timestamp_ns` is the observer's clock and is shown; `applied_at_ns` is the leader's and is the only one that
    decisions use.
    """

    state: TaskState = TaskState.NEW
    timestamp_ns: int = 0
    applied_at_ns: int = 0
    message: str = ""
    err: str = ""
    container: ContainerStatus | None = None
    host_ports: tuple[PortConfig, ...] = ()


class Attachment(Struct):
    """Addresses (CIDR) of a task on a network.

    `driver` is overlay, or that of a node's own network (host, bridge, null, macvlan, ...); empty: the routing mesh.
    `internal`: the network leads nowhere else. `encrypted`: only a node with a key can carry it. `spec`: of a network
    that each node makes for itself; the node chooses the addresses.
    """

    network_id: str
    addresses: tuple[str, ...] = ()
    driver: str = ""
    internal: bool = False
    encrypted: bool = False
    spec: NetworkSpec | None = None


class AttachedContainer(Struct):
    """A plain container that a task stands for on a network: its id, its name, and what else it is called there."""

    container_id: str
    name: str
    aliases: tuple[str, ...] = ()


class Task(Struct, tag="task"):
    """One run of a slot of a service (`slot` 0 for global services), made from revision `spec_version`."""

    id: str
    service_id: str
    spec_version: int
    meta: Meta = Meta()
    slot: int = 0
    node_id: str = ""
    desired_state: TaskState = TaskState.RUNNING
    status: TaskStatus = TaskStatus()
    attachments: tuple[Attachment, ...] = ()
    # when the task was first seen running, by the leader's clock; 0: never. Set when the entry is applied.
    running_since_ns: int = 0
    job_iteration: int | None = None
    # what the scheduler gave it of its node's generic resources: names, or how many
    generic_resources: tuple[GenericResource, ...] = ()
    # of the attachment runtime: nothing is run for it
    container: AttachedContainer | None = None
    # it has no room beside the task it replaces: the node of that one is to have its image first, and has it
    pull_node_id: str = ""
    pulled: bool = False
    # the task whose place it takes when it runs, of one that was moved to another node
    replaces: str = ""
    # of an update that gives all traffic to its new tasks at once: it takes none until then
    withheld: bool = False
    # how many tasks before it failed in a row in its place, and since when none has come to run (0: it is the first)
    failures_before: int = 0
    trying_since_ns: int = 0

    @property
    def is_wanted(self) -> bool:
        """Whether it is to run: on and on, or (a job's) to its end."""
        return self.desired_state <= TaskState.COMPLETE


class JoinTokens(Struct):
    """The secrets that let a node in, per role."""

    worker: str
    manager: str


class RootCA(Struct):
    """The certificate authority of the swarm, PEM; without a key an external authority signs."""

    certificate: str
    key: str


class RootRotation(Struct):
    """The root that takes the old one's place when all nodes have certificates of it; `cross_signed` by the old one."""

    root: RootCA
    cross_signed: str


class Cluster(Struct, tag="cluster"):
    """The swarm itself: one object."""

    id: str
    meta: Meta = Meta()
    spec: ClusterSpec = ClusterSpec()
    root_ca: RootCA | None = None
    root_rotation: RootRotation | None = None
    join_tokens: JoinTokens | None = None
    unlock_key: str = ""
    default_address_pool: tuple[str, ...] = ("10.0.0.0/8",)
    subnet_size: int = 24
    data_path_port: int = 4789
    feature_level: int = 1
    # nodes whose key in encrypted networks is of an earlier generation make another one; and when that was last ordered
    network_key_generation: int = 0
    network_keys_ordered_at_ns: int = 0


class Network(Struct, tag="network"):
    """A network of the swarm; `vni` 0 means it needs none."""

    id: str
    meta: Meta = Meta()
    spec: NetworkSpec = NetworkSpec()
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    vni: int = 0


class PayloadVersion(Struct):
    """Data that a secret or config had before its data was updated."""

    version: int
    data: bytes


class Secret(Struct, tag="secret"):
    """A secret, data and all: it rests in the sealed log only.

    `data_version` counts updates of its data; `earlier` holds what revisions of services may still use.
    """

    id: str
    meta: Meta = Meta()
    spec: SecretSpec = SecretSpec()
    data_version: int = 0
    earlier: tuple[PayloadVersion, ...] = ()


class Config(Struct, tag="config"):
    """A config; versions as of a secret."""

    id: str
    meta: Meta = Meta()
    spec: ConfigSpec = ConfigSpec()
    data_version: int = 0
    earlier: tuple[PayloadVersion, ...] = ()


StoreObject = Cluster | Node | Service | Revision | Task | Network | Secret | Config
