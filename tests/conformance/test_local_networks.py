"""Networks of one node: `docker network create NAME`, without a swarm and in one."""

import json

import pytest

from tests.system.daemon import running_daemon
from tests.system.left import left_on_machine

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def daemon():
    with running_daemon() as daemon:
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        daemon.import_busybox()
        yield daemon
        assert daemon.stop() == 0
        assert left_on_machine(daemon_id, daemon.root) == []


def run(daemon, name, *words):
    daemon.docker("run", "-d", "--stop-timeout", "0", "--name", name, *words)


def inside(daemon, name, *words, **keywords):
    return daemon.docker("exec", name, *words, **keywords)


def test_containers_of_a_network_find_each_other_by_name(daemon):
    docker = daemon.docker
    network_id = docker("network", "create", "--label", "a=b", "back").stdout.strip()
    assert len(network_id) == 64
    docker("network", "create", "--subnet", "10.77.0.0/24", "--internal", "sealed")
    again = docker("network", "create", "back", check=False)
    assert again.returncode == 1
    assert "network with name back already exists" in again.stderr
    overlap = docker("network", "create", "--subnet", "10.77.0.0/25", "other", check=False)
    assert "Pool overlaps with other one on this address space" in overlap.stderr
    listed = docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").stdout.splitlines()
    assert {"back bridge local", "sealed bridge local"} <= set(listed)

    serve = ("busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    run(daemon, "web", "--network", "back", "--network-alias", "site", "-p", "8099:80", *serve)
    run(daemon, "client", "--network", "back", "busybox", "sleep", "1000")
    run(daemon, "vault", "--network", "sealed", "--ip", "10.77.0.9", "busybox", "sleep", "1000")
    for name in ("web", "site"):
        assert "Address: 172." in inside(daemon, "client", "nslookup", name).stdout, name
    address = docker("inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", "web").stdout.strip()
    answer = docker("exec", "-i", "client", "nc", address, "80", input="GET / HTTP/1.0\r\n\r\n").stdout
    assert answer.startswith("HTTP/1")
    assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8099/").stdout
    shown = json.loads(docker("network", "inspect", "back").stdout)[0]
    assert shown["Labels"] == {"a": "b"}
    assert {each["Name"] for each in shown["Containers"].values()} == {"web", "client"}
    # another network is another world, until one is put on both
    assert inside(daemon, "vault", "nslookup", "web", check=False).returncode != 0
    docker("network", "connect", "sealed", "client")
    assert "Address: 10.77.0.9" in inside(daemon, "client", "nslookup", "vault").stdout
    assert inside(daemon, "vault", "ip", "route").stdout.startswith("10.77.0.0/24")
    docker("network", "disconnect", "sealed", "client")
    assert inside(daemon, "client", "nslookup", "vault", check=False).returncode != 0

    in_use = docker("network", "rm", "back", check=False)
    assert f"network back id {network_id} has active endpoints: client, web" in in_use.stderr


def test_they_outlive_the_daemon_and_a_swarm(daemon):
    address = daemon.docker("inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", "web").stdout
    daemon.kill()
    daemon.start()
    assert daemon.docker("inspect", "-f", "{{.NetworkSettings.Networks.back.IPAddress}}", "web").stdout == address
    daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    daemon.docker("network", "create", "-d", "overlay", "--attachable", "wide")
    daemon.docker("network", "connect", "wide", "web")
    assert "Address: 172." in inside(daemon, "client", "nslookup", "web").stdout
    create = ("service", "create", "-d", "--no-resolve-image", "--network", "back", "busybox")
    refused = daemon.docker(*create, check=False)
    assert refused.returncode == 1
    daemon.docker("network", "disconnect", "wide", "web")
    daemon.docker("swarm", "leave", "--force")
    run(daemon, "late", "--network", "back", "busybox", "sleep", "1000")
    assert "Address: 172." in inside(daemon, "late", "nslookup", "web").stdout
    daemon.docker("rm", "-f", "web", "client", "vault", "late")
    daemon.docker("network", "rm", "back", "sealed")
    assert daemon.docker("network", "ls", "-q", "--filter", "type=custom").stdout == ""


def test_what_is_not_built_is_refused_by_name(daemon):
    for words, text in (
        (("-d", "ipvlan", "lan"), 'networks with the driver "ipvlan" are not built'),
        (("-d", "macvlan", "-o", "parent=nosuch0", "lan"), "Options: this node has no link nosuch0"),
        (("--config-from", "nosuch", "lan"), 'configuration network "nosuch" does not exist on this node'),
        (("-o", "com.docker.network.bridge.name=br9", "named"), "Options: com.docker.network.bridge.name=br9"),
        (("-d", "nosuch", "net"), 'plugin "nosuch" not found'),
        (("bridge",), "operation is not permitted on predefined bridge network"),
    ):
        refused = daemon.docker("network", "create", *words, check=False)
        assert refused.returncode == 1, words
        assert text in refused.stderr, words
