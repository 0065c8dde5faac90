import asyncio
import json
import time
from pathlib import Path

import pytest

from shoal.errors import Unavailable
from shoal.network.node import NodeNetwork
from shoal.network.settings import NetworkSettings
from tests.system.network.place import CLIENT_ADDRESS, HOST_ADDRESS, host_port, port, run

pytestmark = pytest.mark.root

MESH = {"task-a": "10.0.0.11", "task-b": "10.0.0.12", "task-c": "10.0.0.13"}
REFUSED = "ConnectionRefusedError"


def attach_mesh(place, driver):
    """Attach three tasks of the mesh, each with a server that says its name; return their paths by name."""
    paths = {}
    for name, address in MESH.items():
        paths[name] = driver.attach(name, address)["path"]
        place.serve(paths[name], name)
    return paths


def publish(driver, version, addresses):
    driver.set_ingress(version, port("tcp", 8080, 80, *addresses), port("udp", 5353, 53, *addresses))


def names_in(answers):
    return {answer.split()[0] for answer in answers}


def sources_in(answers):
    return {answer.split()[1] for answer in answers}


@pytest.mark.parametrize(("kind", "number"), [("tcp", 8080), ("udp", 5353)])
def test_mesh_answers_everywhere_and_balances(place, kind, number):
    driver = place.drive()
    paths = attach_mesh(place, driver)
    egress = driver.attach("task-egress")["path"]
    publish(driver, 5, MESH.values())

    outside = place.ask(place.client_path, kind, HOST_ADDRESS, number, 60)
    assert names_in(outside) == set(MESH)
    assert sources_in(outside) == {CLIENT_ADDRESS}, "the client's address is kept"
    for address in ("127.0.0.1", HOST_ADDRESS):
        assert names_in(place.ask(place.host_path, kind, address, number, 40)) == set(MESH)
    for namespace in (paths["task-a"], egress):
        assert names_in(place.ask(namespace, kind, HOST_ADDRESS, number, 40)) == set(MESH), "by hairpin"
    assert driver.call("look") == {"sandboxes": sorted([*MESH, "task-egress"]), "ingress_version": 5, "version": 0}


def test_endpoints_change_while_flows_live(place):
    driver = place.drive()
    attach_mesh(place, driver)
    publish(driver, 1, [])
    waiting = place.hold(place.client_path, "udp", HOST_ADDRESS, 5353)
    assert waiting() == REFUSED, "a port without backends refuses"
    assert set(place.ask(place.client_path, "tcp", HOST_ADDRESS, 8080)) == {REFUSED}

    publish(driver, 2, [MESH["task-a"]])
    stream = place.hold(place.client_path, "tcp", HOST_ADDRESS, 8080)
    assert stream() == f"task-a {CLIENT_ADDRESS}"
    assert waiting() == f"task-a {CLIENT_ADDRESS}", "the socket that was refused is served"

    publish(driver, 3, [MESH["task-b"], MESH["task-c"]])
    assert stream() == f"task-a {CLIENT_ADDRESS}", "a stream drains"
    assert waiting().split()[0] in {"task-b", "task-c"}, "a UDP flow moves on"
    assert names_in(place.ask(place.client_path, "tcp", HOST_ADDRESS, 8080, 40)) == {"task-b", "task-c"}

    publish(driver, 2, [MESH["task-a"]])
    assert names_in(place.ask(place.client_path, "tcp", HOST_ADDRESS, 8080, 20)) == {"task-b", "task-c"}, "older"

    driver.call("detach", "task-a")
    assert stream() == "ConnectionResetError", "a flow to a task that is gone ends at once"
    driver.set_ingress(4)
    assert set(place.ask(place.client_path, "tcp", HOST_ADDRESS, 8080)) == {REFUSED}
    assert waiting() == REFUSED


def test_many_ports_and_backends_as_nft_shows_them(place):
    driver = place.drive()
    addresses = [f"10.0.{third}.{last}" for third in range(4) for last in range(1, 251)]
    driver.set_ingress(1, *(port("tcp", 1000 + number, 80, *addresses[:number]) for number in range(1, 30)))
    driver.set_ingress(2, port("tcp", 1001, 81, *addresses), port("udp", 1002, 53, *addresses[:2]))
    sandbox = next((place.exec_root / "netns").glob("ingress-*"))
    updated = place.ruleset(sandbox)
    assert "0 : 10.0.0.1, 1 : 10.0.0.2 }:53" in updated.replace("\n", "")
    assert "refused" not in Path(place.log.name).read_text(), "the hand-made batches were taken"
    driver.kill()
    place.drive()
    assert sorted(place.ruleset(sandbox).splitlines()) == sorted(updated.splitlines()), "nft writes the same rules"


