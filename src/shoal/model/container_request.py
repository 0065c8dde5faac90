"""What a client asks with `POST /containers/create` and `/networks/{id}/connect`: Docker's JSON shapes, unjudged.

What is allowed, and what it means, is `core/validate/plain_container.py`'s to say. Sizes are bytes.
"""

from __future__ import annotations

from typing import Any

from shoal.model.base import Spec
from shoal.model.container_spec import HealthConfig, Mount, Ulimit


class PortBinding(Spec):
    """Where on the host a port is published; an empty port is any free one."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicyRequest(Spec):
    """Whether a container that has ended is started again."""

    name: str = ""
    maximum_retry_count: int = 0


class LogConfig(Spec):
    """A log driver and its options."""

    type: str = ""
    config: dict[str, str] = {}


class EndpointIPAM(Spec):
    """Addresses a container asks for on a network."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()


class EndpointSettings(Spec):
    """How a container is to be on a network."""

    ipam_config: EndpointIPAM | None = None
    links: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mac_address: str = ""
    driver_opts: dict[str, str] = {}
    gw_priority: int = 0


class NetworkingConfig(Spec):
    """The networks of a container, by name or id."""

    endpoints_config: dict[str, EndpointSettings] = {}


class DeviceRequest(Spec):
    """A device of the host that a container is to have."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class HostConfig(Spec):
    """What a container is to have of the host. `Any`: refused unless it is empty."""

    binds: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    tmpfs: dict[str, str] = {}
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...]] = {}
    publish_all_ports: bool = False
    auto_remove: bool = False
    restart_policy: RestartPolicyRequest = RestartPolicyRequest()
    log_config: LogConfig = LogConfig()
    memory: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    pids_limit: int | None = None
    shm_size: int = 0
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    readonly_rootfs: bool = False
    init: bool | None = None
    sysctls: dict[str, str] = {}
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    security_opt: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    container_id_file: str = ""
    isolation: str = ""
    runtime: str = ""
    userns_mode: str = ""
    ipc_mode: str = ""
    cgroupns_mode: str = ""
    masked_paths: Any = None
    readonly_paths: Any = None
    privileged: bool = False
    pid_mode: str = ""
    uts_mode: str = ""
    cgroup: Any = None
    cgroup_parent: Any = None
    volume_driver: str = ""
    volumes_from: tuple[str, ...] = ()
    links: Any = None
    devices: tuple[DeviceRequest, ...] = ()
    device_cgroup_rules: Any = None
    device_requests: Any = None
    storage_opt: Any = None
    annotations: Any = None
    oom_kill_disable: Any = None
    memory_reservation: int = 0
    kernel_memory: Any = None
    kernel_memory_tcp: Any = None
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: Any = None
    cpu_realtime_runtime: Any = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cpu_count: Any = None
    cpu_percent: Any = None
    io_maximum_iops: Any = None
    io_maximum_bandwidth: Any = None
    blkio_weight: Any = None
    blkio_weight_device: Any = None
    blkio_device_read_bps: Any = None
    blkio_device_write_bps: Any = None
    blkio_device_read_iops: Any = None
    blkio_device_write_iops: Any = None


class ContainerRequest(Spec):
    """A plain container; `cmd` and `entrypoint` are a string or a list of them, None: the image's."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, Any] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: tuple[str, ...] = ()
    cmd: Any = None
    entrypoint: Any = None
    healthcheck: HealthConfig | None = None
    image: str = ""
    volumes: dict[str, Any] = {}
    working_dir: str = ""
    network_disabled: bool = False
    mac_address: str = ""
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    host_config: HostConfig = HostConfig()
    networking_config: NetworkingConfig = NetworkingConfig()


class LoginRequest(Spec):
    """Credentials that a registry is to be asked about."""

    username: str = ""
    password: str = ""
    server_address: str = ""


class ConnectRequest(Spec):
    """A container that is to be on a network."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class DisconnectRequest(Spec):
    """A container that is to leave a network."""

    container: str = ""
    force: bool = False
