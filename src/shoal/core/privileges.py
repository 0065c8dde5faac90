"""What a container is given of its host beyond the ordinary: labels of services, and what the swarm allows. Pure.

Docker's services have none of these. `shoal.shm-size` harms nobody; the others are refused until the swarm allows them.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.core.extensions import DEVICES, PRIVILEGED, SHM_SIZE
from shoal.errors import Forbidden, InvalidArgument
from shoal.language.values import parse_bytes
from shoal.model.base import Struct
from shoal.model.container import Device

# a label of the swarm's own spec: what its services may have
ALLOW = "shoal.allow"
ALLOWABLE = ("devices", "privileged")
_PERMISSIONS = frozenset("rwm")


class Privileges(Struct):
    """What a service's containers have of their host; `shm_bytes` 0 is the default."""

    privileged: bool = False
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
    return Privileges(privileged=privileged == "true", devices=devices, shm_bytes=shm_bytes)


def parse_allowed(labels: Mapping[str, str]) -> frozenset[str]:
    """Return what a swarm's labels allow its services. Raises InvalidArgument: a word that is none."""
    allowed = frozenset(filter(None, (word.strip() for word in labels.get(ALLOW, "").split(","))))
    for word in sorted(allowed - set(ALLOWABLE)):
        raise InvalidArgument(f'swarm label {ALLOW}: "{word}" is none of {", ".join(ALLOWABLE)}')
    return allowed


def check_allowed(privileges: Privileges, allowed: frozenset[str]) -> None:
    """Refuse what the swarm does not allow. Raises Forbidden, which says how to allow it."""
    for word, label, is_asked in (
        ("privileged", PRIVILEGED, privileges.privileged),
        ("devices", DEVICES, bool(privileges.devices)),
    ):
        if is_asked and word not in allowed:
            raise Forbidden(
                f"service label {label}: this swarm does not allow it, it gives a container power over its node: "
                f"shoal swarm update --allow {','.join(sorted({word, *allowed}))}"
            )
