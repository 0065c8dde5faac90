"""What programs that watch a swarm ask, request by request, and the fields they read.

The lists follow the public sources: Traefik's provider "swarm", Prometheus' `dockerswarm_sd`, Portainer's snapshot and
its pages, Terraform's provider "docker".
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.system.daemon import running_daemon

pytestmark = pytest.mark.root

VERSION = "/v1.44"


@pytest.fixture(scope="module")
def daemon():
    with running_daemon() as daemon:
        daemon.import_busybox()
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        daemon.docker("network", "create", "-d", "overlay", "front")
        daemon.docker(
            "service", "create", "--no-resolve-image", "--name", "web", "--network", "front", "--publish", "8080:80",
            "--label", "traefik.enable=true", "--container-label", "team=web", "--stop-grace-period", "0s",
            "--update-monitor", "100ms", "--quiet", "busybox", "sleep", "1000",
        )  # fmt: skip
        yield daemon


def ask(daemon, path: str, filters: dict[str, Any] | None = None) -> Any:
    """Return the decoded answer; `filters` as Go's client writes them."""
    query = f"?filters={quote(json.dumps(filters))}" if filters is not None else ""
    status, answer = daemon.request("GET", f"{VERSION}{path}{query}")
    assert status == 200, (path, status, answer)
    return answer


def filter_of(**values: str) -> dict[str, dict[str, bool]]:
    return {key.replace("_", "-"): {value: True} for key, value in values.items()}


def test_traefik(daemon):
    assert daemon.request("GET", "/_ping")[0] == 200
    assert tuple(map(int, ask(daemon, "/version")["ApiVersion"].split("."))) >= (1, 29)
    networks = {network["Id"]: network for network in ask(daemon, "/networks", filter_of(scope="swarm"))}
    (service,) = ask(daemon, "/services")
    assert service["Spec"]["Labels"] == {"traefik.enable": "true"}
    assert service["Spec"]["EndpointSpec"]["Mode"] == "vip"
    places = {networks[place["NetworkID"]]["Name"]: place["Addr"] for place in service["Endpoint"]["VirtualIPs"]}
    assert set(places) == {"ingress", "front"}
    assert all("/" in address for address in places.values())
    (task,) = ask(daemon, "/tasks", filter_of(service=service["ID"], desired_state="running"))
    assert (task["Status"]["State"], task["Slot"]) == ("running", 1)
    assert ask(daemon, f"/nodes/{task['NodeID']}")["Status"]["Addr"] == "127.0.0.1"
    attached = {networks[place["Network"]["ID"]]["Name"] for place in task["NetworksAttachments"] if place["Addresses"]}
    assert attached == {"ingress", "front"}


def test_prometheus(daemon):
    (node,) = ask(daemon, "/nodes", {})
    read = (
        ("Description", "Hostname"),
        ("Description", "Platform", "OS"),
        ("Description", "Engine", "EngineVersion"),
        ("Status", "Addr"),
        ("Spec", "Role"),
        ("Spec", "Availability"),
        ("ManagerStatus", "Addr"),
    )
    for path in read:
        value = node
        for key in path:
            value = value[key]
        assert value, path
    (service,) = ask(daemon, "/services", filter_of(name="web"))
    assert [port["PublishedPort"] for port in service["Endpoint"]["Ports"]] == [8080]
    assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"].startswith("busybox")
    (task,) = ask(daemon, "/tasks", filter_of(desired_state="running"))
    assert task["Spec"]["ContainerSpec"]["Labels"] == {"team": "web"}
    assert task["Status"]["PortStatus"] == {}
    container = ask(daemon, f"/containers/{task['Status']['ContainerStatus']['ContainerID']}/json")
    assert container["Config"]["Labels"]["team"] == "web"
    assert {network["Name"] for network in ask(daemon, "/networks", {})} >= {"ingress", "front", "bridge"}


def test_portainer(daemon):
    info = ask(daemon, "/info")
    assert info["Swarm"]["ControlAvailable"] is True
    assert info["Swarm"]["Cluster"]["Spec"]["Name"] == "default"
    assert ask(daemon, "/nodes")[0]["Description"]["Resources"]["NanoCPUs"] > 0
    assert [container["State"] for container in ask(daemon, "/containers/json?all=1")] == ["running"]
    assert ask(daemon, "/images/json?all=0")[0]["RepoTags"] == ["busybox:latest"]
    assert ask(daemon, "/volumes")["Volumes"] is not None
    for path in (
        "/swarm",
        "/services?status=true",
        "/tasks",
        "/secrets",
        "/configs",
        "/networks",
        "/version",
        "/plugins",
    ):
        ask(daemon, path)
    assert ask(daemon, "/system/df")["Images"]
    events = ask(daemon, "/events?since=0&until=1")
    assert events == ""
    (service,) = ask(daemon, "/services")
    status, _ = daemon.request(
        "POST", f"{VERSION}/services/{service['ID']}/update?version={service['Version']['Index']}", service["Spec"]
    )
    assert status == 200, "what was read is written back, as its pages do"


def test_terraform(daemon):
    (service,) = ask(daemon, "/services", filter_of(name="web"))
    again = ask(daemon, f"/services/{service['ID']}?insertDefaults=false")
    assert again["Spec"]["Name"] == "web"
    tasks = ask(daemon, "/tasks", filter_of(service=service["ID"], desired_state="running"))
    assert {task["DesiredState"] for task in tasks} == {"running"}
    assert ask(daemon, "/networks/front?scope=swarm")["Driver"] == "overlay"
    status, answer = daemon.request("GET", f"{VERSION}/secrets/nothing")
    assert (status, answer) == (404, {"message": "secret nothing not found"})
