"""Swarms of several nodes, as a user of the stock docker command meets them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from shoal.lab.node import LabNode
from tests.system.daemon import wait_for
from tests.system.lab import node_id, nodes, running_lab
from tests.system.swarm import create, get, running

pytestmark = pytest.mark.root


@contextlib.contextmanager
def running_swarm(managers: int, workers: int) -> Iterator[list[LabNode]]:
    """The nodes of a lab: managers (the first has made the swarm), then workers."""
    with running_lab(managers, workers) as lab:
        yield lab.nodes


def test_three_managers_and_a_worker():
    with running_swarm(3, 1) as hosts:
        first, second, third, worker = hosts
        ids = {host.address: node_id(host) for host in hosts}
        assert set(nodes(third)) == set(ids.values())
        # a write through a follower; every node runs tasks
        service = create(second, "everywhere", ["sleep", "999"], more={"Mode": {"Global": {}}})
        wait_for(lambda: len(running(third, service)) == 4, "a task on every node")
        assert {task["NodeID"] for task in running(first, service)} == set(ids.values())
        assert "This node is not a swarm manager" in worker.docker("node", "ls", check=False).stderr

        # the leader dies: the others write again, the tasks run on
        before = {task["ID"] for task in running(second, service)}
        first.kill_daemon()
        # what is on its way to a leader that dies is answered with a failure, and not tried again
        wait_for(lambda: not nodes(second)[ids[first.address]]["ManagerStatus"].get("Leader"), "another leads")
        other = create(second, "after", ["sleep", "999"], replicas=3)
        wait_for(lambda: len(running(third, other)) == 3, "writes go on")
        wait_for(
            lambda: nodes(third)[ids[first.address]]["ManagerStatus"]["Reachability"] == "unreachable", "it is missed"
        )
        first.start()
        wait_for(lambda: nodes(first)[ids[first.address]]["ManagerStatus"]["Reachability"] == "reachable", "it is back")
        wait_for(lambda: nodes(first)[ids[first.address]]["Status"]["State"] == "ready", "its node is ready")
        assert {task["ID"] for task in running(first, service)} == before


def test_promotion_demotion_and_leaving():
    with running_swarm(1, 2) as (manager, one, two):
        ids = {host.address: node_id(host) for host in (manager, one, two)}
        manager.docker("node", "promote", ids[one.address], ids[two.address])
        wait_for(
            lambda: sum("ManagerStatus" in node for node in nodes(manager).values()) == 3, "all three are managers"
        )
        wait_for(lambda: get(two, "/info")["Swarm"]["ControlAvailable"], "the node knows")
        assert set(nodes(two)) == set(ids.values())
        two.docker("node", "demote", ids[manager.address])
        wait_for(lambda: "ManagerStatus" not in nodes(two)[ids[manager.address]], "the founder is a worker")
        wait_for(lambda: not get(manager, "/info")["Swarm"]["ControlAvailable"], "and knows it")
        service = create(one, "web", ["sleep", "999"], replicas=3)
        wait_for(lambda: len(running(two, service)) == 3, "the swarm works")
        # a worker leaves: it is down at once, its task runs elsewhere, it can be removed
        assert manager.docker("swarm", "leave").stdout == "Node left the swarm.\n"
        wait_for(lambda: nodes(one)[ids[manager.address]]["Status"]["State"] == "down", "it is down")
        wait_for(lambda: len(running(one, service)) == 3, "its task runs elsewhere")
        assert {task["NodeID"] for task in running(one, service)} == {ids[one.address], ids[two.address]}
        one.docker("node", "rm", ids[manager.address])
        assert set(nodes(one)) == {ids[one.address], ids[two.address]}


def test_a_dead_worker_is_replaced():
    with running_lab(1, 1) as lab:
        manager, worker = lab.nodes
        service = create(manager, "web", ["sleep", "999"], replicas=4)
        wait_for(lambda: len(running(manager, service)) == 4, "they run")
        lost = node_id(worker)
        assert {task["NodeID"] for task in running(manager, service)} == {lost, node_id(manager)}
        on_worker = {task["ID"] for task in running(manager, service) if task["NodeID"] == lost}
        lab.partition(worker.name)

        def all_elsewhere() -> bool:
            wanted = [
                task
                for task in running(manager, service)
                if task["DesiredState"] == "running" and task["NodeID"] != lost
            ]
            return len(wanted) == 4

        wait_for(all_elsewhere, "replacements run")
        assert nodes(manager)[lost]["Status"]["State"] == "down"
        lab.heal()
        wait_for(lambda: nodes(manager)[lost]["Status"]["State"] == "ready", "it is back")
        label = f"com.docker.swarm.service.id={service}"
        filters = quote(json.dumps({"label": [label]}))
        wait_for(lambda: not get(worker, f"/containers/json?filters={filters}"), "its old tasks are stopped")
        assert not on_worker & {task["ID"] for task in running(manager, service) if task["DesiredState"] == "running"}


def test_autolock():
    with running_swarm(1, 1) as (manager, _worker):
        service = create(manager, "web", ["sleep", "999"], replicas=2)
        wait_for(lambda: len(running(manager, service)) == 2, "they run")
        text = manager.docker("swarm", "update", "--autolock=true").stdout
        key = next(word for word in text.split() if word.startswith("SWMKEY-1-"))
        assert manager.docker("swarm", "unlock-key", "-q").stdout.strip() == key
        wait_for(lambda: "plain" not in what_lies_open(manager), "it is encrypted")
        manager.restart()
        assert get(manager, "/info")["Swarm"]["LocalNodeState"] == "locked"
        refused = manager.docker("service", "ls", check=False)
        assert "Swarm is encrypted and needs to be unlocked" in refused.stderr
        assert manager.request("POST", "/swarm/unlock", {"UnlockKey": key[:-5] + "AAAAA"})[0] in (400, 401)
        # what cannot be read is not thrown away for another swarm either
        token = f"SWMTKN-1-{'0' * 50}-{'0' * 25}"
        for refused in (
            manager.docker("swarm", "join", "--token", token, "192.0.2.1:2377", check=False),
            manager.docker("swarm", "init", check=False),
        ):
            assert "needs to be unlocked" in refused.stderr
        assert "needs to be unlocked" in manager.docker("swarm", "leave", check=False).stderr
        manager.docker("swarm", "unlock", input=f"{key}\n")
        wait_for(lambda: len(running(manager, service)) == 2, "it goes on")
        rotated = manager.docker("swarm", "unlock-key", "--rotate", "-q").stdout.strip()
        assert rotated not in ("", key)
        assert manager.request("POST", "/swarm/unlock", {"UnlockKey": key}) == (
            409,
            {"message": "swarm is not locked"},
        )
        manager.docker("swarm", "update", "--autolock=false")
        wait_for(lambda: what_lies_open(manager) == {"plain"}, "it is plain again")
        manager.restart()
        assert get(manager, "/info")["Swarm"]["LocalNodeState"] == "active"


def what_lies_open(host: LabNode) -> set[str]:
    """Whether the data key and the private key of a manager are plain or encrypted on its disk."""
    swarm = host.data_root / "swarm"
    private = (swarm / "certificates" / "swarm-node.key").read_text()
    return {
        "encrypted" if "ENCRYPTED" in private else "plain",
        "encrypted" if (swarm / "raft" / "key").read_bytes().startswith(b"shoal wrapped key") else "plain",
    }


def test_loss_of_quorum_and_a_new_cluster():
    with running_swarm(2, 1) as (first, second, worker):
        service = create(first, "web", ["sleep", "999"], replicas=3)
        wait_for(lambda: len(running(first, service)) == 3, "they run")
        before = {task["ID"] for task in running(first, service)}
        first.docker("swarm", "update", "--dispatcher-heartbeat", "1s")
        second.kill_daemon()
        wait_for(lambda: get(first, "/info")["Swarm"]["Error"], "the loss is told")
        status, headers, body = answer_of(first, "/services")
        assert (status, headers.get("X-Shoal-Stale"), len(body)) == (200, "true", 1)
        refused = first.docker("service", "scale", "-d", "web=5", check=False)
        assert "The swarm does not have a leader" in refused.stderr
        assert len(get(worker, "/containers/json")) == 1

        # an address that this host does not have: the manager is what it was, and nothing is lost
        anew = ("swarm", "init", "--force-new-cluster")
        refused = first.docker(*anew, "--listen-addr", "192.0.2.1:2377", check=False)
        assert "cannot listen on 192.0.2.1:2377" in refused.stderr
        assert first.request("GET", "/services")[0] == 200
        assert "Swarm initialized" in first.docker(*anew).stdout
        assert {task["ID"] for task in running(first, service)} == before
        assert "X-Shoal-Stale" not in answer_of(first, "/services")[1]
        wait_for(lambda: nodes(first)[node_id(worker)]["Status"]["State"] == "ready", "the worker is back")
        first.docker("service", "scale", "-d", "web=4")
        wait_for(lambda: len(running(first, service)) == 4, "it scales again")
        assert sum("ManagerStatus" in node for node in nodes(first).values()) == 1


def answer_of(host: LabNode, path: str) -> tuple[int, dict[str, str], object]:
    asked = ("curl", "-sS", "-i", "--unix-socket", str(host.socket_path), f"http://shoal{path}")
    head, _, body = host.execute(*asked).stdout.partition("\n\n")
    first, *lines = head.splitlines()
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)


def test_what_is_refused():
    with running_swarm(1, 1) as (manager, worker):
        tokens = get(manager, "/swarm")["JoinTokens"]
        address = f"{manager.address}:2377"
        taken = worker.docker("swarm", "join", "--token", tokens["Worker"], address, check=False)
        assert "This node is already part of a swarm" in taken.stderr
        manager_id, worker_id = node_id(manager), node_id(worker)
        for arguments, words in (
            (("node", "rm", worker_id), "is not down and can't be removed"),
            (("node", "rm", "--force", manager_id), "is a cluster manager and is a member of the raft cluster"),
            (("node", "demote", manager_id), "attempting to demote the last manager of the swarm"),
            (("swarm", "leave"), "Removing the last manager erases all current state of the swarm"),
        ):
            assert words in manager.docker(*arguments, check=False).stderr

        # removed by force while it runs a task: the task goes elsewhere and ends here
        service = create(manager, "web", ["sleep", "999"], replicas=2)
        wait_for(lambda: len(running(manager, service)) == 2, "they run")
        manager.docker("node", "rm", "--force", worker_id)
        wait_for(lambda: get(worker, "/containers/json") == [], "its task is stopped")
        wait_for(lambda: len(running(manager, service)) == 2, "another runs")
        wait_for(lambda: "docker swarm leave" in get(worker, "/info")["Swarm"]["Error"], "it says so")
        worker.docker("swarm", "leave")

        # a wrong secret, a token of another swarm, one that was rotated, no token at all
        old = tokens["Worker"]
        head, _, secret = old.rpartition("-")
        other = f"SWMTKN-1-{'0' * 50}-{secret}"
        manager.docker("swarm", "join-token", "--rotate", "worker")
        for token, words in (
            (f"{head}-{'0' * 25}", "valid join token is necessary"),
            (old, "valid join token is necessary"),
            (other, "remote CA does not match fingerprint"),
            ("SWMTKN-1-nonsense", "invalid join token"),
        ):
            refused = worker.docker("swarm", "join", "--token", token, address, check=False)
            assert words in refused.stderr, (token, refused.stderr)
            assert get(worker, "/info")["Swarm"]["LocalNodeState"] == "inactive"
        # an address without a port means 2377
        fresh = get(manager, "/swarm")["JoinTokens"]["Worker"]
        worker.docker("swarm", "join", "--token", fresh, manager.address)


def test_the_root_is_rotated():
    with running_swarm(2, 1) as hosts:
        first, second, worker = hosts
        before = get(first, "/swarm")
        service = create(first, "web", ["sleep", "999"], replicas=3)
        wait_for(lambda: len(running(first, service)) == 3, "they run")
        tasks = {task["ID"] for task in running(first, service)}
        first.docker("swarm", "ca", "--rotate", "--quiet")
        after = get(second, "/swarm")
        assert not after["RootRotationInProgress"]
        assert after["TLSInfo"]["TrustRoot"] != before["TLSInfo"]["TrustRoot"]
        assert not set(after["JoinTokens"].values()) & set(before["JoinTokens"].values())
        wait_for(
            lambda: (
                {n["Description"]["TLSInfo"]["TrustRoot"] for n in nodes(first).values()}
                == {after["TLSInfo"]["TrustRoot"]}
            ),
            "all trust the new root",
        )
        # all of them come back with it, and the old one is worth nothing
        for host in hosts:
            host.restart()
        wait_for(lambda: {n["Status"]["State"] for n in nodes(second).values()} == {"ready"}, "all are ready")
        assert {task["ID"] for task in running(second, service)} == tasks
        assert worker.docker("swarm", "leave").returncode == 0
        address = f"{first.address}:2377"
        old, new = before["JoinTokens"]["Worker"], after["JoinTokens"]["Worker"]
        refused = worker.docker("swarm", "join", "--token", old, address, check=False)
        assert "remote CA does not match fingerprint" in refused.stderr
        worker.docker("swarm", "join", "--token", new, address)


def test_what_ran_on_a_dead_leader_is_replaced():
    with running_lab(3, 0) as lab:
        m2 = lab.node("m2")
        service = create(m2, "web", ["sleep", "999"], replicas=3)
        wait_for(lambda: len({task["NodeID"] for task in running(m2, service)}) == 3, "one on each")
        own = {node_id(node): node for node in lab.nodes}
        leader_id = next(id_ for id_, node in nodes(m2).items() if node["ManagerStatus"].get("Leader"))
        asked = next(node for id_, node in own.items() if id_ != leader_id)
        own[leader_id].kill()

        def replaced() -> bool:
            status, answer = asked.request("GET", "/tasks")
            tasks = [] if status != 200 else answer
            wanted = [t for t in tasks if t["DesiredState"] == "running" and t["Status"]["State"] == "running"]
            return len(wanted) == 3 and leader_id not in {task["NodeID"] for task in wanted}

        # its default heartbeat would give it three times five seconds
        wait_for(replaced, "the dead leader's task runs elsewhere", 12)


@pytest.mark.long
def test_a_stopped_or_overloaded_host_is_not_down():
    """Its kernel acknowledges, or its processes crawl: that is no death (down would move its tasks)."""
    with running_lab(3, 2) as lab:
        asked = lab.node("m1")
        seen: set[str] = set()

        def look() -> bool:
            seen.update(str(node["Status"]["State"]) for node in nodes(asked).values())
            return False

        worker = lab.node("w1")
        worker.freeze()
        stopped_until = time.monotonic() + 10
        wait_for(lambda: look() or time.monotonic() > stopped_until, "ten seconds", 20)
        worker.thaw()
        wait_for(lambda: look() or time.monotonic() > stopped_until + 5, "it goes on", 20)
        assert seen == {"ready"}

        seen.clear()
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(50)]
        try:
            loaded_until = time.monotonic() + 30
            wait_for(lambda: look() or time.monotonic() > loaded_until, "thirty seconds", 90)
        finally:
            for process in busy:
                process.kill()
                process.wait()
        # the managers may elect another leader under such a load; nodes are not known to it at once, but never down
        assert "down" not in seen
