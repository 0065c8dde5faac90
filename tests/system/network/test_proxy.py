"""Published ports on IPv6, through the proxy process."""

import fcntl
import json
import os
import signal
import time

import pytest

from tests.system.network.place import host_port
from tests.system.network.test_mesh import KINDS, TASKS, Swarm, mesh, names_in
from tests.system.network.three_hosts import NUMBERS, address_6_of

pytestmark = pytest.mark.root

WAIT_SECONDS = 20


def wait_for(condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def answers(hosts, kind, port, address="::1", number=1):
    return names_in(hosts.ask(hosts.hosts[number].path, kind, address, port))


def proxy_pid(host):
    """The process that holds the lock, 0 if none does."""
    try:
        with (host.exec_root / "network" / "proxy.lock").open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # whoever has just taken it has not written yet who it is
                return int((lock.read().split() or ["0"])[0])
    except FileNotFoundError:
        pass
    return 0


@pytest.mark.parametrize(("kind", "port"), KINDS)
def test_every_node_answers_on_ipv6(hosts, kind, port):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    for number in NUMBERS:
        wait_for(lambda number=number: answers(hosts, kind, port, number=number) <= set(TASKS), "the proxy")
        for address in ("::1", address_6_of(number)):
            assert names_in(hosts.ask(hosts.hosts[number].path, kind, address, port, 6)) == set(TASKS)
        assert names_in(hosts.ask(hosts.near, kind, address_6_of(number), port, 6)) == set(TASKS)
    assert names_in(hosts.ask(hosts.near, kind, "10.98.0.11", port, 6)) == set(TASKS), "IPv4 as ever"


def test_flows_outlive_the_daemon_and_ports_follow(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, ["task-2"])
    driver = swarm.drivers[1]
    driver.attach("task-h", None, [host_port("tcp", 9000, 80)])
    hosts.serve(driver.attach("task-h", None, [host_port("tcp", 9000, 80)])["path"], "task-h")
    wait_for(lambda: answers(hosts, "tcp", 9000) == {"task-h"}, "a host port")
    stream = hosts.hold(hosts.near, "tcp", address_6_of(1), 8080)
    datagrams = hosts.hold(hosts.near, "udp", address_6_of(1), 5353)
    said = stream()
    assert said.startswith("task-2 ")
    assert datagrams().startswith("task-2 ")
    pid = proxy_pid(hosts.hosts[1])
    driver.kill()
    assert stream() == said
    driver = hosts.drive(1)
    driver.call("set_ingress", mesh(2, ["task-3"], endpoints=["task-2", "task-3"]))
    assert proxy_pid(hosts.hosts[1]) == pid, "the same process serves on"
    assert stream() == said, "it drains"
    assert datagrams().startswith("task-3 ")
    assert answers(hosts, "tcp", 8080) == {"task-3"}
    driver.call("set_ingress", {"version": 3})
    wait_for(lambda: answers(hosts, "tcp", 8080) == {"ConnectionRefusedError"}, "nobody listens")
    driver.call("detach", "task-h")
    wait_for(lambda: answers(hosts, "tcp", 9000) == {"ConnectionRefusedError"}, "nobody listens")


def test_a_killed_proxy_comes_again_and_removal_ends_it(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    host, driver = hosts.hosts[1], swarm.drivers[1]
    wait_for(lambda: answers(hosts, "tcp", 8080) <= set(TASKS), "the proxy")
    first = proxy_pid(host)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: proxy_pid(host) not in (0, first), "another proxy")
    wait_for(lambda: answers(hosts, "tcp", 8080) <= set(TASKS), "the proxy")
    driver.call("close", True)
    assert proxy_pid(host) == 0
    assert not host.exec_root.exists() or list(host.exec_root.iterdir()) == []


def test_a_port_in_use_is_named_and_served_once_it_is_free(hosts):
    swarm = Swarm(hosts)
    host = hosts.hosts[1]
    taken = hosts.start(host.path, "listen6", 8080)
    assert taken.stdout.readline() == "ready\n"
    swarm.publish(1, TASKS)
    log = host.exec_root / "network" / "proxy.log"
    wait_for(lambda: log.exists() and "[::]:8080/tcp is not served: " in log.read_text(), "a complaint")
    assert answers(hosts, "udp", 5353) <= set(TASKS), "the other port is served"
    hosts.stop(taken)
    wait_for(lambda: answers(hosts, "tcp", 8080) <= set(TASKS), "the port that is free now")


def test_another_version_takes_over_and_the_first_drains(hosts):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    host, driver = hosts.hosts[1], swarm.drivers[1]
    wait_for(lambda: answers(hosts, "tcp", 8080) <= set(TASKS), "the proxy")
    stream = hosts.hold(hosts.near, "tcp", address_6_of(1), 8080)
    said, first = stream(), proxy_pid(host)
    driver.kill()
    wanted = host.exec_root / "network" / "proxy.json"
    value = json.loads(wanted.read_text())
    wanted.write_text(json.dumps(value | {"version": "0.0.1"}))
    wait_for(lambda: proxy_pid(host) == 0, "the first lets go")
    assert stream() == said
    hosts.drive(1)
    wait_for(lambda: proxy_pid(host) not in (0, first), "the second")
    assert stream() == said, "the first serves its connections to the end"
    wait_for(lambda: answers(hosts, "tcp", 8080) <= set(TASKS), "the second answers")
