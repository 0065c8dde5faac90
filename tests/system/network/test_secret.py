"""Encrypted overlay networks between two hosts: what is on the wire, and that nothing of them ever is in the clear."""

import json
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from shoal.errors import ShoalError
from shoal.network.settings import NetworkSettings, names_of
from shoal.network.wireguard import control_socket, find_way
from tests.system.daemon import wait_for
from tests.system.network.hosts import Hosts, endpoint, overlay, service, update
from tests.system.network.place import run

pytestmark = pytest.mark.root

SECRET, PLAIN = overlay("secret-network-00", 6, encrypted=True), overlay("plain-network-000", 7)
WIREGUARD_PORT, VXLAN_PORT, UDP = 51820, 4789, 17
MARKER = "what-nobody-may-read"
WITHOUT = '{"wireguard_tool": "wg-absent"}'


@pytest.fixture
def hosts():
    try:
        find_way(NetworkSettings())
    except ShoalError as error:
        pytest.skip(error.message)
    made = Hosts(2)
    try:
        yield made
    finally:
        made.close()


def bring_up(hosts, of=SECRET, number=6):
    """A task on each host, that of the second one answers with MARKER; returns their paths."""
    endpoints = (endpoint("task-a", 1, f"10.0.{number}.11", serving=False), endpoint("task-b", 2, f"10.0.{number}.12"))
    for host in hosts.hosts:
        if host.driver is None:
            host.drive()
    hosts.tell(number, update(of, service("web", [f"10.0.{number}.2"], *endpoints)))
    paths = [hosts[n].attach(f"task-{name}", (of["network_id"], f"10.0.{number}.1{n}/24"))
             for n, name in ((1, "a"), (2, "b"))]  # fmt: skip
    hosts.serve(paths[1], MARKER)
    return paths


def link_of(host):
    return names_of(host.host).secret_link


def watch(hosts, host):
    """Return a function that gives the packets on a host's cable since the last time."""
    child = hosts.start(host.path, "capture", "eth0")
    assert child.stdout.readline() == "ready\n"

    def seen():
        child.stdin.write("?\n")
        child.stdin.flush()
        return json.loads(child.stdout.readline())

    return seen


def answers(hosts, path, address="10.0.6.2"):
    return {answer.split()[0] for answer in hosts.ask(path, "tcp", address, 80, 3)}


