"""Containers that come and go leave nothing: no namespace, mount, cgroup, nft object, descriptor, thread or memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.daemon import RunningDaemon, running_daemon, wait_for
from tests.system.left import kept, memory_kilobytes, processes_with, twice_the_same

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
