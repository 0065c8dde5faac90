import json
import time

import pytest

from tests.system.network.place import run
from tests.system.network.three_hosts import FAR_CLIENT, NEAR_CLIENT, NUMBERS, Host, address_of

pytestmark = pytest.mark.root

PEERS = [{"node_number": number, "address": address_of(number)} for number in NUMBERS]
TASKS = {"task-1": ("10.0.0.11", 1), "task-2": ("10.0.0.12", 2), "task-3": ("10.0.0.13", 3)}


def backends(names):
    return [{"task_id": name, "address": TASKS[name][0], "node_number": TASKS[name][1]} for name in names]


def mesh(version, serving, endpoints=None, **options):
    ports = [
        {"protocol": protocol, "published_port": published, "target_port": target, "service_id": "s",
         "backends": backends(serving), **options}
        for protocol, published, target in (("tcp", 8080, 80), ("udp", 5353, 53))
    ]  # fmt: skip
    return {"version": version, "ports": ports, "endpoints": backends(serving if endpoints is None else endpoints)}


class Swarm:
    """A driver on every host, with the data path set and the tasks attached and serving."""

    def __init__(self, hosts, settings="{}"):
        self.hosts = hosts
        self.drivers = {number: hosts.drive(number, settings) for number in NUMBERS}
        for number, driver in self.drivers.items():
            driver.call("set_node_number", number)
            driver.call("set_data_path", {"peers": PEERS})
        self.paths = {}
        for name, (address, number) in TASKS.items():
            self.paths[name] = self.drivers[number].attach(name, address)["path"]
            hosts.serve(self.paths[name], name)

    def publish(self, *arguments, **options):
        for driver in self.drivers.values():
            driver.call("set_ingress", mesh(*arguments, **options))


def names_in(answers):
    return {answer.split()[0] for answer in answers}


def sources_in(answers):
    return {answer.split()[-1] for answer in answers}


KINDS = [("tcp", 8080), ("udp", 5353)]


@pytest.mark.parametrize(("kind", "port"), KINDS)
def test_every_node_leads_to_every_task_and_keeps_the_client(hosts, kind, port):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    for client, address in ((hosts.near, NEAR_CLIENT), (hosts.far, FAR_CLIENT)):
        for number in NUMBERS:
            answers = hosts.ask(client, kind, address_of(number), port, 6)
            assert names_in(answers) == set(TASKS), number
            assert sources_in(answers) == {address}
    for host in hosts.hosts.values():
        tracked = run("nsenter", f"--net={host.path}", "conntrack", "-L", "-p", "udp").stdout
        assert "dport=4789" not in tracked, "what is around them needs no tracking"
        assert kind == "tcp" or f"dport={port}" in tracked, "the flows themselves do"


@pytest.mark.parametrize(("kind", "port"), KINDS)
def test_callers_on_the_nodes_themselves(hosts, kind, port):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    first = hosts.hosts[1]
    for address in ("127.0.0.1", first.address):
        answers = hosts.ask(first.path, kind, address, port, 6)
        assert names_in(answers) == set(TASKS)
        assert sources_in(answers) == {"169.254.1.1", "100.127.0.1"}, "the gateway here, this node's link elsewhere"
    answers = hosts.ask(first.path, kind, address_of(2), port, 6)
    assert (names_in(answers), sources_in(answers)) == (set(TASKS), {first.address}), "a node is a client like others"
    answers = hosts.ask(swarm.paths["task-1"], kind, first.address, port, 6)
    assert names_in(answers) == set(TASKS), "hairpin"
    answers = hosts.ask(swarm.paths["task-1"], kind, address_of(2), port, 6)
    assert (names_in(answers), sources_in(answers)) == (set(TASKS), {first.address}), "a task by way of another node"


@pytest.mark.parametrize(("kind", "port"), KINDS)
def test_one_client_port_through_three_nodes_at_once(hosts, kind, port):
    swarm = Swarm(hosts)
    swarm.publish(1, ["task-2"])
    addresses = [address_of(number) for number in NUMBERS]
    for client in (hosts.near, hosts.far):
        answers = hosts.command(client, "collide", kind, 40000, port, *addresses)
        assert len(answers) == 3
        assert names_in(answers) == {"task-2"}


