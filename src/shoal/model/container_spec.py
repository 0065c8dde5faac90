"""What a task's container is made of: Docker's ContainerSpec and its parts (docker-swarm.md 3.5)."""

from __future__ import annotations

from typing import Any

from shoal.model.base import Spec


class BindOptions(Spec):
    """How a host path is bound."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class Driver(Spec):
    """A named driver and its options."""

    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(Spec):
    """How a volume is made and mounted."""

    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: Driver | None = None
    subpath: str = ""


class TmpfsOptions(Spec):
    """Size in bytes and mode bits of a tmpfs."""

    size_bytes: int = 0
    mode: int = 0
    options: tuple[tuple[str, ...], ...] = ()


class Mount(Spec):
    """One mount of a container; `type` is bind, volume, tmpfs, npipe or cluster."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: dict[str, Any] | None = None
    image_options: dict[str, Any] | None = None


class HealthConfig(Spec):
    """A health check; durations are nanoseconds, zero means the image's or Docker's default."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class CredentialSpec(Spec):
    """Windows credentials; refused by Linux nodes."""

    config: str = ""
    file: str = ""
    registry: str = ""


class SELinuxContext(Spec):
    """SELinux labels of the process."""

    disable: bool = False
    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class SeccompOpts(Spec):
    """Seccomp mode (default, unconfined, custom) and, for custom, the profile in base 64."""

    mode: str = ""
    profile: str = ""


class AppArmorOpts(Spec):
    """AppArmor mode (default, disabled)."""

    mode: str = ""


class Privileges(Spec):
    """Security options of the container."""

    credential_spec: CredentialSpec | None = None
    selinux_context: SELinuxContext | None = None
    seccomp: SeccompOpts | None = None
    app_armor: AppArmorOpts | None = None
    no_new_privileges: bool = False


class DNSConfig(Spec):
    """Resolver settings of the container."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class ReferenceFileTarget(Spec):
    """The file a secret or config becomes; `mode` holds permission bits."""

    name: str = ""
    uid: str = ""
    gid: str = ""
    mode: int = 0


class SecretReference(Spec):
    """A secret a container uses, as a file; `version` of its data, which managers set."""

    file: ReferenceFileTarget | None = None
    secret_id: str = ""
    secret_name: str = ""
    version: int = 0


class ConfigReference(Spec):
    """A config a container uses, as a file or at run time; `version` of its data, which managers set."""

    file: ReferenceFileTarget | None = None
    runtime: dict[str, Any] | None = None
    config_id: str = ""
    config_name: str = ""
    version: int = 0


class Ulimit(Spec):
    """One resource limit."""

    name: str = ""
    hard: int = 0
    soft: int = 0


class PullOptions(Spec):
    """Credentials for the pull; never returned by the API."""

    registry_auth: str = ""


class ContainerSpec(Spec):
    """A container of a service. With `command` set it replaces the entrypoint and `args` the command."""

    image: str = ""
    labels: dict[str, str] = {}
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    hostname: str = ""
    env: tuple[str, ...] = ()
    dir: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    privileges: Privileges | None = None
    init: bool | None = None
    stop_signal: str = ""
    tty: bool = False
    open_stdin: bool = False
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    stop_grace_period: int | None = None
    healthcheck: HealthConfig | None = None
    hosts: tuple[str, ...] = ()
    dns_config: DNSConfig | None = None
    secrets: tuple[SecretReference, ...] = ()
    configs: tuple[ConfigReference, ...] = ()
    isolation: str = ""
    sysctls: dict[str, str] = {}
    capability_add: tuple[str, ...] = ()
    capability_drop: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    oom_score_adj: int = 0
    pull_options: PullOptions | None = None
