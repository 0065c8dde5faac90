"""What outlives the leader in the life of a service: traffic that is to go over, tasks that are to move, due times."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from shoal.lab.lab import Lab
from shoal.lab.node import LabNode
from shoal.lib.units import parse_time_ns
from tests.system.asking import asking
from tests.system.daemon import wait_for
from tests.system.lab import node_id, nodes, running_lab
from tests.system.swarm import get, running

pytestmark = pytest.mark.root

QUICK = ("--no-resolve-image", "--stop-grace-period", "0s", "-d")
# a task that runs answers
LISTENS = ("--health-cmd", "wget -q -O /dev/null http://127.0.0.1/", "--health-interval", "300ms")
PERIOD_SECONDS = 2
SERVE = ("busybox", "sh", "-c", "echo $COLOUR > /www/index.html; exec httpd -f -p 80 -h /www")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab(managers=3, workers=0) as lab:
        yield lab


def leader_and_other(lab: Lab) -> tuple[LabNode, LabNode]:
    own = {node_id(node): node for node in lab.nodes}
    found = {id_ for id_, node in nodes(lab.node("m1")).items() if node["ManagerStatus"].get("Leader")}
    return next(own[id_] for id_ in own if id_ in found), next(own[id_] for id_ in own if id_ not in found)


def service(node: LabNode, name: str) -> dict[str, Any]:
    found: dict[str, Any] = get(node, f"/services/{name}")
    return found


def update_state(node: LabNode, name: str) -> str:
    return str((service(node, name).get("UpdateStatus") or {}).get("State", ""))


def spread(node: LabNode, name: str) -> list[int]:
    counts = Counter(task["NodeID"] for task in running(node, service(node, name)["ID"]))
    return sorted(counts[id_] for id_ in nodes(node))


class Runs:
    """The runs of a job that runs at times: when each was written, seconds since the epoch, by its number."""

    def __init__(self, node: LabNode, name: str) -> None:
        self._node, self._name = node, name
        self.seen: dict[int, int] = {}

    def last(self) -> int:
        """Look, and return when the last run was written; 0: none was seen yet."""
        status, answer = self._node.request("GET", f"/services/{self._name}")
        job = answer["JobStatus"] if status == 200 else {}
        # the first, 0, is the one at its creation
        if number := job.get("JobIteration", {}).get("Index", 0):
            self.seen[number] = int(parse_time_ns(job["LastExecution"]) // 1e9)
        return max(self.seen.values(), default=0)


def test_another_leader_goes_on(lab: Lab) -> None:
    """The leader dies at a due time, while new tasks await that all traffic goes over to them."""
    leader, other = leader_and_other(lab)
    words = ("--update-strategy", "blue-green", "--canary", "100%", "--update-monitor", "100ms", "--replicas", "3")
    names = ("--name", "web", "-p", "8080:80", "--env", "COLOUR=blue")
    other.shoal("service", "create", *QUICK, *words, *LISTENS, *names, *SERVE)
    times = ("--cron-schedule", f"*/{PERIOD_SECONDS} * * * * *", "--mode", "replicated-job")
    other.shoal("service", "create", *QUICK, *times, "--name", "often", "busybox", "true")
    runs = Runs(other, "often")
    wait_for(lambda: len(running(other, service(other, "web")["ID"])) == 3, "three run")
    curl = ("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8080/")
    wait_for(lambda: other.execute(*curl, check=False).stdout == "blue\n", "the port answers")
    with asking(f"/proc/{other.pid}/ns/net", "127.0.0.1", 8080) as asked:
        other.docker("service", "update", "-d", "--env-add", "COLOUR=green", "web")
        awaits = "paused", 6
        wait_for(
            lambda: (update_state(other, "web"), len(running(other, service(other, "web")["ID"]))) == awaits,
            "it awaits its promotion",
        )
        wait_for(runs.last, "a run")
        due = (runs.last() // PERIOD_SECONDS + 1) * PERIOD_SECONDS
        # the next run is in the store when the leader dies, or it is not
        wait_for(lambda: time.time() >= due, "the next due time")
        leader.kill_daemon()
        promoted = ("service", "promote", "-d", "web")
        wait_for(lambda: other.shoal(*promoted, check=False).returncode == 0, "another leader promotes")
        leader.start()
        wait_for(lambda: update_state(other, "web") == "completed", "traffic has gone over")
        wait_for(lambda: len(running(other, service(other, "web")["ID"])) == 3, "the old ones have stopped")
        wait_for(lambda: runs.last() >= due + PERIOD_SECONDS, "the run after the due time")
    assert asked.failures() == []
    assert asked.texts()[0] == "blue"
    assert asked.begun_after_first("green") == {"green"}
    # Runs become no more than due times: none had its turn twice. They would be fewer where nobody led for longer than
    # the time between two.
    assert min(runs.seen.values()) < due < max(runs.seen.values())
    ahead = [number - at // PERIOD_SECONDS for number, at in sorted(runs.seen.items())]
    assert ahead == sorted(ahead, reverse=True), runs.seen
    other.docker("service", "rm", "web", "often")


def test_tasks_move_to_a_node_that_has_returned(lab: Lab) -> None:
    m1 = lab.node("m1")
    m1.docker("node", "update", "--availability", "drain", "m3")
    for name, label in (("even", "off"), ("auto", "auto")):
        m1.shoal("service", "create", *QUICK, "--name", name, "--rebalance", label, "--replicas", "4", *SERVE)
        wait_for(lambda: spread(m1, name) == [0, 2, 2], "four run on two nodes")  # noqa: B023
    m1.docker("node", "update", "--availability", "active", "m3")
    wait_for(lambda: spread(m1, "auto") == [1, 1, 2], "one has moved by itself")
    assert spread(m1, "even") == [0, 2, 2]
    told = m1.shoal("service", "rebalance", "--dry-run", "even").stdout
    assert "-> m3 (2 tasks run there, 0 on the other)" in told
    assert spread(m1, "even") == [0, 2, 2]
    assert m1.shoal("service", "rebalance", "even").stdout == told
    wait_for(lambda: spread(m1, "even") == [1, 1, 2], "one has moved")
    again = m1.shoal("service", "rebalance", "even").stdout
    assert again == "nothing moves: the tasks are spread as evenly as they can be\n"
    m1.docker("service", "create", *QUICK, "--name", "each", "--mode", "global", *SERVE)
    refused = m1.shoal("service", "rebalance", "each", check=False)
    assert refused.returncode == 1
    assert "service each is not replicated" in refused.stderr
    m1.docker("service", "rm", "even", "auto", "each")
