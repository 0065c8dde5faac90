"""The devices of the host that a container is given: looked up when it is started. Blocking."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoal.errors import InvalidArgument
from shoal.model.base import Struct
from shoal.model.container import ContainerConfig, Device

HOST_DEVICES = Path("/dev")
# what runc makes itself, or has a filesystem of its own in a container
_NOT_GIVEN = frozenset({"pts", "shm", "fd", "mqueue", "console", "ptmx", ".lxc", ".lxd-mounts", ".udev"})


class DeviceNode(Struct):
    """A device as a container sees it: `kind` is c or b."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    permissions: str = "rwm"


def find_devices(config: ContainerConfig) -> tuple[DeviceNode, ...]:
    """Return the devices of a container; a privileged one has all of the host's. Raises InvalidArgument."""
    found = {node.path: node for node in _all_devices(HOST_DEVICES)} if config.privileged else {}
    for device in config.devices:
        found |= {node.path: node for node in _asked(device)}
    return tuple(found.values())


def _asked(device: Device) -> Iterator[DeviceNode]:
    """Yield a device, or those in a directory."""
    source = Path(device.source)
    try:
        if source.is_dir():
            for path in sorted(source.iterdir()):
                node = _node(path, f"{device.target.rstrip('/')}/{path.name}", device.permissions)
                if node is not None:
                    yield node
            return
        node = _node(source, device.target, device.permissions)
    except OSError as error:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{device.source}": {error.strerror}'
        ) from None
    if node is None:
        raise InvalidArgument(
            f'error gathering device information while adding custom device "{device.source}": not a device node'
        )
    yield node


def _all_devices(directory: Path) -> Iterator[DeviceNode]:
    for path in sorted(directory.iterdir()):
        if path.name in _NOT_GIVEN:
            continue
        try:
            if path.is_dir() and not path.is_symlink():
                yield from _all_devices(path)
            elif (node := _node(path, str(path), "rwm")) is not None:
                yield node
        except OSError:
            continue  # it has gone meanwhile


def _node(path: Path, target: str, permissions: str) -> DeviceNode | None:
    status = path.stat()
    if not (stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        return None
    return DeviceNode(
        path=target,
        kind="c" if stat.S_ISCHR(status.st_mode) else "b",
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        permissions=permissions,
    )


def device_rules(nodes: tuple[DeviceNode, ...]) -> list[dict[str, Any]]:
    """Return the rules of the devices cgroup that let a container use devices."""
    return [
        {"allow": True, "type": node.kind, "major": node.major, "minor": node.minor, "access": node.permissions}
        for node in nodes
    ]


def device_entries(nodes: tuple[DeviceNode, ...]) -> list[dict[str, Any]]:
    """Return devices as the OCI spec lists them."""
    return [
        {
            "path": node.path,
            "type": node.kind,
            "major": node.major,
            "minor": node.minor,
            "fileMode": node.mode,
            "uid": node.uid,
            "gid": node.gid,
        }
        for node in nodes
    ]
