"""What a dead manager or worker costs: seconds until writes go on, until replacements run, until a node is back.

Run as root: python bench/failover.py [--kills 20]; with DOCKER_PEER set to the path of the docker-peer tool a real
Docker Swarm is measured in the same run, with fewer kills. "daemon" is kill -9 of shoald, whose sockets the kernel
closes at once; "power" cuts the host off first, so that nobody hears a farewell.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from engines import Connection

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

MANAGERS, WORKERS, REPLICAS = 3, 2, 6
PEER_KILLS = 3
PATIENCE_SECONDS = 120.0
POLL_SECONDS = 0.02
PEER_FOLDER = Path("/var/tmp/docker-peer")


class Swarm(Protocol):
    name: str
    managers: list[str]
    workers: list[str]

    def ask(self, node: str, method: str, path: str, body: Any = None) -> tuple[int, Any]: ...

    def kill(self, node: str, how: str) -> None: ...

    def start(self, node: str) -> None: ...


class Shoal:
    """Our own, in a lab."""

    name = "shoal"

    def __init__(self, lab: Any) -> None:
        self._lab = lab
        self.managers = [node.name for node in lab.nodes if node.name.startswith("m")]
        self.workers = [node.name for node in lab.nodes if node.name.startswith("w")]

    def ask(self, node: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return ask(str(self._lab.node(node).host).removeprefix("unix://"), method, path, body)

    def kill(self, node: str, how: str) -> None:
        found = self._lab.node(node)
        if how == "daemon":
            found.kill_daemon()
        else:
            found.kill()

    def start(self, node: str) -> None:
        self._lab.node(node).start()


class Peer:
    """A real Docker Swarm."""

    name = "docker"

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self.run("up", str(MANAGERS + WORKERS))
        self.managers = [str(number) for number in range(1, MANAGERS + 1)]
        self.workers = [str(number) for number in range(MANAGERS + 1, MANAGERS + WORKERS + 1)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", self._tool, *arguments], check=True, capture_output=True, text=True)

    def ask(self, node: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return ask(str(PEER_FOLDER / "sock" / f"p{node}.sock"), method, path, body)

    def kill(self, node: str, how: str) -> None:
        del how
        self.run("kill", node)

    def start(self, node: str) -> None:
        self.run("start", node)


def ask(socket_path: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection = Connection(socket_path)
    try:
        data = json.dumps(body).encode() if body is not None else None
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        try:
            return response.status, json.loads(content) if content else None
        except ValueError:
            return response.status, content.decode(errors="replace")
    except OSError as error:
        return 0, str(error)
    finally:
        connection.close()


def until(what: str, holds: Callable[..., bool], since: float | None = None) -> float:
    """Return the seconds until `holds`."""
    begun = time.monotonic() if since is None else since
    while not holds():
        if time.monotonic() - begun > PATIENCE_SECONDS:
            raise RuntimeError(f"not in {PATIENCE_SECONDS:.0f} s: {what}")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - begun


def spec(name: str, replicas: int, constraint: str = "") -> dict[str, Any]:
    placement = {"Constraints": [constraint]} if constraint else {}
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Command": ["sleep", "100000"], "StopGracePeriod": 0},
            "Placement": placement,
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }


def node_ids(swarm: Swarm) -> dict[str, str]:
    return {n: swarm.ask(n, "GET", "/info")[1]["Swarm"]["NodeID"] for n in (*swarm.managers, *swarm.workers)}


def leader_of(swarm: Swarm, ids: dict[str, str]) -> str:
    for manager in swarm.managers:
        status, nodes = swarm.ask(manager, "GET", "/nodes")
        if status == 200:
            for node in nodes:
                if node.get("ManagerStatus", {}).get("Leader"):
                    return next(name for name, id_ in ids.items() if id_ == node["ID"])
    return ""


def all_well(swarm: Swarm, asked: str) -> bool:
    status, nodes = swarm.ask(asked, "GET", "/nodes")
    if status != 200:
        return False
    well = all(
        n["Status"]["State"] == "ready" and n.get("ManagerStatus", {}).get("Reachability") in (None, "reachable")
        for n in nodes
    )
    return well and any(n.get("ManagerStatus", {}).get("Leader") for n in nodes)


def kill_leaders(swarm: Swarm, kills: int, how: str) -> list[float]:
    """Kill the leader again and again; the seconds until a create is acknowledged by another manager."""
    ids, taken = node_ids(swarm), []
    for number in range(kills):
        until("all is well", lambda: all_well(swarm, swarm.managers[0]))
        leader = leader_of(swarm, ids)
        others = [manager for manager in swarm.managers if manager != leader]
        swarm.kill(leader, how)
        name = f"after-{how}-{number}"
        taken.append(
            until(
                "a write",
                lambda other=others[0], name=name: (
                    swarm.ask(other, "POST", "/services/create", spec(name, 0))[0] in (201, 409)
                ),
            )
        )
        swarm.start(leader)
    until("all is well", lambda: all_well(swarm, swarm.managers[0]))
    return taken


def kill_workers(swarm: Swarm, kills: int, how: str) -> tuple[list[float], list[float]]:
    """Kill workers; the seconds until their tasks run elsewhere, and from starting their daemons until ready."""
    ids, replaced, back = node_ids(swarm), [], []
    manager = swarm.managers[0]
    status, answer = swarm.ask(manager, "POST", "/services/create", spec("spread", REPLICAS, "node.role==worker"))
    assert status == 201, answer
    service_id = answer["ID"]

    def running(without: str = "") -> int:
        filters = quote(json.dumps({"service": {service_id: True}, "desired-state": {"running": True}}))
        status, tasks = swarm.ask(manager, "GET", f"/tasks?filters={filters}")
        if status != 200:
            return 0
        return sum(t["Status"]["State"] == "running" and t.get("NodeID") != ids.get(without) for t in tasks)

    for number in range(kills):
        until("all run", lambda: running() == REPLICAS)
        worker = swarm.workers[number % len(swarm.workers)]
        swarm.kill(worker, how)
        replaced.append(until("replacements run", lambda worker=worker: running(without=worker) == REPLICAS))
        begun = time.monotonic()
        swarm.start(worker)
        back.append(until("the worker is ready", lambda: all_well(swarm, manager), since=begun))
    swarm.ask(manager, "DELETE", f"/services/{service_id}")
    return replaced, back


def tell(name: str, what: str, taken: list[float]) -> None:
    if taken:
        print(
            f"{name:7} {what:48} median {statistics.median(taken):6.2f} s  least {min(taken):6.2f}  "
            f"most {max(taken):6.2f}  of {len(taken)}",
            flush=True,
        )


@contextlib.contextmanager
def swarms() -> Iterator[list[Swarm]]:
    from shoal.lab.lab import Lab, take_down

    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="shoal-failover-"))
        name = f"f{os.getpid()}"
        stack.callback(take_down, name)
        found: list[Swarm] = [Shoal(Lab.up(managers=MANAGERS, workers=WORKERS, name=name, scratch=Path(scratch)))]
        tool = os.environ.get("DOCKER_PEER")
        if tool:
            peer = Peer(tool)
            stack.callback(peer.run, "down")
            found.append(peer)
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    kills = parser.parse_args().kills
    with swarms() as found:
        for swarm in found:
            count = kills if swarm.name == "shoal" else min(kills, PEER_KILLS)
            for how in ("daemon", "power") if swarm.name == "shoal" else ("daemon",):
                tell(swarm.name, f"leader killed ({how}): writes again", kill_leaders(swarm, count, how))
            for how in ("daemon", "power") if swarm.name == "shoal" else ("daemon",):
                replaced, back = kill_workers(swarm, max(2, count // 4), how)
                tell(swarm.name, f"worker killed ({how}): replacements running", replaced)
                tell(swarm.name, f"worker started again ({how}): ready", back)


if __name__ == "__main__":
    main()
