"""What the engine is asked to run, and what it says of it: one shape for tasks and for plain containers."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

from shoal.model.base import Struct
from shoal.model.container_spec import HealthConfig, Mount, Ulimit
from shoal.model.netstate import HostPort, JoinedNetwork
from shoal.model.plain import PlainConfig

# as `network_namespace`: the host's own
HOST_NETWORK = ""
# who answers names inside a container's network namespace, as under Docker
RESOLVER_ADDRESS = "127.0.0.11"


class FileInContainer(Struct):
    """A small file given to a container (secret, config): absolute path, content, owner, permission bits."""

    path: str
    content: bytes
    uid: int = 0
    gid: int = 0
    mode: int = 0o444
    in_memory_only: bool = True


class Device(Struct):
    """A device of the host in a container; a directory stands for those in it. `permissions`: of r, w and m."""

    source: str
    target: str
    permissions: str = "rwm"


class MoreLimits(Struct):
    """Limits besides those of memory, processors and processes; 0 or empty is none.

    `memory_swap_bytes` are of memory and swap together (-1: no limit; 0: twice the memory). Times are microseconds.
    """

    memory_swap_bytes: int = 0
    memory_reservation_bytes: int = 0
    memory_swappiness: int | None = None
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


class ContainerConfig(Struct):
    """A container to create.

    `entrypoint` and `command` None mean: the image's. `network_namespace` is the path of a namespace that exists
    already; None gives the container an empty one of its own, HOST_NETWORK none. Sizes are bytes, `nano_cpus`
    billionths of a processor, durations in the unit of their name; 0 means no limit. `hosts` are lines of /etc/hosts
    (`ADDRESS NAME…`).
    """

    name: str
    image: str
    image_id: str = ""
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    labels: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    files: tuple[FileInContainer, ...] = ()
    tty: bool = False
    open_stdin: bool = False
    init: bool = False
    read_only: bool = False
    stop_signal: str = ""
    stop_timeout_seconds: float | None = None
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    seccomp_mode: str = ""
    seccomp_profile: str = ""
    no_new_privileges: bool = False
    # all capabilities the daemon holds and all devices, nothing masked, no seccomp
    privileged: bool = False
    # what of /proc and /sys tells of the node, or changes it, is open
    unmasked: bool = False
    devices: tuple[Device, ...] = ()
    # kinds of namespaces that it shares with the node, of ipc, pid and uts
    host_namespaces: tuple[str, ...] = ()
    # another container's; empty: one of its own
    pid_namespace: str = ""
    sysctls: dict[str, str] = {}
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    nano_cpus: int = 0
    memory_bytes: int = 0
    pids_limit: int = 0
    more_limits: MoreLimits = MoreLimits()
    # of /dev/shm
    shm_bytes: int = 0
    healthcheck: HealthConfig | None = None
    hosts: tuple[str, ...] = ()
    dns_nameservers: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    # who answers names in its namespace (and asks dns_nameservers for others); empty: the container asks them itself
    resolver_address: str = ""
    log_driver: str = "json-file"
    log_options: dict[str, str] = {}
    network_namespace: str | None = None
    # addresses of the container, for /etc/hosts and inspect
    addresses: tuple[str, ...] = ()
    networks: tuple[JoinedNetwork, ...] = ()
    # what the node forwards to it, for inspect; the engine opens none
    host_ports: tuple[HostPort, ...] = ()
    # of a container that belongs to no task
    plain: PlainConfig | None = None


class ExitStatus(Struct):
    """How a container ended. `code` is None when nobody saw it end (the keeper died, too): a failure."""

    code: int | None
    finished_at_ns: int
    oom_killed: bool = False


class HealthStatus(StrEnum):
    """What health checks say of a container."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthResult(Struct):
    """One health check; the exit code is -1 when it gave none (it took too long, it could not be run)."""

    started_at_ns: int
    ended_at_ns: int
    exit_code: int
    output: str = ""