@pytest.mark.parametrize("ingress_address", [None, "10.0.0.21"])
def test_host_ports_and_egress(place, ingress_address):
    driver = place.drive()
    ports = [host_port("tcp", 9000, 80), host_port("udp", 9053, 53)]
    path = driver.attach("task-h", ingress_address, ports)["path"]
    assert driver.attach("task-h", ingress_address, ports)["path"] == path, "attaching again is the same"
    other = driver.attach("task-o")["path"]
    place.serve(path, "h")
    place.serve(place.client_path, "outside", 8000, 8053)
    for kind, number in (("tcp", 9000), ("udp", 9053)):
        assert place.ask(place.client_path, kind, HOST_ADDRESS, number) == {f"h {CLIENT_ADDRESS}": 1}
        for namespace in (place.host_path, path, other):
            assert names_in(place.ask(namespace, kind, HOST_ADDRESS, number)) == {"h"}
        assert names_in(place.ask(place.host_path, kind, "127.0.0.1", number)) == {"h"}
    for kind, number in (("tcp", 8000), ("udp", 8053)):
        for namespace in (path, other):
            assert place.ask(namespace, kind, CLIENT_ADDRESS, number) == {f"outside {HOST_ADDRESS}": 1}
    driver.call("detach", "task-h")
    driver.call("detach", "task-h")
    assert set(place.ask(place.client_path, "tcp", HOST_ADDRESS, 9000)) == {REFUSED}
    assert not Path(path).exists()


def test_a_task_is_reached_by_published_ports_only(place):
    driver = place.drive()
    hidden, other = driver.attach("task-1"), driver.attach("task-2")
    place.serve(hidden["path"], "hidden")
    address = hidden["addresses"][0].split("/")[0]
    run("ip", "-n", place.client, "route", "add", f"{address}/32", "via", HOST_ADDRESS, "dev", "eth0", "onlink")
    assert names_in(place.ask(place.host_path, "tcp", address, 80)) == {"hidden"}
    for namespace in (place.client_path, other["path"]):
        assert set(place.ask(namespace, "tcp", address, 80)) <= {"TimeoutError", "OSError", "ConnectionRefusedError"}


def test_a_killed_daemon_is_taken_up(place):
    first = place.drive()
    attach_mesh(place, first)
    ports = [host_port("tcp", 9000, 80)]
    gateway_task = first.attach("task-g", None, ports)
    place.serve(gateway_task["path"], "g")
    publish(first, 7, MESH.values())
    stream = place.hold(place.client_path, "tcp", HOST_ADDRESS, 8080)
    answer = stream()
    first.kill()
    assert stream() == answer
    assert names_in(place.ask(place.client_path, "tcp", HOST_ADDRESS, 8080, 40)) == set(MESH)

    second = place.drive()
    assert second.call("look") == {"sandboxes": sorted([*MESH, "task-g"]), "ingress_version": 7, "version": 0}
    assert stream() == answer
    assert names_in(place.ask(place.client_path, "tcp", HOST_ADDRESS, 8080, 40)) == set(MESH)
    assert names_in(place.ask(place.client_path, "tcp", HOST_ADDRESS, 9000)) == {"g"}
    assert second.attach("task-g", None, ports) == gateway_task
    assert second.attach("task-n")["addresses"] != gateway_task["addresses"]
    second.call("detach", "task-a")
    publish(second, 8, [MESH["task-b"]])
    assert names_in(place.ask(place.client_path, "udp", HOST_ADDRESS, 5353, 20)) == {"task-b"}


def test_half_made_namespaces_are_removed_at_start(place):
    first = place.drive()
    path = Path(first.attach("task-half", "10.0.0.31")["path"])
    first.kill()
    record = place.exec_root / "network" / "tasks" / "task-half.json"
    value = json.loads(record.read_text())
    value.pop("complete")
    record.write_text(json.dumps(value))
    second = place.drive()
    assert second.call("look")["sandboxes"] == []
    assert not path.exists()
    assert not record.exists()


def test_nothing_is_left_after_removal(place):
    before = place.links(place.host_path)
    driver = place.drive()
    attach_mesh(place, driver)
    driver.attach("task-g", None, [host_port("udp", 9053, 53)])
    publish(driver, 1, MESH.values())
    assert place.links(place.host_path) != before
    driver.call("close", True)
    assert list(place.exec_root.iterdir()) == []
    assert "shoal_" not in place.ruleset(place.host_path)
    deadline = time.monotonic() + 10
    while place.links(place.host_path) != before:
        assert time.monotonic() < deadline, place.links(place.host_path)
        time.sleep(0.05)
    routes = run("ip", "-n", place.host, "route").stdout
    assert "10.0.0." not in routes


def test_gateway_range_avoids_routes_of_the_host(place):
    run("ip", "-n", place.host, "route", "add", "172.18.5.0/24", "dev", "eth0")
    address = place.drive().attach("task-g")["addresses"][0]
    assert address == "172.19.0.2/32"


def test_a_missing_program_is_named_with_its_remedy(tmp_path):
    network = NodeNetwork(tmp_path / "exec", "d", NetworkSettings(nft_command="nft-absent"))
    with pytest.raises(Unavailable, match=r"^nft-absent is not installed: install the package nftables$"):
        asyncio.run(network.start_up())
    with pytest.raises(Unavailable, match="not started"):
        asyncio.run(network.detach("t"))
    assert not (tmp_path / "exec").exists()


def test_an_address_that_was_given_on_stays_reachable(place):
    """A manager gives an address on once a task has stopped; the task may be taken away only after that."""
    driver = place.drive()
    driver.attach("task-old", "10.0.0.21")
    path = driver.attach("task-new", "10.0.0.21")["path"]
    place.serve(path, "task-new")
    publish(driver, 1, ["10.0.0.21"])
    driver.call("detach", "task-old")
    assert names_in(place.ask(place.client_path, "tcp", HOST_ADDRESS, 8080, 5)) == {"task-new"}
