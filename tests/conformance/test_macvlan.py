"""Networks on a link of the host: macvlan, configuration networks, and networks of the swarm that each node makes."""

import json
import subprocess

import pytest

from tests.system.daemon import running_daemon, wait_for
from tests.system.left import left_on_machine

pytestmark = pytest.mark.root

RANGE = ("--subnet", "10.88.0.0/24", "--ip-range", "10.88.0.128/25")
SUBNET = (*RANGE, "--gateway", "10.88.0.1", "--aux-address", "printer=10.88.0.9")
SUBNET_6 = ("--ipv6", "--subnet", "fd88::/64", "--gateway", "fd88::1")
LOCAL = ("--no-resolve-image", "--stop-grace-period", "0s", "-d")


@pytest.fixture(scope="module")
def daemon():
    """A node with a link to a network outside, where a router has 10.88.0.1 and knows 10.99.0.1 behind it."""
    with running_daemon() as daemon:
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        daemon.import_busybox()
        outside = f"{daemon.netns}-lan"
        subprocess.run(["ip", "netns", "add", outside], check=True)
        try:
            pair = ("link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", outside)
            subprocess.run(["ip", "-n", daemon.netns, *pair], check=True)
            subprocess.run(["ip", "-n", daemon.netns, "link", "set", "lan0", "up"], check=True)
            for words in (
                ("link", "set", "lo", "up"),
                ("link", "set", "lan0", "up"),
                ("addr", "add", "10.88.0.1/24", "dev", "lan0"),
                ("addr", "add", "10.99.0.1/32", "dev", "lo"),
                ("addr", "add", "fd88::1/64", "dev", "lan0", "nodad"),
                ("addr", "add", "fd99::1/128", "dev", "lo", "nodad"),
            ):
                subprocess.run(["ip", "-n", outside, *words], check=True)
            yield daemon
            assert daemon.stop() == 0
        finally:
            subprocess.run(["ip", "netns", "del", outside], check=True)
        assert left_on_machine(daemon_id, daemon.root) == []


def reaches(daemon, container, address):
    return daemon.docker("exec", container, "ping", "-c", "1", "-W", "2", address, check=False).returncode == 0


