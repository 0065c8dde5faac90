"""Swarms of several nodes, as a user of the stock docker command meets them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.system.daemon import wait_for
from tests.system.several import Host, running_hosts
from tests.system.swarm import create, get, running

pytestmark = pytest.mark.root


@contextlib.contextmanager
def running_swarm(managers: int, workers: int) -> Iterator[list[Host]]:
    """A swarm of so many managers (the first has made it) and workers, joined by the docker command."""
    with running_hosts(managers + workers) as hosts:
        first = hosts[0]
        first.daemon.docker("swarm", "init", "--advertise-addr", first.address)
        for role, group in (("manager", hosts[1:managers]), ("worker", hosts[managers:])):
            if group:
                line = first.daemon.docker("swarm", "join-token", role).stdout.strip().splitlines()[-1].split()
                assert line[:3] == ["docker", "swarm", "join"]
            for host in group:
                assert host.daemon.docker(*line[1:]).stdout == f"This node joined a swarm as a {role}.\n"
        for host in hosts:
            host.daemon.import_busybox()
        yield hosts


def node_id(host: Host) -> str:
    return str(get(host.daemon, "/info")["Swarm"]["NodeID"])


def nodes(host: Host) -> dict[str, dict[str, object]]:
    """Nodes by id, as this manager tells them."""
    return {node["ID"]: node for node in get(host.daemon, "/nodes")}


def test_three_managers_and_a_worker():
    with running_swarm(3, 1) as hosts:
        first, second, third, worker = hosts
        ids = {host.address: node_id(host) for host in hosts}
        assert set(nodes(third)) == set(ids.values())
        # a write through a follower; every node runs tasks
        service = create(second.daemon, "everywhere", ["sleep", "999"], more={"Mode": {"Global": {}}})
        wait_for(lambda: len(running(third.daemon, service)) == 4, "a task on every node")
        assert {task["NodeID"] for task in running(first.daemon, service)} == set(ids.values())
        assert "This node is not a swarm manager" in worker.daemon.docker("node", "ls", check=False).stderr

        # the leader dies: the others write again, the tasks run on
        before = {task["ID"] for task in running(second.daemon, service)}
        first.daemon.kill()
        other = create(second.daemon, "after", ["sleep", "999"], replicas=3)
        wait_for(lambda: len(running(third.daemon, other)) == 3, "writes go on")
        wait_for(
            lambda: nodes(third)[ids[first.address]]["ManagerStatus"]["Reachability"] == "unreachable", "it is missed"
        )
        first.daemon.start()
        wait_for(lambda: nodes(first)[ids[first.address]]["ManagerStatus"]["Reachability"] == "reachable", "it is back")
        wait_for(lambda: nodes(first)[ids[first.address]]["Status"]["State"] == "ready", "its node is ready")
        assert {task["ID"] for task in running(first.daemon, service)} == before


def test_promotion_demotion_and_leaving():
    with running_swarm(1, 2) as (manager, one, two):
        ids = {host.address: node_id(host) for host in (manager, one, two)}
        manager.daemon.docker("node", "promote", ids[one.address], ids[two.address])
        wait_for(
            lambda: sum("ManagerStatus" in node for node in nodes(manager).values()) == 3, "all three are managers"
        )
        wait_for(lambda: get(two.daemon, "/info")["Swarm"]["ControlAvailable"], "the node knows")
        assert set(nodes(two)) == set(ids.values())
        two.daemon.docker("node", "demote", ids[manager.address])
        wait_for(lambda: "ManagerStatus" not in nodes(two)[ids[manager.address]], "the founder is a worker")
        wait_for(lambda: not get(manager.daemon, "/info")["Swarm"]["ControlAvailable"], "and knows it")
        service = create(one.daemon, "web", ["sleep", "999"], replicas=3)
        wait_for(lambda: len(running(two.daemon, service)) == 3, "the swarm works")
        # a worker leaves: it is down at once, its task runs elsewhere, it can be removed
        assert manager.daemon.docker("swarm", "leave").stdout == "Node left the swarm.\n"
        wait_for(lambda: nodes(one)[ids[manager.address]]["Status"]["State"] == "down", "it is down")
        wait_for(lambda: len(running(one.daemon, service)) == 3, "its task runs elsewhere")
        assert {task["NodeID"] for task in running(one.daemon, service)} == {ids[one.address], ids[two.address]}
        one.daemon.docker("node", "rm", ids[manager.address])
        assert set(nodes(one)) == {ids[one.address], ids[two.address]}


def test_a_dead_worker_is_replaced():
    with running_swarm(1, 1) as (manager, worker):
        service = create(manager.daemon, "web", ["sleep", "999"], replicas=4)
        wait_for(lambda: len(running(manager.daemon, service)) == 4, "they run")
        lost = node_id(worker)
        assert {task["NodeID"] for task in running(manager.daemon, service)} == {lost, node_id(manager)}
        on_worker = {task["ID"] for task in running(manager.daemon, service) if task["NodeID"] == lost}
        worker.cut()

        def all_elsewhere() -> bool:
            wanted = [
                task
                for task in running(manager.daemon, service)
                if task["DesiredState"] == "running" and task["NodeID"] != lost
            ]
            return len(wanted) == 4

        wait_for(all_elsewhere, "replacements run")
        assert nodes(manager)[lost]["Status"]["State"] == "down"
        worker.heal()
        wait_for(lambda: nodes(manager)[lost]["Status"]["State"] == "ready", "it is back")
        label = f"com.docker.swarm.service.id={service}"
        filters = quote(json.dumps({"label": [label]}))
        wait_for(lambda: not get(worker.daemon, f"/containers/json?filters={filters}"), "its old tasks are stopped")
        assert not on_worker & {
            task["ID"] for task in running(manager.daemon, service) if task["DesiredState"] == "running"
        }
