"""Networks of one node: `docker network create NAME`, without a swarm and in one."""

import json

import pytest

from tests.system.daemon import running_daemon, wait_for
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


@pytest.mark.parametrize(
    ("flag", "value", "text"),
    [
        ("--link", "web:site", "EndpointConfig.Links is not built: containers of a network find each other by name"),
        ("--link-local-ip", "169.254.7.7", "EndpointConfig.IPAMConfig.LinkLocalIPs is not built: ask for an address"),
    ],
)
def test_flags_of_connect_that_are_refused(daemon, flag, value, text):
    """Docker's other two flags of its swarm commands: who gives them is told what to do, and nothing is changed."""
    refused = daemon.docker("network", "connect", flag, value, "sealed", "web", check=False)
    assert text in refused.stderr
    networks = daemon.docker("inspect", "-f", "{{json .NetworkSettings.Networks}}", "web").stdout
    assert set(json.loads(networks)) == {"back"}


def test_options_of_one_link(daemon):
    docker, option = daemon.docker, "com.docker.network.endpoint"
    sysctls = f"driver-opt={option}.sysctls=net.ipv4.conf.IFNAME.log_martians=1"
    network = f'name=sealed,driver-opt={option}.ifname=inner,"{sysctls}"'
    run(daemon, "named", "--network", network, "busybox", "sleep", "1000")
    assert inside(daemon, "named", "cat", "/proc/sys/net/ipv4/conf/inner/log_martians").stdout == "1\n"
    connect = ("network", "connect", "--driver-opt", f"{option}.ifname=inner", "back", "named")
    assert "two links of a container cannot both be inner" in docker(*connect, check=False).stderr
    docker("network", "connect", "--driver-opt", f"{option}.ifname=outer", "back", "named")
    assert inside(daemon, "named", "ip", "addr", "show", "outer").stdout.count("inet 172.") == 1
    shown = json.loads(docker("inspect", "named").stdout)[0]["NetworkSettings"]["Networks"]
    assert shown["back"]["DriverOpts"] == {f"{option}.ifname": "outer"}
    docker("rm", "-f", "named")
    bad = f"name=bridge,driver-opt={option}.sysctls=net.ipv4.conf.IFNAME.nosuch=1"
    refused = docker("run", "--rm", "--network", bad, "busybox", "true", check=False)
    assert "does not take the setting net.ipv4.conf.eth0.nosuch=1" in refused.stderr
    good = f"name=bridge,driver-opt={option}.ifname=way0"
    assert "way0@" in docker("run", "--rm", "--network", good, "busybox", "ip", "link").stdout


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


def test_the_way_out_is_as_it_was_asked_for(daemon):
    docker = daemon.docker
    create = ("network", "create", "--subnet", "10.66.0.0/24", "--gateway", "10.66.0.9", "--ip-range", "10.66.0.128/25")
    options = ("-o", "com.docker.network.bridge.enable_icc=false", "-o", "com.docker.network.driver.mtu=1300")
    for words, text in (
        (("-o", "com.docker.network.bridge.enable_icc=true"), "com.docker.network.bridge.enable_icc=true of docker_gw"),
        (("--internal",), "Internal of docker_gwbridge is not built"),
        (("--ipv6",), "EnableIPv6 of docker_gwbridge is not built"),
    ):
        assert text in docker(*create, *words, "docker_gwbridge", check=False).stderr, words
    run(daemon, "early", "busybox", "sleep", "1000")
    assert "docker_gwbridge has active endpoints" in docker(*create, "docker_gwbridge", check=False).stderr
    docker("rm", "-f", "early")
    assert "docker_gwbridge" not in docker("network", "ls").stdout
    docker(*create, *options, "docker_gwbridge")
    daemon.kill()
    daemon.start()
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    assert "already exists" in docker("network", "create", "docker_gwbridge", check=False).stderr
    shown = json.loads(docker("network", "inspect", "docker_gwbridge").stdout)
    pool = {"Subnet": "10.66.0.0/24", "Gateway": "10.66.0.9", "IPRange": "10.66.0.128/25"}
    assert [network["IPAM"]["Config"] for network in shown] == [[pool]]
    words = ("--no-resolve-image", "-d", "--stop-grace-period", "0s", "--name", "web", "-p", "8077:80")
    docker("service", "create", *words, "busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    wait_for(lambda: "1/1" in docker("service", "ls").stdout, "the task runs")
    assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8077/").stdout
    run(daemon, "plain", "-p", "8078:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    assert docker("exec", "plain", "ip", "route").stdout.startswith("default via 10.66.0.9")
    link = docker("exec", "plain", "ip", "addr", "show", "eth0").stdout
    assert " mtu 1300 " in link
    assert "inet 10.66.0.1" in link
    assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8078/").stdout
    assert "has active endpoints" in docker("network", "rm", "docker_gwbridge", check=False).stderr
    docker("rm", "-f", "plain")
    docker("swarm", "leave", "--force")
    docker("network", "rm", "docker_gwbridge")
    assert docker("network", "ls", "-q", "--filter", "type=custom").stdout == ""