def test_a_draining_task_keeps_its_flows_and_gets_no_new_ones(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, ["task-2"])
    streams = [hosts.hold(hosts.near, "tcp", address_of(number), 8080) for number in NUMBERS]
    datagrams = hosts.hold(hosts.near, "udp", address_of(1), 5353)
    for exchange in (*streams, datagrams):
        assert exchange() == f"task-2 {NEAR_CLIENT}"

    swarm.publish(2, ["task-3"], endpoints=["task-2", "task-3"])
    for stream in streams:
        assert stream() == f"task-2 {NEAR_CLIENT}", "it drains"
    assert datagrams() == f"task-3 {NEAR_CLIENT}", "a UDP flow moves on"
    for number in NUMBERS:
        assert names_in(hosts.ask(hosts.near, "tcp", address_of(number), 8080, 4)) == {"task-3"}

    swarm.drivers[2].call("detach", "task-2")
    assert streams[0]() == "ConnectionResetError", "the node that had the task refuses, by the way it came"
    swarm.publish(3, ["task-3"])
    assert streams[2]() == "ConnectionResetError", "no way leads to it any more"


def test_daemons_killed_and_started_again(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    streams = [hosts.hold(hosts.near, "tcp", address_of(number), 8080) for number in (1, 1, 1, 2, 3)]
    local = hosts.hold(hosts.hosts[1].path, "tcp", "127.0.0.1", 8080)
    before = [exchange() for exchange in (*streams, local)]
    for driver in swarm.drivers.values():
        driver.kill()
    assert [exchange() for exchange in (*streams, local)] == before
    again = {number: hosts.drive(number) for number in NUMBERS}
    assert [exchange() for exchange in (*streams, local)] == before, "flows outlive daemons"
    for number in NUMBERS:
        assert names_in(hosts.ask(hosts.near, "udp", address_of(number), 5353, 6)) == set(TASKS)
    for driver in again.values():
        driver.call("set_ingress", mesh(2, ["task-3"]))
    assert names_in(hosts.ask(hosts.near, "tcp", address_of(1), 8080, 4)) == {"task-3"}
    assert "error" not in hosts.hosts[1].log_path.read_text()


@pytest.mark.parametrize("lost", ["ing0", "sandbox tables", "a neighbour", "the sandbox"])
def test_what_was_lost_while_no_daemon_ran_is_made_again(hosts, lost):
    swarm = Swarm(hosts)
    swarm.publish(1, ["task-2"])
    swarm.drivers[1].kill()
    sandbox = hosts.hosts[1].sandbox
    within = ("nsenter", f"--net={sandbox}")
    if lost == "the sandbox":
        run("ip", "-n", hosts.hosts[1].host, "link", "del", *hosts.links(hosts.hosts[1].path) - {"lo", "eth0"})
        run(*within, "ip", "link", "del", "ing0")
        run("umount", "-l", str(sandbox))
    elif lost == "sandbox tables":
        run(*within, "nft", "flush", "ruleset")
    elif lost == "a neighbour":
        run(*within, "ip", "neigh", "flush", "dev", "ing0", "nud", "permanent")
    else:
        run(*within, "ip", "link", "del", "ing0")
    hosts.drive(1)
    assert names_in(hosts.ask(hosts.far, "tcp", address_of(1), 8080, 2)) == {"task-2"}


def test_nodes_come_and_go_and_change_their_address(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    swarm.drivers[1].call("set_data_path", {"peers": [PEERS[0], PEERS[1]]})
    assert names_in(hosts.ask(hosts.near, "tcp", address_of(1), 8080, 6)) == {"task-1", "task-2"}
    swarm.drivers[1].call("set_data_path", {"peers": [PEERS[0]]})
    assert names_in(hosts.ask(hosts.near, "tcp", address_of(1), 8080, 6)) == {"task-1"}
    assert "ing0" not in hosts.links(hosts.hosts[1].sandbox), "a node alone has no link"
    moved = {"node_number": 3, "address": "10.98.0.99"}
    run("ip", "-n", hosts.hosts[3].host, "addr", "add", "10.98.0.99/24", "dev", "eth0")
    for driver in swarm.drivers.values():
        driver.call("set_data_path", {"peers": [*PEERS[:2], moved]})
    for number in NUMBERS:
        assert names_in(hosts.ask(hosts.near, "tcp", address_of(number), 8080, 6)) == set(TASKS)


def test_policies_and_affinities(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, ["task-1", "task-2"], policy="local")
    assert names_in(hosts.ask(hosts.near, "tcp", address_of(1), 8080, 4)) == {"task-1"}
    assert set(hosts.ask(hosts.near, "tcp", address_of(3), 8080)) == {"ConnectionRefusedError"}
    swarm.publish(2, ["task-1", "task-2"], affinity="prefer-local")
    assert names_in(hosts.ask(hosts.near, "tcp", address_of(1), 8080, 4)) == {"task-1"}
    assert names_in(hosts.ask(hosts.near, "tcp", address_of(3), 8080, 4)) == {"task-1", "task-2"}
    swarm.publish(3, TASKS, affinity="source")
    seen = [names_in(hosts.ask(hosts.near, "tcp", address_of(number), 8080, 4)) for number in NUMBERS]
    assert len(seen[0]) == 1
    assert seen == [seen[0]] * 3, "one task for a client, whichever node it asks"


def test_without_egress_hooks_a_rule_for_every_node(hosts):
    swarm = Swarm(hosts, settings='{"has_egress_hook": false}')
    swarm.publish(1, TASKS)
    for client, address in ((hosts.near, NEAR_CLIENT), (hosts.far, FAR_CLIENT)):
        for number in NUMBERS:
            answers = hosts.ask(client, "tcp", address_of(number), 8080, 6)
            assert (names_in(answers), sources_in(answers)) == (set(TASKS), {address})
    swarm.drivers[1].call("set_data_path", {"peers": PEERS[:2]})
    assert len(rules(hosts.hosts[1].sandbox)) == 1


def rules(sandbox):
    listed = json.loads(run("nsenter", f"--net={sandbox}", "ip", "-j", "rule").stdout)
    return [rule for rule in listed if "fwmark" in rule]


def test_the_way_back_does_not_grow_with_the_nodes(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, ["task-2"])
    crowd = [
        {"node_number": number, "address": f"10.97.{number // 200}.{number % 200 + 1}"} for number in range(4, 204)
    ]
    sandbox = hosts.hosts[2].sandbox
    within = ("nsenter", f"--net={sandbox}")
    counts = []
    for peers in (PEERS, [*PEERS, *crowd]):
        swarm.drivers[2].call("set_data_path", {"peers": peers})
        routes = json.loads(run(*within, "ip", "-j", "route", "show", "table", "all").stdout)
        counts.append(
            (len(rules(sandbox)), len([route for route in routes if route.get("table") == "1000"]), len(routes))
        )
    assert counts[0] == counts[1]
    assert counts[0][:2] == (1, 1)
    neighbours = run(*within, "ip", "neigh", "show", "dev", "ing0").stdout.splitlines()
    assert len(neighbours) == 2 + 200 + 1
    for number in NUMBERS:
        assert set(hosts.ask(hosts.far, "tcp", address_of(number), 8080, 2)) == {f"task-2 {FAR_CLIENT}"}
    swarm.drivers[2].kill()
    text = hosts.ruleset(sandbox)
    hosts.drive(2)
    assert sorted(hosts.ruleset(sandbox).split()) == sorted(text.split()), "nft writes what the batches wrote"
    assert "refused" not in hosts.hosts[2].log_path.read_text()


def test_a_second_daemon_in_one_namespace_serves_its_own_tasks(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    host = hosts.hosts[1]
    second = Host(9, host.host, hosts.root)
    hosts.hosts[9] = second
    driver = hosts.drive(9)
    driver.call("set_node_number", 9)
    driver.call("set_data_path", {"peers": [*PEERS, {"node_number": 9, "address": host.address}]})
    path = driver.attach("task-9", "10.0.0.19")["path"]
    hosts.serve(path, "task-9")
    port = {"protocol": "tcp", "published_port": 8090, "target_port": 80, "service_id": "s", "backends": [
        {"task_id": "task-9", "address": "10.0.0.19", "node_number": 9}, *backends(TASKS)]}  # fmt: skip
    driver.call("set_ingress", {"version": 1, "ports": [port]})
    assert names_in(hosts.ask(hosts.near, "tcp", host.address, 8090, 4)) == {"task-9"}
    log = second.log_path.read_text()
    assert log.count("no mesh between nodes") == 1
    assert "a VXLAN with identifier 4096 on UDP port 4789 exists already" in log
    swarm.drivers[1].call("close", True)
    driver.call("set_data_path", {"peers": [PEERS[1], PEERS[2], {"node_number": 9, "address": host.address}]})
    assert "ing0" in hosts.links(second.sandbox), "it takes the identifier once that is free"


def test_nothing_is_left_after_removal(hosts):
    before = {number: hosts.links(host.path) for number, host in hosts.hosts.items()}
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    for number, host in hosts.hosts.items():
        swarm.drivers[number].call("close", True)
        assert list(host.exec_root.iterdir()) == []
        assert hosts.ruleset(host.path) == ""
        deadline = time.monotonic() + 10
        while hosts.links(host.path) != before[number]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    for number, host in hosts.hosts.items():
        again = hosts.drive(number)
        again.call("set_node_number", number)
        again.call("set_data_path", {"peers": PEERS})
        assert "ing0" in hosts.links(host.sandbox), "the VXLAN's identifier is free at once"
