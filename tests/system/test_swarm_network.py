"""The network of a swarm of five hosts as users meet it: names, virtual addresses, ports published on every node."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shoal.errors import ShoalError
from shoal.lab.lab import Lab
from shoal.lab.node import LabNode
from shoal.network.settings import NetworkSettings, names_of
from shoal.network.wireguard import find_way
from tests.system.daemon import wait_for
from tests.system.lab import node_id, running_lab
from tests.system.swarm import get, running

pytestmark = pytest.mark.root

PEER = str(Path(__file__).parent / "network" / "peer.py")
FLOOD = str(Path(__file__).parent / "network" / "names_flood.py")
# a machine with other work may hold up a leader for a second once
ATTEMPTS = 3
WIREGUARD_PORTS = [51820, 51820]
LOCAL = ("--no-resolve-image", "--stop-grace-period", "0s", "-d")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running_lab(managers=3, workers=2) as lab:
        yield lab


class Service:
    """Tasks of a service, and what serves in their namespaces: the image has nothing that tells a client's address."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.by_node = {node_id(node): node for node in lab.nodes}

    def tasks(self) -> list[tuple[str, LabNode, int]]:
        """Return container, node and process of every running task."""
        found = []
        for task in running(self.lab.node("m1"), get(self.lab.node("m1"), f"/services/{self.name}")["ID"]):
            status = task["Status"]["ContainerStatus"]
            found.append((status["ContainerID"], self.by_node[task["NodeID"]], status["PID"]))
        return found

    @contextlib.contextmanager
    def served(self) -> Iterator[dict[str, LabNode]]:
        """Serve in every task, TCP 80 and UDP 53; yields the nodes by the names that answer."""
        servers, nodes = [], {}
        try:
            for container, node, pid in self.tasks():
                words = (
                    "nsenter",
                    f"--net=/proc/{pid}/ns/net",
                    sys.executable,
                    PEER,
                    "serve",
                    container[:12],
                    "80",
                    "53",
                )
                servers.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
                nodes[container[:12]] = node
            for server in servers:
                assert server.stdout is not None
                assert server.stdout.readline() == "ready\n"
            yield nodes
        finally:
            for server in servers:
                server.kill()
                server.wait()
                assert server.stdout is not None
                server.stdout.close()


