"""Containers that come and go leave nothing: no namespace, mount, cgroup, nft object, descriptor, thread or memory."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.daemon import RunningDaemon, running_daemon, wait_for
from tests.system.left import processes_with

pytestmark = pytest.mark.root

CLIENTS = 4
WARM_UP = 12
# of the allocator and of caches that fill up, not of each container
MOST_GROWTH_KILOBYTES = 6 << 10


def live_a_life(daemon: RunningDaemon, number: int) -> None:
    """One container as `docker run --rm` has it, in one of several shapes."""
    shapes = (
        {"PortBindings": {"80/tcp": [{}]}},
        {"Binds": ["named:/data"], "Tmpfs": {"/scratch": ""}},
        {"NetworkMode": "none", "Memory": 32 << 20},
        {"NetworkMode": "local"},
    )
    body = {
        "Image": "busybox", "Cmd": ["sh", "-c", "echo hi; exit 3"], "Volumes": {"/anonymous": {}},
        "HostConfig": shapes[number % len(shapes)],
    }  # fmt: skip
    status, made = daemon.request("POST", "/containers/create", body)
    assert status == 201, made
    path = f"/containers/{made['Id']}"
    assert daemon.request("POST", f"{path}/start")[0] == 204
    assert daemon.request("POST", f"{path}/wait")[1]["StatusCode"] == 3
    assert "hi" in daemon.request("GET", f"{path}/logs?stdout=1")[1]
    assert daemon.request("DELETE", f"{path}?v=1")[0] == 204


def run_containers(daemon: RunningDaemon, count: int) -> None:
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda number: live_a_life(daemon, number), range(count)))


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


def run_and_compare(count: int) -> None:
    with running_daemon() as daemon:
        daemon.import_busybox()
        daemon.docker("network", "create", "local")
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        run_containers(daemon, WARM_UP)
        (keeper,) = (int(line.split(":")[0]) for line in processes_with(str(daemon.root)) if "engine.keeper" in line)
        # what ends is cleaned up after behind its answer
        before = wait_for(lambda: twice_the_same(lambda: kept(daemon, keeper, daemon_id)), "it has come to rest")
        memory = {pid: memory_kilobytes(pid) for pid in (daemon.pid, keeper)}
        run_containers(daemon, count)
        wait_for(lambda: kept(daemon, keeper, daemon_id) == before or None, f"it is again as it was: {before}", 10)
        assert daemon.request("GET", "/containers/json?all=1")[1] == []
        for pid, kilobytes in memory.items():
            grown = memory_kilobytes(pid) - kilobytes
            assert grown < MOST_GROWTH_KILOBYTES, f"{grown} kB more in {pid} after {count} containers"
        assert "level=error" not in daemon.log()


def test_forty_containers_leave_nothing() -> None:
    run_and_compare(40)


@pytest.mark.long
def test_five_hundred_containers_leave_nothing() -> None:
    run_and_compare(500)
