"""What the API asks of the daemon it is part of. The daemon implements these; the API starts nothing itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from aiohttp import web

from shoal.agent.containers import PlainContainers
from shoal.engine.protocol import Engine
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.manager.control import Control
from shoal.manager.remote_containers import RemoteContainers
from shoal.model.base import Struct
from shoal.model.container import LogLine, LogOptions, RemoteManifest
from shoal.model.diagnosis import Finding
from shoal.model.metrics import ConsensusStatus
from shoal.model.objects import Network, NodeDescription, Task
from shoal.model.requests import JoinRequest, RestoreRequest
from shoal.model.specs import InitRequest, NetworkSpec
from shoal.model.states import LocalNodeState
from shoal.store.store import Store


class HostFacts(Struct):
    """What `docker info` and `docker version` tell of the machine and the daemon.

    `cgroup_version` is "1" or "2"; `remote_managers` are pairs (node id, address:port); `node_address` is the
    address this node is known by in the swarm, empty outside one.
    """

    daemon_id: str = ""
    hostname: str = ""
    kernel_version: str = ""
    operating_system: str = ""
    os_version: str = ""
    architecture: str = "x86_64"
    cpus: int = 1
    memory_bytes: int = 0
    cgroup_driver: str = "cgroupfs"
    cgroup_version: str = "1"
    data_root: str = ""
    labels: tuple[str, ...] = ()
    generic_resources: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ("127.0.0.0/8",)
    security_options: tuple[str, ...] = ("name=seccomp,profile=builtin",)
    storage_driver: str = "overlay2"
    storage_status: tuple[tuple[str, str], ...] = (("Backing Filesystem", "extfs"), ("Supports d_type", "true"))
    runc_version: str = ""
    open_files: int = 0
    event_listeners: int = 0
    debug: bool = False
    node_address: str = ""
    remote_managers: tuple[tuple[str, str], ...] = ()
    # the network by which containers go out, and its gateway
    way_out: tuple[str, str] = ("172.18.0.0/16", "169.254.1.1")
    warnings: tuple[str, ...] = ()


class ManagerView(Protocol):
    """The manager on this node, if there is one."""

    @property
    def store(self) -> Store:
        """What is read."""

    @property
    def control(self) -> Control:
        """What is written through."""

    @property
    def remote_containers(self) -> RemoteContainers:
        """The way to the containers of other nodes."""

    @property
    def is_leader(self) -> bool:
        """Whether this manager leads."""

    @property
    def has_quorum(self) -> bool:
        """Whether a leader with a quorum behind it is known."""

    @property
    def leader_node_id(self) -> str:
        """The node that leads, empty if none is known."""

    def reachability(self, node_id: str) -> str:
        """Return `reachable`, `unreachable` or `unknown` for a manager's node."""

    def consensus_status(self) -> ConsensusStatus:
        """Return how this manager stands in the Raft group."""


class LocalNetworks(Protocol):
    """The networks of this node alone."""

    def list(self) -> tuple[Network, ...]:
        """Return them by id."""

    def find(self, reference: str) -> Network | None:
        """Return one by id, name or beginning of its id."""

    async def create(self, spec: NetworkSpec) -> str:
        """Make one; returns its id. Raises NameConflict, InvalidArgument, Forbidden, NotFound, NotBuilt."""

    async def remove(self, network: Network) -> None:
        """Remove one. Raises Forbidden: a container that runs is on it."""

    async def prune(self, is_wanted: Callable[[Network], bool]) -> tuple[str, ...]:
        """Remove those that `is_wanted` picks and nothing is on; return their names."""


class ApiContext(Protocol):
    """The daemon, as the API sees it."""

    @property
    def clock(self) -> Clock:
        """The time."""

    @property
    def ids(self) -> Ids:
        """Fresh ids."""

    @property
    def version(self) -> str:
        """The version of Docker this API answers as."""

    @property
    def node_id(self) -> str:
        """This node's id, empty outside a swarm."""

    @property
    def engine(self) -> Engine:
        """This node's containers."""

    @property
    def containers(self) -> PlainContainers:
        """The life of this node's containers."""

    @property
    def local_networks(self) -> LocalNetworks:
        """The networks of this node alone."""

    def local_state(self) -> LocalNodeState:
        """Return how this daemon stands to a swarm."""

    def local_error(self) -> str:
        """Return why it is not well in the swarm, empty if it is."""

    def manager(self) -> ManagerView | None:
        """Return the manager on this node; None on a worker or outside a swarm."""

    def describe_node(self) -> NodeDescription:
        """Return what this node says of itself."""

    def host(self) -> HostFacts:
        """Return facts of the machine and the daemon, read now."""

    async def examine(self) -> tuple[Finding, ...]:
        """Look at this node and its ways to the others, for `shoal doctor`; takes seconds."""

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Let the leading manager answer a request. Raises Unavailable, NotLeader: this manager leads itself now."""

    async def answer_of_leader(self, request: web.Request) -> tuple[int, bytes]:
        """Return status and body of the leading manager's answer to a request. Raises as `forward`."""

    async def init_swarm(self, request: InitRequest) -> str:
        """Make a swarm with this node as its manager; returns the node's id. Raises Unavailable: already in one."""

    async def join_swarm(self, request: JoinRequest) -> None:
        """Join a swarm. Raises Unavailable, InvalidArgument, NotBuilt."""

    async def unlock_swarm(self, key: str) -> None:
        """Unlock a locked manager. Raises Conflict (`swarm is not locked`), Unauthenticated, NotBuilt."""

    async def back_up_swarm(self, passphrase: str) -> AsyncIterator[bytes]:
        """Return what this manager knows as a sealed file, in pieces. Raises Unavailable, InvalidArgument."""

    async def restore_swarm(self, request: RestoreRequest, content: bytes) -> str:
        """Make a swarm of one manager out of a backup; returns the node's id. Raises as `init_swarm`."""

    async def leave_swarm(self, force: bool) -> None:
        """Leave the swarm. Raises Unavailable with Docker's texts."""

    def task_logs(self, task: Task, options: LogOptions) -> AsyncIterator[LogLine]:
        """Yield the output of any node's task. Raises Unavailable: its node does not answer."""

    async def inspect_remote(self, reference: str, registry_auth: str) -> RemoteManifest:
        """Ask a registry about an image; at most a second. Raises NotFound, Unauthenticated, Forbidden, ShoalError."""


CONTEXT: web.AppKey[ApiContext] = web.AppKey("shoal_context")
