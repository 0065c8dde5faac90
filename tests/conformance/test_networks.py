"""Networks of the swarm through the stock docker command: made, shown, used by services, refused, removed."""

import json
import re

import pytest

from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

SERVE = "hostname > /www/index.html; exec httpd -f -p 80 -h /www"
LOCAL = ("--no-resolve-image", "--stop-grace-period", "0s")


@pytest.fixture(autouse=True)
def clean(daemon, docker):
    yield
    services = docker("service", "ls", "-q").split()
    if services:
        docker("service", "rm", *services)
    wait_for(lambda: docker("ps", "-aq") == "", "no container")
    docker("network", "prune", "--force")
    assert docker("network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}") == "ingress\n"


def create(docker, name, *words):
    docker("service", "create", *LOCAL, "-d", "--name", name, *words)
    wait_for(lambda: f"{name} 1/1" in docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}"), f"{name} runs")
    return docker("ps", "-q", "--no-trunc", "--filter", f"name={name}.1").strip()


def inside(docker, container, *words):
    return docker("exec", container, *words, check=False).strip()


def resolve(docker, container, name):
    """Return the addresses of a name, as a container is told them."""
    answer = inside(docker, container, "nslookup", name).partition("Non-authoritative answer:")[2]
    return re.findall(r"^Address: (\S+)", answer, re.MULTILINE)


def fetch(docker, container, address):
    # not wget -T, at which a static busybox stumbles
    request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80 | tail -n 1"
    return inside(docker, container, "sh", "-c", request)


def ask(docker, container, name):
    """Fetch from a name: a static busybox, which has no NSS, cannot do both at once."""
    (address,) = resolve(docker, container, name)
    return fetch(docker, container, address)


def test_made_shown_and_removed(docker):
    made = docker(
        *("network", "create", "-d", "overlay", "--attachable", "--label", "a=b", "--subnet", "10.50.0.0/16"),
        *("--gateway", "10.50.0.9", "--ip-range", "10.50.5.0/24", "--aux-address", "router=10.50.5.7"),
        *("--opt", "com.docker.network.driver.mtu=1400", "front"),
    ).strip()
    assert len(made) == 25
    shown = json.loads(docker("network", "inspect", "front"))[0]
    assert (shown["Id"], shown["Name"], shown["Driver"], shown["Scope"]) == (made, "front", "overlay", "swarm")
    assert (shown["Attachable"], shown["Internal"], shown["Ingress"], shown["Labels"]) == (
        True,
        False,
        False,
        {"a": "b"},
    )
    assert shown["IPAM"]["Config"] == [
        {
            "Subnet": "10.50.0.0/16",
            "IPRange": "10.50.5.0/24",
            "Gateway": "10.50.0.9",
            "AuxiliaryAddresses": {"router": "10.50.5.7"},
        }
    ]
    assert shown["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert int(shown["Options"]["com.docker.network.driver.overlay.vxlanid_list"]) > 4096
    assert docker("network", "ls", "--filter", "label=a", "--format", "{{.Name}} {{.Driver}} {{.Scope}}") == (
        "front overlay swarm\n"
    )
    assert docker("network", "rm", "front") == "front\n"
    assert "network front not found" in docker("network", "rm", "front", check=False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-d", "overlay", "ingress"), "network with name ingress already exists"),
        (("-d", "overlay", "host"), "operation is not permitted on predefined host network"),
        (("-d", "overlay", "--subnet", "10.0.0.0/16", "wide"), "Pool overlaps with other one on this address space"),
        (("-d", "overlay", "--ingress", "second"), "is already present"),
        (("-d", "overlay", "--opt", "com.docker.network.driver.mtu=x", "odd"), "no number"),
        (("-d", "nosuch", "--scope", "swarm", "odd"), 'plugin "nosuch" not found'),
    ],
)
def test_what_is_refused(docker, words, text):
    assert text in docker("network", "create", *words, check=False)


def test_services_reach_each_other_by_name_within_their_networks(docker):
    for name in ("front", "back"):
        docker("network", "create", "-d", "overlay", name)
    docker("network", "create", "-d", "overlay", "--internal", "inner")
    web = create(docker, "web", "--network", "name=front,alias=www", "--network", "back", "busybox", "sh", "-c", SERVE)
    client = create(docker, "client", "--network", "front", "busybox", "sleep", "1000")
    stranger = create(docker, "stranger", "--network", "inner", "busybox", "sleep", "1000")
    ports = create(docker, "ports", "--network", "inner", "busybox", "sh", "-c", SERVE)
    for name in ("web", "www", "tasks.web", "tasks.www"):
        assert ask(docker, client, name) == web[:12], name
    task = docker("service", "ps", "-q", "--no-trunc", "web").strip()
    assert ask(docker, client, f"web.1.{task}") == web[:12]
    assert ask(docker, web, "web") == web[:12], "a task reaches itself by its service's address"
    assert resolve(docker, stranger, "web") == []
    service = json.loads(docker("service", "inspect", "web"))[0]
    addresses = {ip["NetworkID"]: ip["Addr"].partition("/")[0] for ip in service["Endpoint"]["VirtualIPs"]}
    assert len(addresses) == 2
    front = json.loads(docker("network", "inspect", "-v", "front"))[0]
    assert front["Services"]["web"]["VIP"] == addresses[front["Id"]]
    assert [task["Name"] for task in front["Services"]["web"]["Tasks"]] == [f"web.1.{task}"]
    assert set(front["Containers"]) == {web, client}
    assert len(front["Peers"]) == 1
    for address in addresses.values():
        assert fetch(docker, stranger, address) == ""
    assert ask(docker, stranger, "ports") == ports[:12]
    assert "default" not in inside(docker, stranger, "ip", "route"), "an internal network leads nowhere else"
    shown = json.loads(docker("inspect", web))[0]["NetworkSettings"]["Networks"]
    assert {name: each["NetworkID"] for name, each in shown.items()}["front"] == front["Id"]
    assert shown["front"]["IPAddress"] == front["Containers"][web]["IPv4Address"].partition("/")[0]
    assert resolve(docker, client, web[:12]) == [shown["front"]["IPAddress"]], "a host name leads to its container"
    assert "is in use by service client, web" in docker("network", "rm", "front", check=False)


def test_round_robin_by_names_has_no_virtual_address(docker):
    docker("network", "create", "-d", "overlay", "front")
    rr = create(docker, "rr", "--network", "front", "--endpoint-mode", "dnsrr", "busybox", "sh", "-c", SERVE)
    client = create(docker, "client", "--network", "front", "busybox", "sleep", "1000")
    assert json.loads(docker("service", "inspect", "rr"))[0]["Endpoint"].get("VirtualIPs") is None
    assert ask(docker, client, "rr") == ask(docker, client, "tasks.rr") == rr[:12]
    docker("service", "scale", "-d", "rr=0")
    wait_for(lambda: resolve(docker, client, "rr") == [], "the name is gone with its task")


def test_networks_that_every_node_has(docker):
    host = create(docker, "host", "--network", "host", "busybox", "sleep", "1000")
    assert "lo" in inside(docker, host, "ip", "-o", "link")
    own = inside(docker, host, "readlink", "/proc/self/ns/net")
    none = create(docker, "none", "--network", "none", "busybox", "sleep", "1000")
    assert inside(docker, none, "ls", "/sys/class/net") == "lo"
    bridge = create(docker, "bridge", "--network", "bridge", "busybox", "sleep", "1000")
    assert "default" in inside(docker, bridge, "ip", "route")
    assert own != inside(docker, bridge, "readlink", "/proc/self/ns/net")
