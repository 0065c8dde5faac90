"""Freezing the processes of a container: its cgroup's freezer, of version 1 or 2. Blocking."""

from __future__ import annotations

import time
from pathlib import Path

from shoal.engine.host import Host
from shoal.errors import ShoalError

FREEZE_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.005


def _file(host: Host, cgroup: str) -> Path:
    if host.cgroup_v2:
        return Path(f"{host.cgroup_mounts[0]}{cgroup}/cgroup.freeze")
    mount = next((mount for mount in host.cgroup_mounts if mount.endswith("/freezer")), "")
    if not mount:
        raise ShoalError("cannot pause: this node mounts no freezer cgroup")
    return Path(f"{mount}{cgroup}/freezer.state")


def freeze(host: Host, cgroup: str, frozen: bool) -> None:
    """Freeze or thaw, and wait until it is so. Raises ShoalError if the kernel refuses or takes too long."""
    file = _file(host, cgroup)
    words = ("1", "0") if host.cgroup_v2 else ("FROZEN", "THAWED")
    deadline = time.monotonic() + FREEZE_SECONDS
    try:
        file.write_text(words[0] if frozen else words[1])
        while is_frozen(host, cgroup) != frozen:
            if time.monotonic() > deadline:
                file.write_text(words[1])
                raise ShoalError(f"cannot pause: a process does not freeze within {FREEZE_SECONDS:g} seconds")
            time.sleep(_LOOK_AGAIN_SECONDS)
            if not host.cgroup_v2:
                # version 1 gives up when a process is just being made: it is asked again
                file.write_text(words[0] if frozen else words[1])
    except OSError as error:
        raise ShoalError(f"cannot {'pause' if frozen else 'unpause'}: {error}") from None


def is_frozen(host: Host, cgroup: str) -> bool:
    """Whether all processes of a container are frozen."""
    try:
        file = _file(host, cgroup)
        if host.cgroup_v2:
            return "frozen 1" in file.with_name("cgroup.events").read_text()
        return file.read_text().strip() == "FROZEN"
    except (OSError, ShoalError):
        return False
