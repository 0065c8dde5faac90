"""What a container is given of its host beyond the ordinary: labels of services, and what the swarm allows. Pure.

Docker's services have none of these. `shoal.shm-size` harms nobody; the others are refused until the swarm allows them.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.core.extensions import CHOICES, DEFAULTS, DEVICES, IPC_MODE, PID_MODE, PRIVILEGED, SHM_SIZE
from shoal.errors import Forbidden, InvalidArgument
from shoal.language.values import parse_bytes
from shoal.model.base import Struct
from shoal.model.container import Device

# a label of the swarm's own spec: what its services may have
ALLOW = "shoal.allow"
ALLOWABLE = ("devices", "host-ipc", "host-pid", "privileged")
_PERMISSIONS = frozenset("rwm")


class Privileges(Struct):
    """What a service's containers have of their host; `shm_bytes` 0 is the default.

    `host_namespaces`: kinds of namespaces that they share with it, of `ipc` and `pid`.
    """

    privileged: bool = False
    host_namespaces: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    shm_bytes: int = 0


def parse_device(text: str) -> Device:
    """Read `/dev/fuse`, `/dev/fuse:/dev/inside` or `/dev/fuse:/dev/inside:rwm`. Raises ValueError."""
    source, _, rest = text.partition(":")
    target, colon, permissions = rest.partition(":")
    if rest and not colon and not rest.startswith("/"):
        target, permissions = "", rest
    target, permissions = target or source, permissions or "rwm"
    if not source.startswith("/") or not target.startswith("/"):
        raise ValueError(f'"{text}": write /dev/NAME, /dev/NAME:/dev/INSIDE or /dev/NAME:/dev/INSIDE:rwm')
    if not set(permissions) <= _PERMISSIONS:
        raise ValueError(f'"{text}": invalid mode for device: {permissions}; use r, w and m')
    return Device(source=source, target=target, permissions=permissions)


def parse_privileges(labels: Mapping[str, str]) -> Privileges:
    """Return what a service's labels ask for. Raises InvalidArgument, which names the label."""
    privileged = labels.get(PRIVILEGED, "false").lower()
    if privileged not in {"true", "false"}:
        raise InvalidArgument(f'service label {PRIVILEGED}: "{labels[PRIVILEGED]}" is neither true nor false')
    words = [word.strip() for word in labels.get(DEVICES, "").split(",")]
    try:
        devices = tuple(parse_device(word) for word in words if word)
    except ValueError as error:
        raise InvalidArgument(f"service label {DEVICES}: {error}") from None
    try:
        shm_bytes = parse_bytes(labels[SHM_SIZE]) if SHM_SIZE in labels else 0
    except ValueError as error:
        raise InvalidArgument(f"service label {SHM_SIZE}: {error}") from None
    shared = tuple(kind for kind, label in (("ipc", IPC_MODE), ("pid", PID_MODE)) if _is_host(labels, label))
    if shm_bytes and "ipc" in shared:
        raise InvalidArgument(f"service label {SHM_SIZE}: /dev/shm is the node's with {IPC_MODE}=host; remove one")
    return Privileges(privileged=privileged == "true", host_namespaces=shared, devices=devices, shm_bytes=shm_bytes)


def _is_host(labels: Mapping[str, str], label: str) -> bool:
    value = labels.get(label, DEFAULTS[label])
    if value not in CHOICES[label]:
        raise InvalidArgument(f'service label {label}: "{value}" is none of {", ".join(CHOICES[label])}')
    return value == "host"


def parse_allowed(labels: Mapping[str, str]) -> frozenset[str]:
    """Return what a swarm's labels allow its services. Raises InvalidArgument: a word that is none."""
    allowed = allowed_words(labels)
    for word in sorted(allowed - set(ALLOWABLE)):
        raise InvalidArgument(f'swarm label {ALLOW}: "{word}" is none of {", ".join(ALLOWABLE)}')
    return allowed


def allowed_words(labels: Mapping[str, str]) -> frozenset[str]:
    """Return the words of a swarm's label, also those that this version does not know."""
    return frozenset(filter(None, (word.strip() for word in labels.get(ALLOW, "").split(","))))


def powers_of(privileges: Privileges) -> tuple[tuple[str, str], ...]:
    """Return what gives a container power over its node: words of the swarm's label, each with the service's label."""
    asked = (
        ("privileged", PRIVILEGED, privileges.privileged),
        ("devices", DEVICES, bool(privileges.devices)),
        ("host-pid", PID_MODE, "pid" in privileges.host_namespaces),
        ("host-ipc", IPC_MODE, "ipc" in privileges.host_namespaces),
    )
    return tuple((word, label) for word, label, is_asked in asked if is_asked)


def check_allowed(privileges: Privileges, allowed: frozenset[str]) -> None:
    """Refuse what the swarm does not allow. Raises Forbidden, which says how to allow it."""
    for word, label in powers_of(privileges):
        if word not in allowed:
            raise Forbidden(
                f"service label {label}: this swarm does not allow it, it gives a container power over its node: "
                f"shoal swarm update --allow {','.join(sorted({word, *allowed}))}"
            )
