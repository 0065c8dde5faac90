import json
import os
import threading

import pytest

from shoal.errors import Unavailable
from shoal.network import namespace, rtnetlink, vxlan
from shoal.network.netlink import ROUTE, Socket
from tests.system.network.place import run

pytestmark = pytest.mark.root

MAC, OTHER_MAC = bytes.fromhex("02420a000105"), bytes.fromhex("02420a000106")


@pytest.fixture
def pair(tmp_path):
    """Two namespaces, a host's and a sandbox's: their names, descriptors and a socket in each."""
    names = [f"shoal-v{side}-{os.getpid()}{os.urandom(2).hex()}" for side in "hs"]
    for name in names:
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "lo", "up")
    descriptors = [os.open(f"/run/netns/{name}", os.O_RDONLY) for name in names]
    channels = []

    def open_sockets():
        home = namespace.open_own()
        for descriptor in descriptors:
            with namespace.inside(descriptor, home):
                channels.append(Socket(ROUTE))
        os.close(home)

    thread = threading.Thread(target=open_sockets)
    thread.start()
    thread.join()
    try:
        yield names, descriptors, channels
    finally:
        for channel in channels:
            channel.close()
        for descriptor in descriptors:
            os.close(descriptor)
        for name in names:
            run("ip", "netns", "del", name)


def entries(name):
    return run("bridge", "-n", name, "fdb", "show", "dev", "vxlan0").stdout


def neighbours(name):
    both = [run("ip", family, "-n", name, "neigh", "show", "dev", "vxlan0").stdout for family in ("-4", "-6")]
    return "".join(both)


def test_vxlan_is_made_across_namespaces_and_holds_what_it_is_told(pair):
    (host, sandbox), (_, inside), (outer, inner) = pair
    inner.talk([rtnetlink.add_bridge("br0", OTHER_MAC)])
    bridge_index = rtnetlink.link_index(inner, "br0")
    link = vxlan.add_vxlan(
        "vxlan0", 4097, 4789, inside, 1450, "10.98.0.11", MAC, proxy=True, index=77, bridge_index=bridge_index
    )
    vxlan.create(outer, link, 4097, 4789)

    shown = json.loads(run("ip", "-n", sandbox, "-d", "-j", "link", "show", "vxlan0").stdout)[0]
    data = shown["linkinfo"]["info_data"]
    assert (shown["ifindex"], shown["mtu"], shown["master"], shown["address"]) == (77, 1450, "br0", "02:42:0a:00:01:05")
    assert "UP" in shown["flags"]
    assert (data["id"], data["local"], data["port"], data["learning"], data["proxy"], data["ttl"]) == (
        4097, "10.98.0.11", 4789, False, True, 64
    )  # fmt: skip
    assert ":4789" in run("nsenter", f"--net=/run/netns/{host}", "ss", "-uln").stdout, "its socket is the host's"
    assert ":4789" not in run("nsenter", f"--net=/run/netns/{sandbox}", "ss", "-uln").stdout

    wanted = [
        vxlan.set_remote(77, OTHER_MAC, "10.98.0.12"),
        vxlan.set_port(77, OTHER_MAC),
        vxlan.set_neighbour(77, "10.0.1.6", OTHER_MAC),
        vxlan.set_neighbour(77, "fd00::6", OTHER_MAC),
    ]
    for _ in range(2):
        inner.talk(wanted)
    assert "02:42:0a:00:01:06 dst 10.98.0.12 link-netnsid 0 self permanent" in entries(sandbox)
    assert "02:42:0a:00:01:06 master br0 static" in entries(sandbox)
    assert "10.0.1.6 lladdr 02:42:0a:00:01:06 PERMANENT" in neighbours(sandbox)
    assert "fd00::6 lladdr 02:42:0a:00:01:06 PERMANENT" in neighbours(sandbox)
    inner.talk([vxlan.set_remote(77, OTHER_MAC, "10.98.0.13")])
    assert entries(sandbox).count("02:42:0a:00:01:06 dst") == 1
    assert "dst 10.98.0.13 link-netnsid 0 self permanent" in entries(sandbox)

    gone = [
        vxlan.delete_remote(77, OTHER_MAC),
        vxlan.delete_port(77, OTHER_MAC),
        vxlan.delete_neighbour(77, "10.0.1.6"),
        vxlan.delete_neighbour(77, "fd00::6"),
    ]
    for _ in range(2):
        inner.talk(gone)
    assert "02:42:0a:00:01:06" not in entries(sandbox) + neighbours(sandbox)


def test_a_second_vxlan_of_one_identifier_and_port_is_refused_with_the_reason(pair):
    _, (outside, inside), (outer, _) = pair
    vxlan.create(outer, vxlan.add_vxlan("vxlan0", 4097, 4789, inside, 1450), 4097, 4789)
    vxlan.create(outer, vxlan.add_vxlan("vxlan1", 4098, 4789, inside, 1450), 4098, 4789)
    for target in (inside, outside):
        with pytest.raises(Unavailable, match="identifier 4097 on UDP port 4789 exists already"):
            vxlan.create(outer, vxlan.add_vxlan("vxlan2", 4097, 4789, target, 1450), 4097, 4789)