class Health(Struct):
    """The health of a container that is checked: how many checks in a row have failed, and the last ones."""

    status: HealthStatus = HealthStatus.STARTING
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


class ContainerState(Struct):
    """State of a container: `status` is created, running, exited or dead; a running one may be `paused`.

    `restarting`: it has ended, and is about to be started again. `health` None: nothing checks it.
    """

    status: str
    paused: bool = False
    restarting: bool = False
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at_ns: int = 0
    finished_at_ns: int = 0
    health: Health | None = None


class Container(Struct):
    """A container of this node."""

    id: str
    config: ContainerConfig
    image_id: str
    created_at_ns: int
    state: ContainerState
    restart_count: int = 0
    # what was really run, image defaults filled in
    arguments: tuple[str, ...] = ()
    log_path: str = ""
    # where what a run needs lies: /etc/hosts and its like; written anew at each start
    run_directory: str = ""


class ContainerSize(Struct):
    """What a container has written, and what its whole root filesystem takes with that."""

    written_bytes: int = 0
    root_bytes: int = 0


class ChangeKind(IntEnum):
    """How a path differs from the image's, in Docker's numbers."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


class FileChange(Struct):
    """A path of a container that differs from its image's."""

    path: str
    kind: ChangeKind


class CommitRequest(Struct):
    """An image to make of a container; `settings` are over what the container was made with, by Docker's names.

    `changes` are instructions of a Dockerfile. `pauses`: the container stands still meanwhile.
    """

    reference: str = ""
    author: str = ""
    comment: str = ""
    pauses: bool = True
    settings: dict[str, Any] = {}
    changes: tuple[str, ...] = ()


class PathStat(Struct):
    """A path in a container: `mode` is the kernel's, `link_target` where a symbolic link leads inside the container."""

    name: str
    size_bytes: int = 0
    mode: int = 0
    modified_at_ns: int = 0
    link_target: str = ""


class WaitCondition(StrEnum):
    """What is waited for: the end of the run (ENDED: also of one that is to begin), the next end, the removal."""

    ENDED = "ended"
    NOT_RUNNING = "not-running"
    NEXT_EXIT = "next-exit"
    REMOVED = "removed"


class Amendment(Struct):
    """A change to what is known of a container; None leaves a part as it is. The name is not part of it."""

    config: ContainerConfig | None = None
    restart_count: int | None = None
    restarting: bool | None = None


class ImageRecord(Struct):
    """An image of this node. `id` is `sha256:…` of its config; digests are `name@sha256:…`; times in ns."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    created_at_ns: int = 0
    size_bytes: int = 0
    architecture: str = ""
    os: str = ""
    variant: str = ""
    author: str = ""
    comment: str = ""
    parent: str = ""
    layers: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: dict[str, str] = {}
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    healthcheck: HealthConfig | None = None
    tagged_at_ns: int = 0


class HistoryStep(Struct):
    """One step in the making of an image, and what its layer takes (0: it has none)."""

    created_at_ns: int = 0
    created_by: str = ""
    comment: str = ""
    size_bytes: int = 0


class LogOptions(Struct):
    """Which lines of a log: `tail` None is all; times in ns, 0 is no bound."""

    stdout: bool = True
    stderr: bool = True
    follow: bool = False
    since_ns: int = 0
    until_ns: int = 0
    tail: int | None = None


class LogLine(Struct):
    """A piece of output of at most 16 KiB; `data` ends in a newline unless `partial`. `stream` is stdout or stderr."""

    stream: str
    at_ns: int
    data: bytes
    partial: bool = False


class RemotePlatform(Struct):
    """One platform an image is there for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""


class RemoteManifest(Struct):
    """What a registry says of an image: its manifest (or list of manifests) and the platforms behind it."""

    digest: str
    media_type: str = ""
    size_bytes: int = 0
    platforms: tuple[RemotePlatform, ...] = ()
