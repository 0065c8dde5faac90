"""What a container of a service may be asked to be: conversions and checks of a ContainerSpec.

`normalise_container` says what Docker's conversion says, `validate_container` what its manager says after it: a
spec with two faults is refused for the one Docker names first.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.core.reference import is_image_reference
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.base import replace
from shoal.model.container_spec import (
    ConfigReference,
    ContainerSpec,
    HealthConfig,
    Mount,
    Privileges,
    SecretReference,
)

MOUNT_TYPES = ("bind", "volume", "tmpfs", "npipe", "cluster")
PROPAGATIONS = ("", "rprivate", "private", "rshared", "shared", "rslave", "slave")
SECCOMP_MODES = ("", "default", "unconfined", "custom")
HEALTH_KINDS = ("", "NONE", "CMD", "CMD-SHELL")
APP_ARMOR_MODES = ("", "default", "disabled")
NANOSECONDS_PER_MILLISECOND = 1_000_000


def normalise_container(spec: ContainerSpec) -> ContainerSpec:
    """Return `spec` in its one written form: types in lower case, isolation named.

    Raises:
        InvalidArgument: a word that is none of the words allowed, or something for Windows.
    """
    if spec.isolation.lower() not in ("", "default"):
        raise InvalidArgument(f'unsupported isolation: "{spec.isolation}": Linux nodes know "default" only')
    for config in spec.configs:
        _check_config_target(config)
    if spec.privileges is not None:
        _check_privileges(spec.privileges)
    return replace(spec, isolation="default", mounts=tuple(normalise_mount(mount) for mount in spec.mounts))


def _check_config_target(config: ConfigReference) -> None:
    if config.file is None and config.runtime is None:
        raise InvalidArgument("invalid Config: either File or Runtime should be set")
    if config.file is not None and config.runtime is not None:
        raise InvalidArgument("invalid Config: cannot specify both File and Runtime")


def _check_privileges(privileges: Privileges) -> None:
    credential = privileges.credential_spec
    if credential is not None and (credential.config or credential.file or credential.registry):
        raise InvalidArgument("invalid CredentialSpec: it is for Windows containers, and this swarm runs Linux nodes")
    if privileges.seccomp is not None:
        seccomp = privileges.seccomp
        if seccomp.mode not in SECCOMP_MODES:
            raise InvalidArgument(f'invalid Seccomp mode: "{seccomp.mode}": use default, unconfined or custom')
        if seccomp.profile and seccomp.mode != "custom":
            raise InvalidArgument("invalid Seccomp options: a Profile needs Mode custom")
        if seccomp.mode == "custom" and not seccomp.profile:
            raise InvalidArgument("invalid Seccomp options: Mode custom needs a Profile")
    if privileges.app_armor is not None and privileges.app_armor.mode not in APP_ARMOR_MODES:
        raise InvalidArgument(f'invalid AppArmor mode: "{privileges.app_armor.mode}": use default or disabled')


def normalise_mount(mount: Mount) -> Mount:
    """Return a mount with its type in lower case. Raises InvalidArgument: a type or propagation that is none."""
    kind = mount.type.lower()
    if kind not in MOUNT_TYPES:
        raise InvalidArgument(f'invalid MountType: "{mount.type}"')
    if kind in ("npipe", "cluster"):
        raise InvalidArgument(
            f'invalid mount "{mount.target}": type {kind} is not supported: use bind, volume or tmpfs'
        )
    if mount.bind_options is not None and mount.bind_options.propagation.lower() not in PROPAGATIONS:
        raise InvalidArgument(f'invalid MountBindPropagation: "{mount.bind_options.propagation}"')
    return replace(mount, type=kind)


def validate_references(spec: ContainerSpec) -> None:
    """Check that secrets and configs are well formed and no two become the same file. Raises InvalidArgument."""
    _check_targets("secret", spec.secrets)
    _check_targets("config", spec.configs)


def _check_targets(word: str, references: Sequence[SecretReference | ConfigReference]) -> None:
    owners: dict[str, str] = {}
    for reference in references:
        if isinstance(reference, SecretReference):
            identifier, name = reference.secret_id, reference.secret_name
        else:
            identifier, name = reference.config_id, reference.config_name
        if not identifier or not name:
            raise InvalidArgument(f"malformed {word} reference")
        if reference.file is None:
            if isinstance(reference, SecretReference):
                raise InvalidArgument(f"malformed {word} reference, no target provided")
            if reference.runtime is None:
                raise InvalidArgument(f"malformed {word} reference, no target provided")
            raise NotBuilt(f"config {name} as Runtime (a credential spec) is not supported: use it as a file (File)")
        target = reference.file.name
        if target in ("", "."):
            raise InvalidArgument(f"malformed file {word} reference, invalid target file name provided")
        if target in owners:
            raise InvalidArgument(
                f"{word} references '{owners[target]}' and '{name}' have a conflicting target: '{target}'"
            )
        owners[target] = name


def validate_container(spec: ContainerSpec) -> None:
    """Check image, mounts, health check and variables. Raises InvalidArgument."""
    if not spec.image:
        raise InvalidArgument("ContainerSpec: image reference must be provided")
    if not is_image_reference(spec.image):
        raise InvalidArgument(f'ContainerSpec: "{spec.image}" is not a valid repository/tag')
    targets: set[str] = set()
    for mount in spec.mounts:
        if mount.target in targets:
            raise InvalidArgument(f"ContainerSpec: duplicate mount point: {mount.target}")
        targets.add(mount.target)
    for mount in spec.mounts:
        check_mount(mount)
    if spec.healthcheck is not None:
        check_health(spec.healthcheck, "ContainerSpec: ", "HealthConfig")
    if spec.stop_grace_period is not None and spec.stop_grace_period < 0:
        raise InvalidArgument("ContainerSpec: StopGracePeriod cannot be negative")


def check_mount(mount: Mount) -> None:
    """Refuse at once what every node would refuse when it makes the container. Raises InvalidArgument."""
    if not mount.target.startswith("/") or mount.target == "/":
        raise InvalidArgument(f'invalid mount target, must be an absolute path below the root: "{mount.target}"')
    if mount.type == "bind" and not mount.source.startswith("/"):
        raise InvalidArgument(f"invalid bind mount source, must be an absolute path: {mount.source}")
    if mount.type == "volume" and mount.source.startswith("/"):
        raise InvalidArgument(f"invalid volume mount source, must not be an absolute path: {mount.source}")
    if mount.type == "tmpfs" and mount.source:
        raise InvalidArgument("invalid tmpfs source, source must be empty")


def check_health(health: HealthConfig, prefix: str, field: str) -> None:
    """Refuse what no health check can be. Raises InvalidArgument, its text after `prefix`, with the field's name."""
    durations = (
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    )
    for name, duration in durations:
        if duration != 0 and duration < NANOSECONDS_PER_MILLISECOND:
            raise InvalidArgument(f"{prefix}{name} in {field} cannot be less than 1ms")
    if health.test and health.test[0] not in HEALTH_KINDS:
        words = ", ".join(kind for kind in HEALTH_KINDS if kind)
        raise InvalidArgument(f"{prefix}Test in {field} begins with {health.test[0]!r}: use one of {words}")
    if health.retries < 0:
        raise InvalidArgument(f"{prefix}Retries in {field} cannot be negative")