def create(lab: Lab, name: str, count: int, *words: str) -> Service:
    lab.node("m1").docker("service", "create", *LOCAL, "--name", name, *words, "busybox", "sleep", "10000")
    shown = ("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
    wait_for(lambda: f"{name} {count}/{count}" in lab.node("m1").docker(*shown).stdout, f"{name} runs", 40)
    return Service(lab, name)


def peer(prefix: list[str], *words: str) -> list[str]:
    done = subprocess.run([*prefix, sys.executable, PEER, *words], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def from_host(node: LabNode, kind: str, address: str, port: int, count: int = 1) -> list[str]:
    return peer(["nsenter", f"--net={node.namespace}"], kind, address, str(port), str(count))


def from_task(pid: int, kind: str, address: str, port: int, count: int = 1) -> list[str]:
    return peer(["nsenter", f"--net=/proc/{pid}/ns/net"], kind, address, str(port), str(count))


def names(answers: list[str]) -> set[str]:
    return {answer.split()[0] for answer in answers}


def resolve(node: LabNode, container: str, name: str) -> set[str]:
    answer = node.docker("exec", container, "nslookup", name, check=False).stdout
    return set(re.findall(r"^Address: (\d\S+)", answer.partition("Non-authoritative")[2], re.MULTILINE))


@pytest.fixture(scope="module")
def swarm(lab: Lab) -> Iterator[tuple[Service, Service]]:
    manager = lab.node("m1")
    manager.docker("network", "create", "-d", "overlay", "front")
    spread = ("--replicas", "2", "--replicas-max-per-node", "1")
    ports = ("--publish", "8080:80", "--publish", "5353:53/udp")
    web = create(lab, "web", 2, *spread, *ports, "--network", "front")
    clients = create(lab, "client", 5, "--mode", "global", "--network", "front")
    yield web, clients
    # they may have gone already: the ingress network is made anew without services
    manager.docker("service", "rm", "web", "client", check=False)
    # the last test leaves one of the nodes off
    up = [node for node in lab.nodes if node.namespace.exists()]
    wait_for(lambda: not any(node.docker("ps", "-aq").stdout for node in up), "no container", 40)
    manager.docker("network", "rm", "front")


def test_names_and_virtual_addresses_everywhere(lab: Lab, swarm: tuple[Service, Service]) -> None:
    web, clients = swarm
    (virtual_ip,) = resolve(lab.node("m1"), clients.tasks()[0][0], "web") or {""}
    with web.served() as served:
        assert len({node.name for node in served.values()}) == 2, "on two nodes"
        for container, node, pid in clients.tasks():
            assert resolve(node, container, "web") == {virtual_ip}
            addresses = resolve(node, container, "tasks.web")
            assert len(addresses) == 2
            for address in addresses:
                assert len(names(from_task(pid, "tcp", address, 80))) == 1
            for kind, port in (("tcp", 80), ("udp", 53)):
                assert names(from_task(pid, kind, virtual_ip, port, 40)) == set(served), (node.name, kind)


def test_published_ports_on_every_node_keep_the_clients_address(lab: Lab, swarm: tuple[Service, Service]) -> None:
    web, _ = swarm
    with web.served() as served:
        for entry in lab.nodes:
            for kind, port in (("tcp", 8080), ("udp", 5353)):
                assert names(from_host(entry, kind, "127.0.0.1", port, 8)) == set(served), (entry.name, kind)
                client = next(node for node in lab.nodes if node.name != entry.name and node not in served.values())
                seen = Counter(answer for answer in from_host(client, kind, entry.address, port, 8))
                assert {answer.split()[0] for answer in seen} == set(served), (entry.name, kind)
                assert {answer.split()[1] for answer in seen} == {client.address}, (entry.name, kind)


def test_a_dead_node_and_a_partition_leave_no_wrong_name(lab: Lab, swarm: tuple[Service, Service]) -> None:
    web, clients = swarm
    victim = next(node for _, node, _ in clients.tasks() if node.name == "w2")

    def right(count: int) -> bool:
        """Whether every living node tells and reaches the tasks that run, and no other."""
        wanted = set()
        for container, node, _ in web.tasks():
            shown = get(node, f"/containers/{container}/json")["NetworkSettings"]["Networks"]
            wanted.add(shown["front"]["IPAddress"])
        told = [
            resolve(node, container, "tasks.web") == wanted
            for container, node, _ in clients.tasks()
            if node.name != victim.name or count == 5
        ]
        return len(wanted) == 2 and len(told) == count and all(told)

    wait_for(lambda: right(5), "all is right at first")
    lab.partition(victim.name)
    wait_for(lambda: get(lab.node("m1"), f"/nodes/{node_id(victim)}")["Status"]["State"] == "down", "it is down", 40)
    wait_for(lambda: len(web.tasks()) == 2 and right(4), "the others know", 40)
    lab.heal()
    wait_for(lambda: len(clients.tasks()) == 5 and right(5), "all is right again", 40)
    with web.served() as served:
        for entry in lab.nodes:
            assert names(from_host(entry, "tcp", "127.0.0.1", 8080, 8)) == set(served), entry.name


def test_an_encrypted_network_between_nodes_shows_nothing_on_the_wire(lab: Lab) -> None:
    try:
        find_way(NetworkSettings())
    except ShoalError as error:
        pytest.skip(error.message)
    manager = lab.node("m1")
    manager.docker("network", "create", "-d", "overlay", "--opt", "encrypted", "vault")
    where = ("--mode", "global", "--constraint", "node.role==worker")
    secret = create(lab, "secret", 2, "--network", "vault", *where)
    try:
        container, node, pid = secret.tasks()[0]
        with secret.served() as served, packets_of(node) as seen:
            answer = node.docker("exec", container, "nslookup", "tasks.secret").stdout
            addresses = set(re.findall(r"^Address: (10\.\S+)", answer, re.MULTILINE))
            # keys are agreed on when the first packet goes, and again after five seconds if one was lost
            wait_for(
                lambda: names([from_task(pid, "tcp", each, 80)[0] for each in addresses]) == set(served), "an answer"
            )
            packets = seen()
            other = next(name for name in served if name != container[:12])
            assert WIREGUARD_PORTS in [ports for _, ports, _ in packets]
            assert not [ports for _, ports, _ in packets if 4789 in ports], "frames in the clear"
            assert all(other.encode().hex() not in data for _, _, data in packets), "an answer in the clear"
            before = wireguard_keys(node)
            manager.shoal("swarm", "update", "--rotate-network-keys")
            wait_for(lambda: not wireguard_keys(node) & before, "all nodes have new keys")
            assert names([from_task(pid, "tcp", address, 80)[0] for address in addresses]) == set(served)
    finally:
        manager.docker("service", "rm", "secret")
    manager.docker("network", "rm", "vault")


def wireguard_keys(node: LabNode) -> set[str]:
    """Return the public keys of a node's end of encrypted networks, its own and the others'."""
    lines = node.execute("wg", "show", "all", "dump").stdout.splitlines()
    own = names_of(node.docker("info", "-f", "{{.ID}}").stdout.strip()).secret_link
    shown = [line.split()[1:] for line in lines if line.split()[0] == own]
    return {shown[0][1], *(words[0] for words in shown[1:])}


@contextlib.contextmanager
def packets_of(node: LabNode) -> Iterator[Callable[[], list[tuple[int, list[int], str]]]]:
    """Yield what gives the packets on a node's cable since then: protocol, ports, and all of it in hexadecimal."""
    words = ["nsenter", f"--net={node.namespace}", sys.executable, PEER, "capture", "eth0"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdin is not None
            assert watch.stdout is not None
            assert watch.stdout.readline() == "ready\n"
            question, answer = watch.stdin, watch.stdout

            def seen() -> list[tuple[int, list[int], str]]:
                print("?", file=question, flush=True)
                return json.loads(answer.readline())

            yield seen
        finally:
            watch.kill()


def test_a_network_with_ipv6(lab: Lab) -> None:
    manager = lab.node("m1")
    manager.docker("network", "create", "-d", "overlay", "--ipv6", "six")
    six = create(lab, "six", 5, "--mode", "global", "--network", "six")
    try:
        with six.served() as served:
            container, node, pid = next(task for task in six.tasks() if task[1].name == "w1")
            answer = node.docker("exec", container, "nslookup", "-type=aaaa", "tasks.six").stdout
            addresses = re.findall(r"^Address: (fd\S+)", answer, re.MULTILINE)
            assert names([from_task(pid, "tcp", address, 80)[0] for address in addresses]) == set(served)
            answer = node.docker("exec", container, "nslookup", "-type=aaaa", "six").stdout
            (virtual_ip,) = re.findall(r"^Address: (fd\S+)", answer, re.MULTILINE)
            assert names(from_task(pid, "tcp", virtual_ip, 80, 60)) == set(served)
    finally:
        manager.docker("service", "rm", "six")
    manager.docker("network", "rm", "six")


def test_a_network_whose_nodes_each_have_their_own_configuration(lab: Lab) -> None:
    for name, part in (("w1", "10.77.0.64/26"), ("w2", "10.77.0.128/26")):
        words = ("--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1", "--ip-range", part, "-o", "parent=eth0")
        lab.node(name).docker("network", "create", "--config-only", *words, "of-this-node")
    create_network = ("network", "create", "--scope", "swarm", "-d", "macvlan", "--config-from", "of-this-node")
    lab.node("m1").docker(*create_network, "plant")
    refused = lab.node("w1").docker(*create_network, "other", check=False)
    assert "This node is not a swarm manager" in refused.stderr
    only = ("--constraint", "node.role==worker", "--replicas-max-per-node", "1")
    service = create(lab, "machine", 2, "--network", "plant", "--replicas", "2", *only)
    addresses = {}
    for container, node, _ in service.tasks():
        networks = json.loads(node.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", container).stdout)
        addresses[node.name] = networks["plant"]["IPAddress"]
    assert 64 <= int(addresses["w1"].rpartition(".")[2]) < 128 <= int(addresses["w2"].rpartition(".")[2]) < 192
    for container, node, _ in service.tasks():
        other = addresses["w2" if node.name == "w1" else "w1"]
        node.docker("exec", container, "ping", "-c", "1", "-W", "2", other)
    lab.node("m1").docker("service", "rm", "machine")
    # the nodes' own copies go with their last tasks
    shown = ("network", "ls", "--format", "{{.Name}}")
    workers = [lab.node(name) for name in ("w1", "w2")]
    wait_for(lambda: not any("plant" in node.docker(*shown).stdout for node in workers), "both forget it")
    lab.node("m1").docker("network", "rm", "plant")


def test_pruning_takes_what_nothing_uses_in_the_swarm_and_on_the_node_asked(lab: Lab) -> None:
    first, second, third = (lab.node(name) for name in ("m1", "m2", "m3"))
    first.docker("network", "create", "-d", "overlay", "--label", "keep=yes", "kept")
    for node in (first, second, third):
        node.docker("network", "create", f"of-{node.name}")
    prune = ("network", "prune", "--force", "--filter")
    assert second.docker(*prune, "until=1h").stdout == ""
    assert "invalid filter 'until=x'" in second.docker(*prune, "until=x", check=False).stderr
    for node in (second, third):
        first.docker("network", "create", "-d", "overlay", "loose")
        pruned = set(node.docker(*prune, "label!=keep").stdout.split()) - {"Deleted", "Networks:"}
        assert pruned == {"loose", f"of-{node.name}"}
    assert set(first.docker(*prune, "until=0s").stdout.split()) >= {"kept", "of-m1"}


def raft_terms(lab: Lab) -> dict[str, float]:
    """Return what each manager takes for the term, by name; the first is the leader's."""
    found = {}
    for node in lab.nodes:
        lines = str(get(node, "/metrics")).splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if line.startswith("shoal_raft"))
        if values:
            found[node.name] = (-float(values["shoal_raft_is_leader"]), float(values["shoal_raft_term"]))
    return {name: term for name, (_, term) in sorted(found.items(), key=lambda item: item[1])}


def test_a_container_that_floods_its_resolver_harms_nobody(lab: Lab) -> None:
    leader = next(iter(raft_terms(lab)))
    lab.node("m1").docker("network", "create", "-d", "overlay", "asked")
    words = ("--network", "asked", "--replicas", "2", "--constraint", f"node.hostname=={leader}")
    service = create(lab, "asking", 2, *words)
    for _ in range(ATTEMPTS):
        before = raft_terms(lab)
        assert len(before) == 3
        programs = [("flood", "asking", "3", "50000"), ("ask", "asking", "20", "0.1")]
        running_now = [
            subprocess.Popen(
                ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, FLOOD, *words],
                stdout=subprocess.PIPE,
                text=True,
            )
            for (_, _, pid), words in zip(service.tasks(), programs, strict=True)
        ]
        sent, answered = (each.communicate()[0].split() for each in running_now)
        print("queries sent in 3 s:", *sent, "- answers elsewhere and their median in ms:", *answered)
        assert int(sent[0]) > 0
        assert answered[0] == "20"
        if raft_terms(lab) == before:
            break
    else:
        pytest.fail("an election each time")
    lab.node("m1").docker("service", "rm", "asking")
    lab.node("m1").docker("network", "rm", "asked")


def test_an_encrypted_mesh_between_nodes_shows_nothing_on_the_wire(lab: Lab) -> None:
    try:
        find_way(NetworkSettings())
    except ShoalError as error:
        pytest.skip(error.message)
    manager, worker = lab.node("m1"), lab.node("w1")
    left = manager.docker("service", "ls", "-q").stdout.split()
    if left:
        manager.docker("service", "rm", *left)

    def make_mesh(*words: str) -> None:
        manager.docker("network", "rm", "ingress", input="y\n")
        manager.docker("network", "create", "-d", "overlay", "--ingress", *words, "ingress")

    make_mesh("--opt", "encrypted")
    service = create(lab, "hidden", 1, "-p", "8085:80", "--constraint", "node.hostname==w2")
    with service.served() as served, packets_of(worker) as seen:
        wait_for(lambda: answers(worker, 8085), "w1 leads to the task on w2")
        assert names(from_host(worker, "tcp", "127.0.0.1", 8085, 4)) == set(served)
        assert names(from_host(manager, "tcp", manager.address, 8085, 4)) == set(served)
        packets = seen()
        (name,) = served
        assert WIREGUARD_PORTS in [ports for _, ports, _ in packets]
        assert not [ports for _, ports, _ in packets if 4789 in ports], "frames in the clear"
        assert all(name.encode().hex() not in data for _, _, data in packets), "an answer in the clear"
        # a daemon that starts again goes on, and new keys come into use
        worker.kill_daemon()
        worker.start()
        before = wireguard_keys(worker)
        manager.shoal("swarm", "update", "--rotate-network-keys")
        wait_for(lambda: not wireguard_keys(worker) & before, "all nodes have new keys")
        assert names(from_host(worker, "tcp", "127.0.0.1", 8085, 4)) == set(served)
    manager.docker("service", "rm", "hidden")
    make_mesh()
    service = create(lab, "open", 1, "-p", "8085:80", "--constraint", "node.hostname==w2")
    with service.served() as served:
        wait_for(lambda: answers(worker, 8085), "w1 leads to the task on w2 in the clear")
        assert worker.execute("wg", "show", "all", "dump").stdout == ""
    manager.docker("service", "rm", "open")


def answers(node: LabNode, port: int) -> bool:
    """Whether a port of the mesh leads to somebody who answers."""
    return node.execute("curl", "-s", "--max-time", "2", f"http://127.0.0.1:{port}/", check=False).returncode != 7


def test_plain_containers_of_workers_on_an_attachable_network(lab: Lab) -> None:
    manager, one, two = lab.node("m1"), lab.node("w1"), lab.node("w2")
    manager.docker("network", "create", "-d", "overlay", "--attachable", "open")
    service = create(lab, "svc", 1, "--network", "open", "--constraint", "node.hostname==m2")
    # asked for on workers, by way of whichever manager they have
    one.docker("run", "-d", "--name", "first", "--network", "open", "busybox", "sleep", "10000")
    two.docker("run", "-d", "--name", "second", "busybox", "sleep", "10000")
    two.docker("network", "connect", "--alias", "other", "open", "second")
    wait_for(lambda: resolve(one, "first", "other"), "the node is told of the other's name")
    assert "0% packet loss" in one.docker("exec", "first", "ping", "-c", "1", "-W", "5", "second").stdout
    ((container, node, _),) = service.tasks()
    assert resolve(node, container, "first"), "a service's task finds it, too"
    pid = get(two, "/containers/second/json")["State"]["Pid"]
    (virtual_ip,) = resolve(two, "second", "svc")
    with service.served() as served:
        assert names(from_task(pid, "tcp", virtual_ip, 80, 4)) == set(served)
    refused = manager.docker("network", "rm", "open", check=False)
    assert "in use" in refused.stderr
    # what a dead node's containers had is given back when the node is removed
    two.kill()
    wait_for(lambda: get(manager, f"/nodes/{node_id_of(lab, two)}")["Status"]["State"] == "down", "it is down", 40)
    manager.docker("node", "rm", "--force", node_id_of(lab, two))
    wait_for(lambda: not resolve(one, "first", "other"), "its name is gone")
    one.docker("rm", "-f", "first")
    manager.docker("service", "rm", "svc")
    manager.docker("network", "rm", "open")


def node_id_of(lab: Lab, node: LabNode) -> str:
    """Return the id of a node by the word of a manager: it may be dead itself."""
    found = [each["ID"] for each in get(lab.node("m1"), "/nodes") if each["Status"]["Addr"] == node.address]
    return str(found[0])
