"""The experiments of the notes that Shoal is built from, done with the stock docker command on a lab.

Who has two managers loses the swarm with one of them; three can spare one; what runs goes on in any case.
"""

from __future__ import annotations

import json

import pytest

from shoal.lab.node import LabNode
from tests.system.daemon import wait_for
from tests.system.lab import node_id, nodes, running_lab
from tests.system.swarm import get, running

pytestmark = pytest.mark.root

NO_LEADER = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)
QUORUM_LOSS_SECONDS = 40.0


def create(node: LabNode, name: str, *flags: str) -> str:
    """Create a service of sleepers as a user does, without waiting; returns its id."""
    common = ("--detach", "--no-resolve-image", "--stop-grace-period", "0s", "--restart-delay", "0s", "--name", name)
    made = node.docker("service", "create", *common, *flags, "busybox", "sleep", "9999")
    return made.stdout.strip()


def running_nodes(manager: LabNode, service: str) -> set[str]:
    """Return the ids of the nodes that run tasks of a service."""
    return {task["NodeID"] for task in running(manager, service)}


def containers(node: LabNode) -> set[str]:
    """Return what runs on a node, by docker's own word."""
    return set(node.docker("ps", "--quiet", "--no-trunc").stdout.split())


def refuses_writes(node: LabNode) -> bool:
    """Whether a write is refused as Docker refuses it."""
    refused = node.docker("service", "scale", "--detach", "web=3", check=False)
    if refused.returncode == 0:
        return False
    assert NO_LEADER in refused.stderr, refused.stderr
    spec = {"Name": "more", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}
    assert node.request("POST", "/services/create", spec) == (503, {"message": NO_LEADER})
    return True


def accepts_writes(node: LabNode, replicas: int) -> bool:
    return node.docker("service", "scale", "--detach", f"web={replicas}", check=False).returncode == 0


def all_reachable(manager: LabNode) -> bool:
    told = [node["ManagerStatus"]["Reachability"] for node in nodes(manager).values() if "ManagerStatus" in node]
    return told == ["reachable"] * 3


def join_command(manager: LabNode, role: str) -> list[str]:
    """Return the command that `join-token` prints, to be pasted on another node."""
    printed = manager.docker("swarm", "join-token", role).stdout
    assert printed.startswith(f"To add a {role} to this swarm, run the following command:\n\n    docker swarm join ")
    return printed.strip().splitlines()[-1].split()


def test_two_managers_cannot_spare_one():
    with running_lab(2, 1) as lab:
        first, second, worker = lab.nodes
        service = create(first, "web", "--replicas", "3")
        wait_for(lambda: len(running(first, service)) == 3, "they run")
        before = {node.name: containers(node) for node in (first, worker)}
        assert all(before.values())

        second.kill()
        wait_for(lambda: refuses_writes(first), "writes are refused", QUORUM_LOSS_SECONDS)
        # what runs goes on, what was stored can be read
        assert {node.name: containers(node) for node in (first, worker)} == before
        assert [service["Spec"]["Name"] for service in get(first, "/services")] == ["web"]
        assert NO_LEADER in first.docker("info").stdout

        second.start()
        wait_for(lambda: accepts_writes(first, 4), "with the second they are taken again", QUORUM_LOSS_SECONDS)
        wait_for(lambda: len(running(second, service)) == 4, "and done")
        assert before[worker.name] <= containers(worker)


def test_three_managers_can_spare_one_and_not_two():
    with running_lab(3, 1) as lab:
        first, second, third, worker = lab.nodes
        # a host that is dead together with the leader is given up after three of these
        first.docker("swarm", "update", "--dispatcher-heartbeat", "1s")
        service = create(first, "web", "--replicas", "4")
        wait_for(lambda: len(running(first, service)) == 4, "they run")
        everywhere = create(first, "everywhere", "--mode", "global")
        wait_for(lambda: len(running_nodes(first, everywhere)) == 4, "one runs on every node")
        lost = node_id(first)

        first.kill()
        wait_for(lambda: accepts_writes(second, 5), "two managers go on", QUORUM_LOSS_SECONDS)
        living = {node_id(node) for node in (second, third, worker)}
        wait_for(lambda: running_nodes(third, service) == living, "the dead host's tasks have moved")
        wait_for(lambda: len(running(third, service)) == 5, "all five run")
        listed = second.docker("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}").stdout
        assert "m1 Down Unreachable\n" in listed
        assert sorted(line.split()[-1] for line in listed.splitlines()[1:3]) == ["Leader", "Reachable"]

        # what happened under the first is remembered by the others, with who did it
        shown = '{{.Action}} {{.Actor.Attributes.name}} by {{index .Actor.Attributes "shoal.actor"}}'
        words = ("--filter", "type=service", "--filter", "event=create", "--format", shown)
        for manager in (second, third):
            told = manager.docker("events", "--since", "1h", "--until", "0s", *words).stdout
            assert "create web by uid:0\ncreate everywhere by uid:0\n" in told

        before = {node.name: containers(node) for node in (second, worker)}
        third.kill()
        wait_for(lambda: refuses_writes(second), "one of three is too few", QUORUM_LOSS_SECONDS)
        assert {node.name: containers(node) for node in (second, worker)} == before

        third.start()
        wait_for(lambda: accepts_writes(second, 6), "two of three are enough again", QUORUM_LOSS_SECONDS)
        first.start()
        wait_for(lambda: nodes(third)[lost]["Status"]["State"] == "ready", "the first is back, too")
        for manager in (first, second, third):
            wait_for(lambda asked=manager: all_reachable(asked), f"{manager.name} says so of all managers")
        wait_for(lambda: len(running(first, service)) == 6, "six run")
        wait_for(lambda: len(running_nodes(first, everywhere)) == 4, "and one on every node")