def test_a_container_is_on_the_link_itself(daemon):
    docker = daemon.docker
    docker("network", "create", "-d", "macvlan", *SUBNET, *SUBNET_6, "-o", "parent=lan0", "lan")
    shown = json.loads(docker("network", "inspect", "lan").stdout)[0]
    assert (shown["Driver"], shown["Scope"], shown["Options"]) == ("macvlan", "local", {"parent": "lan0"})
    pools = {pool["Subnet"]: pool for pool in shown["IPAM"]["Config"]}
    assert pools["10.88.0.0/24"]["AuxiliaryAddresses"] == {"printer": "10.88.0.9"}

    docker("run", "-d", "--stop-timeout", "0", "--network", "lan", "--name", "one", "busybox", "sleep", "1000")
    serve = ("busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    docker("run", "-d", "--stop-timeout", "0", "--network", "lan", "--ip", "10.88.0.77", "--name", "two", *serve)
    # the router's, what lies behind it, and each other by name
    assert reaches(daemon, "one", "10.88.0.1")
    assert reaches(daemon, "one", "10.99.0.1")
    assert reaches(daemon, "one", "fd99::1")
    assert "Address: 10.88.0.77" in docker("exec", "one", "nslookup", "two").stdout
    assert reaches(daemon, "one", "two")
    answer = subprocess.run(
        ["nsenter", f"--net=/run/netns/{daemon.netns}-lan", "curl", "-sS", "--max-time", "5", "http://10.88.0.77/"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert answer.stdout
    refused = docker("run", "--rm", "--network", "lan", "--ip", "10.88.0.9", "busybox", "true", check=False)
    assert "Address already in use: 10.88.0.9" in refused.stderr
    assert docker("network", "rm", "lan", check=False).returncode == 1


def test_a_container_on_a_bridge_as_well_answers_on_both(daemon):
    docker = daemon.docker
    docker("network", "create", "back")
    serve = ("busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    docker("run", "-d", "--stop-timeout", "0", "--network", "lan", "-p", "8088:80", "--name", "both", *serve)
    # its way out is the router's; what comes in by the published port goes out there
    assert reaches(daemon, "both", "10.99.0.1")
    assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8088/").stdout
    # by the order of names `back` leads out, which knows no way to the router's network
    docker("network", "connect", "back", "both")
    assert "default via 169.254.1.1" in docker("exec", "both", "ip", "route").stdout
    assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8088/").stdout
    docker("network", "disconnect", "back", "both")
    docker("network", "connect", "--gw-priority", "-1", "back", "both")
    assert "default via 10.88.0.1" in docker("exec", "both", "ip", "route").stdout
    docker("network", "disconnect", "back", "both")
    daemon.kill()
    daemon.start()
    assert "default via 10.88.0.1" in docker("exec", "both", "ip", "route").stdout
    assert reaches(daemon, "both", "10.99.0.1")
    assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8088/").stdout


def test_one_without_a_parent_leads_nowhere(daemon):
    docker = daemon.docker
    docker("network", "create", "-d", "macvlan", "island")
    for name in ("robin", "friday"):
        docker("run", "-d", "--stop-timeout", "0", "--network", "island", "--name", name, "busybox", "sleep", "1000")
    assert reaches(daemon, "robin", "friday")
    assert "default" not in docker("exec", "robin", "ip", "route").stdout
    # with a second network it has a way out, and without it none again
    docker("network", "connect", "back", "robin")
    assert "default via 169.254.1.1" in docker("exec", "robin", "ip", "route").stdout
    docker("network", "disconnect", "back", "robin")
    assert "default" not in docker("exec", "robin", "ip", "route").stdout
    docker("rm", "-f", "robin", "friday", "one", "two", "both")
    docker("network", "rm", "island", "lan", "back")


def test_a_network_of_the_swarm_that_each_node_makes(daemon):
    docker = daemon.docker
    docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    scope = ("network", "create", "--scope", "swarm", "--attachable")
    docker(*scope, "-d", "macvlan", "--config-from", "lan-config", "lan")
    docker("service", "create", *LOCAL, "--name", "web", "--network", "name=lan,alias=site", "busybox", "sleep", "1000")
    shown = ("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "web")
    text = 'configuration network "lan-config" does not exist on this node'
    wait_for(lambda: [line for line in docker(*shown).stdout.splitlines() if "Rejected" in line and text in line], text)
    docker("service", "rm", "web")

    daemon.shoal("network", "create", "--config-only", *SUBNET, "-o", "parent=lan0", "--label", "a=b", "lan-config")
    held = json.loads(docker("network", "inspect", "lan-config").stdout)[0]
    assert (held["ConfigOnly"], held["Driver"], held["Scope"]) == (True, "null", "local")
    assert held["IPAM"]["Config"][0]["Gateway"] == "10.88.0.1"
    refused = docker("run", "--rm", "--network", "lan-config", "busybox", "true", check=False)
    assert "configuration network lan-config holds no containers" in refused.stderr

    option = "com.docker.network.endpoint"
    odd = (*LOCAL, "--detach", "--name", "odd", "--replicas", "0", "--network", f"name=lan,driver-opt={option}.x=y")
    warned = docker("service", "create", *odd, "busybox")
    assert f"driver option {option}.x means nothing here" in warned.stderr
    docker("service", "rm", "odd")
    network = f"name=lan,alias=site,driver-opt={option}.ifname=lan0"
    words = ("--name", "web", "--replicas", "2", "--network", network, "-p", "8090:80")
    docker("service", "create", *LOCAL, *words, "busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    count = ("service", "ls", "--format", "{{.Replicas}}")
    wait_for(lambda: docker(*count).stdout.strip() == "2/2", "both tasks run", 20)
    docker("run", "-d", "--stop-timeout", "0", "--network", "lan", "--name", "plain", "busybox", "sleep", "1000")
    for name in ("web", "site", "tasks.web"):
        assert docker("exec", "plain", "nslookup", name).stdout.count("Address: 10.88.0.") == 2, name
    assert reaches(daemon, "plain", "10.99.0.1")
    (task, _) = docker("ps", "-q", "--filter", "name=web").stdout.split()
    assert "lan0@" in docker("exec", task, "ip", "link").stdout
    assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8090/").stdout
    shown = json.loads(docker("network", "inspect", "lan").stdout)[0]
    assert (shown["Scope"], shown["Driver"], shown["ConfigFrom"]) == ("swarm", "macvlan", {"Network": "lan-config"})
    assert (len(shown["Containers"]), shown["IPAM"]["Config"][0]["Subnet"]) == (3, "10.88.0.0/24")
    assert docker("network", "ls", "--filter", "name=^lan$", "-q").stdout.count("\n") <= 1

    daemon.kill()
    daemon.start()
    assert docker("exec", "plain", "nslookup", "site").stdout.count("Address: 10.88.0.") == 2
    refused = docker("network", "rm", "lan-config", check=False)
    assert 'configuration network "lan-config" is in use' in refused.stderr
    docker("service", "rm", "web")
    assert "in use by container plain" in docker("network", "rm", "lan", check=False).stderr
    docker("rm", "-f", "plain")
    docker("network", "rm", "lan")
    # the node lets go of its copy when its last task has gone
    wait_for(lambda: docker("network", "rm", "lan-config", check=False).returncode == 0, "the configuration is free")

    docker(*scope, "-d", "bridge", "yard")
    docker("run", "-d", "--stop-timeout", "0", "--network", "yard", "--name", "dog", "busybox", "sleep", "1000")
    assert "default via" in docker("exec", "dog", "ip", "route").stdout
    docker("swarm", "leave", "--force")
    assert docker("network", "ls", "-q", "--filter", "type=custom").stdout == ""
    assert docker("inspect", "-f", "{{.State.Status}}", "dog").stdout.strip() == "running"
    docker("rm", "-f", "dog")
