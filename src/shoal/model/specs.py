"""What a user asks for: the specs of services, nodes, the cluster, networks, secrets and configs.

These structs *are* Docker's JSON shapes (docker-swarm.md 3.3 to 3.7). Durations are nanoseconds.
"""

from __future__ import annotations

from typing import Any

from shoal.model.base import Spec
from shoal.model.container_spec import ContainerSpec, Driver


class GenericResource(Spec):
    """A named or a counted resource of a kind: exactly one of the two is set."""

    named_resource_spec: dict[str, str] | None = None
    discrete_resource_spec: dict[str, Any] | None = None


class Limit(Spec):
    """The most a container may use; 0 is no limit."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    pids: int = 0


class Resources(Spec):
    """What a node has, or what a task reserves of it."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic_resources: tuple[GenericResource, ...] = ()


class ResourceRequirements(Spec):
    """Limits and reservations of a task."""

    limits: Limit | None = None
    reservations: Resources | None = None


class RestartPolicy(Spec):
    """When an ended task is replaced; None means Docker's default (any, 5 s, no bound)."""

    condition: str = ""
    delay: int | None = None
    max_attempts: int | None = None
    window: int | None = None


class SpreadOver(Spec):
    """Spread over the values of a label: `node.labels.zone`."""

    spread_descriptor: str = ""


class PlacementPreference(Spec):
    """A soft wish of placement."""

    spread: SpreadOver | None = None


class Platform(Spec):
    """A processor architecture and an operating system."""

    architecture: str = ""
    os: str = ""


class Placement(Spec):
    """Where tasks may and should run; `max_replicas` per node, 0 is no bound."""

    constraints: tuple[str, ...] = ()
    preferences: tuple[PlacementPreference, ...] = ()
    max_replicas: int = 0
    platforms: tuple[Platform, ...] = ()


class NetworkAttachmentConfig(Spec):
    """A network a service is on; `target` is stored as an id."""

    target: str = ""
    aliases: tuple[str, ...] = ()
    driver_opts: dict[str, str] = {}


class TaskSpec(Spec):
    """What every task of a service is made from."""

    plugin_spec: dict[str, Any] | None = None
    container_spec: ContainerSpec | None = None
    network_attachment_spec: dict[str, Any] | None = None
    resources: ResourceRequirements | None = None
    restart_policy: RestartPolicy | None = None
    placement: Placement | None = None
    networks: tuple[NetworkAttachmentConfig, ...] = ()
    log_driver: Driver | None = None
    force_update: int = 0
    runtime: str = ""


class ReplicatedService(Spec):
    """A number of replicas; None means 1."""

    replicas: int | None = None


class GlobalService(Spec):
    """One task on every node that fits."""


class ReplicatedJob(Spec):
    """A number of completions, so many at a time."""

    max_concurrent: int | None = None
    total_completions: int | None = None


class GlobalJob(Spec):
    """One completed task on every node that fits."""


class ServiceMode(Spec):
    """Exactly one of the four."""

    replicated: ReplicatedService | None = None
    global_: GlobalService | None = None
    replicated_job: ReplicatedJob | None = None
    global_job: GlobalJob | None = None


class UpdateConfig(Spec):
    """How an update or a rollback proceeds; `parallelism` 0 means all at once."""

    parallelism: int = 0
    delay: int = 0
    failure_action: str = ""
    monitor: int = 0
    max_failure_ratio: float = 0.0
    order: str = ""


class PortConfig(Spec):
    """A published port; `published_port` 0 asks for a dynamic one (30000 to 32767)."""

    name: str = ""
    protocol: str = ""
    target_port: int = 0
    published_port: int = 0
    publish_mode: str = ""


class EndpointSpec(Spec):
    """How a service is reached: `mode` is vip or dnsrr."""

    mode: str = ""
    ports: tuple[PortConfig, ...] = ()


class ServiceSpec(Spec):
    """A service as a user describes it."""

    name: str = ""
    labels: dict[str, str] = {}
    task_template: TaskSpec = TaskSpec()
    mode: ServiceMode = ServiceMode()
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    networks: tuple[NetworkAttachmentConfig, ...] = ()
    endpoint_spec: EndpointSpec | None = None


class NodeSpec(Spec):
    """A node as its operator describes it; `role` is the desired role."""

    name: str = ""
    labels: dict[str, str] = {}
    role: str = ""
    availability: str = ""


class OrchestrationConfig(Spec):
    """How many ended tasks a slot keeps; negative keeps all."""

    task_history_retention_limit: int | None = None


class RaftConfig(Spec):
    """Settings of the log and of elections."""

    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = 0
    heartbeat_tick: int = 0


class DispatcherConfig(Spec):
    """How often agents report, in nanoseconds."""

    heartbeat_period: int = 0


class ExternalCA(Spec):
    """A signing service outside the swarm."""

    protocol: str = ""
    url: str = ""
    options: dict[str, str] = {}
    ca_cert: str = ""


class CAConfig(Spec):
    """Certificates of nodes; the signing pair is write-only."""

    node_cert_expiry: int = 0
    external_cas: tuple[ExternalCA, ...] = ()
    signing_ca_cert: str = ""
    signing_ca_key: str = ""
    force_rotate: int = 0


class EncryptionConfig(Spec):
    """Whether managers need a key to start."""

    auto_lock_managers: bool = False


class TaskDefaults(Spec):
    """What tasks get when they do not say."""

    log_driver: Driver | None = None


class ClusterSpec(Spec):
    """The swarm as its operator describes it; `name` is always `default`."""

    name: str = ""
    labels: dict[str, str] = {}
    orchestration: OrchestrationConfig = OrchestrationConfig()
    raft: RaftConfig = RaftConfig()
    dispatcher: DispatcherConfig = DispatcherConfig()
    ca_config: CAConfig = CAConfig()
    task_defaults: TaskDefaults = TaskDefaults()
    encryption_config: EncryptionConfig = EncryptionConfig()


class IPAMPool(Spec):
    """A subnet of a network."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] = {}


class IPAMOptions(Spec):
    """Address management of a network."""

    driver: str = ""
    options: dict[str, str] = {}
    config: tuple[IPAMPool, ...] = ()


class NetworkConfigSource(Spec):
    """The network whose node-local configuration a network takes."""

    network: str = ""


class NetworkSpec(Spec):
    """A network as a user describes it; `enable_ipv4` None means yes."""

    name: str = ""
    labels: dict[str, str] = {}
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool = False
    ipam: IPAMOptions = IPAMOptions()
    options: dict[str, str] = {}
    config_only: bool = False
    config_from: NetworkConfigSource | None = None


class SecretSpec(Spec):
    """A secret as a user describes it; data never leaves again."""

    name: str = ""
    labels: dict[str, str] = {}
    data: bytes = b""
    driver: Driver | None = None
    templating: Driver | None = None


class ConfigSpec(Spec):
    """A config as a user describes it."""

    name: str = ""
    labels: dict[str, str] = {}
    data: bytes = b""
    templating: Driver | None = None


class InitRequest(Spec):
    """Body of `POST /swarm/init`."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_addr_pool: tuple[str, ...] = ()
    subnet_size: int = 0
    force_new_cluster: bool = False
    auto_lock_managers: bool = False
    availability: str = ""
    spec: ClusterSpec = ClusterSpec()
