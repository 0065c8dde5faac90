"""What a daemon has on the machine: for tests that it leaves nothing, nothing twice, and does not grow."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.system.daemon import RunningDaemon


def left_on_machine(daemon_id, root):
    """Return cgroups, mounts and processes that carry a daemon's id or the path of its roots."""
    # walked, not globbed: cgroups of others may go meanwhile
    cgroups = [
        f"{parent}/{name}"
        for parent, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith("shoal") and daemon_id in name
    ]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    return [*cgroups, *mounts, *processes_with(str(root))]


def processes_with(text):
    """Return the processes that have `text` on their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if text.encode() in words:
            found.append(f"{entry.parent.name}: {words.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def namespaces_of(pids: list[int]) -> int:
    """Count the namespaces that a process or a mount of the daemon keeps."""
    found = {path.readlink() for pid in pids for path in Path(f"/proc/{pid}/ns").iterdir()}
    return len(found)


def nft_objects(daemon: RunningDaemon) -> int:
    """Count the lines of the rules in all namespaces of the daemon; numbers of packets are no objects."""
    total = 0
    for place in [Path(f"/run/netns/{daemon.netns}"), *sorted((daemon.exec_root / "netns").iterdir())]:
        listed = subprocess.run(
            ["nsenter", f"--net={place}", "nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True
        )
        # elements of a set stand in one line
        total += len(re.split(r"[\n,]", listed.stdout))
    return total


def kept(daemon: RunningDaemon, keeper: int, daemon_id: str) -> dict[str, int]:
    """Everything there is of a daemon that could grow."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    cgroups = [parent for parent, _, _ in os.walk("/sys/fs/cgroup") if daemon_id in parent]
    return {
        "processes": len(processes_with(str(daemon.root))),
        "namespaces": namespaces_of([daemon.pid, keeper]),
        "namespace files": len(list((daemon.exec_root / "netns").iterdir())),
        "mounts": sum(str(daemon.root) in line for line in mounts),
        "cgroups": len(cgroups),
        "nft objects": nft_objects(daemon),
        "descriptors of the daemon": len(list(Path(f"/proc/{daemon.pid}/fd").iterdir())),
        "descriptors of the keeper": len(list(Path(f"/proc/{keeper}/fd").iterdir())),
        "threads of the keeper": len(list(Path(f"/proc/{keeper}/task").iterdir())),
        "files": sum(1 for _ in daemon.data_root.rglob("*")) + sum(1 for _ in daemon.exec_root.rglob("*")),
    }


def twice_the_same(look: Callable[[], dict[str, int]]) -> dict[str, int] | None:
    found = look()
    return found if look() == found else None


def memory_kilobytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no memory")