def test_joining_leaving_and_roles():
    with running_lab(1, 2) as lab:
        manager, one, two = lab.nodes
        service = create(manager, "everywhere", "--mode", "global")
        wait_for(lambda: len(running_nodes(manager, service)) == 3, "one runs on every node")

        # a node leaves, is removed, and comes back with the command that the manager prints
        left = node_id(one)
        assert one.docker("swarm", "leave").stdout == "Node left the swarm.\n"
        wait_for(lambda: nodes(manager)[left]["Status"]["State"] == "down", "it is down")
        assert containers(one) == set()
        assert manager.docker("node", "rm", "w1").stdout == "w1\n"
        assert left not in nodes(manager)
        command = join_command(manager, "worker")
        assert one.execute(*command).stdout == "This node joined a swarm as a worker.\n"
        wait_for(lambda: len(running_nodes(manager, service)) == 3, "the global service has come to it")

        # the same as a manager
        two.docker("swarm", "leave")
        manager.docker("node", "rm", "--force", "w2")
        assert two.execute(*join_command(manager, "manager")).stdout == "This node joined a swarm as a manager.\n"
        assert json.loads(two.docker("node", "inspect", "self").stdout)[0]["Spec"]["Role"] == "manager"
        wait_for(lambda: len(running_nodes(two, service)) == 3, "and here")

        # new tokens: the old ones are worth nothing, the members stay
        rotated = manager.docker("swarm", "join-token", "--rotate", "worker").stdout
        assert rotated.startswith("Successfully rotated worker join token.\n")
        one.docker("swarm", "leave")
        refused = one.execute(*command, check=False)
        assert refused.returncode == 1
        assert "valid join token is necessary" in refused.stderr
        assert node_id(two) in {task["NodeID"] for task in running(manager, service)}
        manager.docker("node", "rm", "--force", "w1")
        one.execute(*join_command(manager, "worker"))
        wait_for(lambda: len(running_nodes(manager, service)) == 3, "with the new one it may come")


def test_availability_and_roles():
    with running_lab(1, 2) as lab:
        manager, one, two = lab.nodes
        service = create(manager, "web", "--replicas", "3")
        everywhere = create(manager, "everywhere", "--mode", "global")
        wait_for(lambda: len(running_nodes(manager, service)) == 3, "they are spread")
        wait_for(lambda: len(running_nodes(manager, everywhere)) == 3, "one on every node")

        assert manager.docker("node", "update", "--availability", "drain", "w1").stdout == "w1\n"
        wait_for(lambda: not containers(one), "nothing runs on a drained node")
        wait_for(lambda: len(running(manager, service)) == 3, "its task runs elsewhere")
        manager.docker("node", "update", "--availability", "active", "w1")
        wait_for(lambda: node_id(one) in running_nodes(manager, everywhere), "the global service comes back")

        promoted = manager.docker("node", "promote", "w1", "w2").stdout
        assert promoted == "Node w1 promoted to a manager in the swarm.\nNode w2 promoted to a manager in the swarm.\n"
        wait_for(lambda: sum("ManagerStatus" in node for node in nodes(manager).values()) == 3, "three managers")
        wait_for(lambda: two.docker("node", "ls", check=False).returncode == 0, "each can be asked")
        assert two.docker("node", "demote", "m1").stdout == "Manager m1 demoted in the swarm.\n"
        wait_for(lambda: "is not a swarm manager" in manager.docker("node", "ls", check=False).stderr, "a worker now")
        wait_for(lambda: accepts_writes(one, 4), "the two go on")
        wait_for(lambda: len(running(two, service)) == 4, "and it is done")


def test_a_frozen_leader_is_left_by_all():
    with running_lab(3, 1) as lab:
        first, second, _, worker = lab.nodes
        first.freeze()
        wait_for(lambda: second.docker("node", "ls", check=False).returncode == 0, "another leads")
        # the worker's connection to the frozen one stays open, and yet it hears of this
        service = create(second, "web", "--constraint", "node.hostname==w1")
        wait_for(lambda: running_nodes(second, service) == {node_id(worker)}, "it runs on the worker")
        before = containers(worker)
        first.thaw()
        wait_for(lambda: accepts_writes(first, 2), "the old leader follows")
        wait_for(lambda: len(containers(worker)) == 2, "the new one goes on")
        assert before < containers(worker)