def program_of(host):
    """Return the process of wireguard-go that carries a host's link, None if none does."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if link_of(host) in words and "wireguard-go" in words[0]:
            return int(place.parent.name)
    return None


def test_the_wire_shows_nothing_but_wireguard(hosts):
    paths = bring_up(hosts)
    seen = watch(hosts, hosts[1])
    assert answers(hosts, paths[0]) == {MARKER}
    assert hosts.ask(paths[0], "udp", "10.0.6.12", 53) == {f"{MARKER} 10.0.6.11": 1}
    packets = seen()
    assert packets
    assert {(protocol, *ports) for protocol, ports, _ in packets} == {(UDP, WIREGUARD_PORT, WIREGUARD_PORT)}
    assert all(MARKER.encode().hex() not in data for _, _, data in packets)
    # the same question to a plain network: the capture does see what is not hidden
    plain = overlay("plain-network-000", 7)
    hosts.tell(7, update(plain, service("open", ["10.0.7.2"], endpoint("task-c", 1, "10.0.7.11"),
                                        endpoint("task-d", 2, "10.0.7.12"))))  # fmt: skip
    open_path = hosts[1].attach("task-c", (plain["network_id"], "10.0.7.11/24"))
    hosts.serve(hosts[2].attach("task-d", (plain["network_id"], "10.0.7.12/24")), MARKER)
    assert answers(hosts, open_path, "10.0.7.12") == {MARKER}
    assert any(MARKER.encode().hex() in data for _, ports, data in seen() if VXLAN_PORT in ports)


def test_packets_are_as_long_as_the_path_carries(hosts):
    paths = bring_up(hosts)
    assert hosts.ask_whole(paths[0], "10.0.6.12", 1370) == str(1370 - 28)
    assert hosts.ask_whole(paths[0], "10.0.6.12", 1371) == "OSError"


def test_keys_are_the_nodes_own_and_for_root_only(hosts):
    bring_up(hosts)
    keys = [host.exec_root / "wireguard.key" for host in hosts.hosts]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600, 0o600]
    assert keys[0].read_text() != keys[1].read_text()
    announced = [peer["wireguard_key"] for peer in hosts.data_path()["peers"]]
    assert len(set(announced)) == 2
    shown = run("nsenter", f"--net={hosts[1].path}", "wg", "show", link_of(hosts[1]), "peers").stdout.split()
    assert shown == [announced[1]]


def test_frames_in_the_clear_are_neither_sent_nor_taken(hosts):
    paths = bring_up(hosts)
    seen = watch(hosts, hosts[1])
    run("ip", "-n", hosts[1].host, "link", "set", link_of(hosts[1]), "down")
    run("ip", "-n", hosts[1].host, "route", "add", "default", "via", hosts[2].address)
    send(paths[0], "10.0.6.12", 53)
    assert not [ports for _, ports, _ in seen() if VXLAN_PORT in ports], "without its link it is silent, not open"
    # anybody on the wire: the guard of this host must not keep it back
    flush_guard(hosts[1])
    taken = frames_taken(hosts[2])
    inject(hosts[1], hosts[2])
    assert any(VXLAN_PORT in ports for _, ports, _ in seen()), "it is on the wire"
    assert frames_taken(hosts[2]) == taken
    flush_guard(hosts[2])
    inject(hosts[1], hosts[2])
    wait_for(lambda: frames_taken(hosts[2]) == taken + 1, "but for the guard it would be taken")


def flush_guard(host):
    run("nsenter", f"--net={host.path}", "nft", "flush", "table", "inet", names_of(host.host).secret_table)


def frames_taken(host):
    sandbox = next((host.exec_root / "netns").glob("network-*"))
    done = run("nsenter", f"--net={sandbox}", "ip", "-s", "-j", "link", "show", "vxlan0")
    return json.loads(done.stdout)[0]["stats64"]["rx"]["packets"]


def inject(sender, receiver):
    frame = bytes.fromhex("0800000000100600" + "ffffffffffff" + "020000000001" + "0800") + bytes(40)
    send(sender.path, receiver.address, VXLAN_PORT, frame)


def send(namespace, address, port, data=b"x"):
    """Send a UDP packet and wait for nothing."""
    code = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({data!r}, {(address, port)!r})"
    run("nsenter", f"--net={namespace}", sys.executable, "-c", code)


def test_a_daemon_that_was_killed_takes_the_mesh_up_again_and_the_last_task_ends_it(hosts):
    paths = bring_up(hosts)
    process = program_of(hosts[1])
    hosts[1].driver.kill()
    assert answers(hosts, paths[0]) == {MARKER}, "it goes on without the daemon"
    hosts[1].drive()
    assert program_of(hosts[1]) == process
    assert answers(hosts, paths[0]) == {MARKER}
    hosts[1].driver.call("detach", "task-a")
    assert program_of(hosts[1]) is None
    assert not control_socket(link_of(hosts[1])).exists()
    assert link_of(hosts[1]) not in hosts.links(hosts[1].path)
    assert "_secret" not in run("nsenter", f"--net={hosts[1].path}", "nft", "list", "tables").stdout
    hosts[2].driver.call("close", True)
    assert program_of(hosts[2]) is None
    assert not (hosts[2].exec_root / "wireguard.key").exists()


def test_new_keys_by_order_and_traffic_goes_on(hosts):
    paths = bring_up(hosts)
    assert answers(hosts, paths[0]) == {MARKER}
    before = shown_keys(hosts[1])
    hosts.tell(7, data_path=hosts.data_path() | {"key_generation": 1})
    announced = {peer["wireguard_key"] for peer in hosts.data_path()["peers"]}
    assert not announced & before
    assert shown_keys(hosts[1]) == before, "the old ones are in use until the swarm has told the new ones"
    assert answers(hosts, paths[0]) == {MARKER}
    change = {"version": 8, "data_path": hosts.data_path() | {"key_generation": 1}}
    hosts[1].driver.call("change", change)
    # it begins to agree on keys with one that does not know it yet, and would wait five seconds before it tries again
    send(paths[0], "10.0.6.12", 53)
    hosts[2].driver.call("change", change)
    assert shown_keys(hosts[1]) == announced == shown_keys(hosts[2])
    assert answers(hosts, paths[0]) == {MARKER}
    assert [len((host.exec_root / "wireguard.key").read_text().splitlines()) for host in hosts.hosts] == [1, 1]


def shown_keys(host):
    """Return the public keys of a host's link: its own and those of its peers."""
    shown = run("nsenter", f"--net={host.path}", "wg", "show", link_of(host), "dump").stdout.splitlines()
    return {shown[0].split()[1], *(line.split()[0] for line in shown[1:])}


def test_a_program_that_dies_is_started_again(hosts):
    paths = bring_up(hosts)
    process = program_of(hosts[1])
    if process is None:
        pytest.skip("the kernel itself carries the link")
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: program_of(hosts[1]) not in (None, process), "another one runs")
    wait_for(lambda: answers(hosts, paths[0]) == {MARKER}, "the network leads to the other host again")


def test_a_node_that_cannot_encrypt_refuses_and_others_leave_it_out(hosts):
    hosts[1].drive(settings=WITHOUT)
    hosts[2].drive()
    assert [bool(peer["wireguard_key"]) for peer in hosts.data_path()["peers"]] == [False, True]
    hosts.tell(1, update(SECRET))
    with pytest.raises(AssertionError, match=r"cannot encrypt.*wireguard-go"):
        hosts[1].attach("task-x", (SECRET["network_id"], "10.0.6.11/24"))
    assert hosts[1].driver.call("look")["sandboxes"] == []
    assert not list((hosts[1].exec_root / "netns").glob("network-*"))
    hosts[2].attach("task-y", (SECRET["network_id"], "10.0.6.12/24"))


def test_a_port_that_is_taken_is_said(hosts):
    for host in hosts.hosts:
        host.drive()
    hosts.tell(1, update(SECRET))
    child = hosts.start(hosts[1].path, "serve", "x", 8080, WIREGUARD_PORT)
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(AssertionError, match="wg refuses"):
        hosts[1].attach("task-x", (SECRET["network_id"], "10.0.6.11/24"))
    assert not program_of(hosts[1])
