"""`shoal doctor` on a swarm in which something is broken: it says what, and what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import ShoalError
from shoal.lab.lab import Lab
from shoal.lab.node import LabNode
from shoal.network.settings import NetworkSettings
from shoal.network.wireguard import find_way
from tests.system.daemon import wait_for
from tests.system.lab import running_lab
from tests.system.swarm import get, running

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def lab():
    with running_lab(managers=1, workers=2) as lab:
        yield lab


def findings(node: LabNode) -> dict[str, dict[str, Any]]:
    """Return findings by check; other daemons of this machine may have left something, which is not asked here."""
    done = node.shoal("doctor", "--format", "json", check=False)
    found = json.loads(done.stdout)["Findings"]
    assert done.returncode == any(finding["Level"] == "problem" for finding in found)
    return {finding["Check"]: finding for finding in found}


def problems(node: LabNode) -> dict[str, dict[str, Any]]:
    return {
        check: finding
        for check, finding in findings(node).items()
        if finding["Level"] == "problem" and check != "leftovers"
    }


def path_to(node: LabNode, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (check,) = [check for check in found if check.startswith("data path") and f"({node.address})" in check]
    return found[check]


def filter_packets(node: LabNode, rule: str | None) -> None:
    text = "add table inet broken\ndelete table inet broken\n"
    if rule is not None:
        text += f"table inet broken {{\nchain c {{\ntype filter hook input priority 0;\n{rule}\n}}\n}}\n"
    node.execute("nft", "-f", "-", input=text)


def test_a_swarm_that_is_well(lab: Lab) -> None:
    for node in lab.nodes:
        wait_for(lambda node=node: not problems(node), "nothing is wrong")
        found = findings(node)
        for other in lab.nodes:
            if other.name != node.name:
                assert "answers, with packets of 1450 bytes" in path_to(other, found)["Text"]
        assert f"manager {lab.node('m1').address}:2377" in found


def test_a_machine_without_a_daemon_and_without_wireguard(tmp_path: Path) -> None:
    for program in ("nft", "runc", "skopeo"):
        (tmp_path / program).symlink_to(str(shutil.which(program)))
    shoal = [sys.executable, "-m", "shoal.cli.main", "-H", f"unix://{tmp_path}/none.sock", "doctor"]
    without = {**os.environ, "PATH": str(tmp_path)}
    written = subprocess.run(shoal, env=without, capture_output=True, text=True, check=False).stdout
    assert re.search(r"^note +encrypted networks +cannot be carried by this node$", written, re.MULTILINE)
    assert "apt-get install --no-install-recommends wireguard-tools" in written
    assert re.search(r"^note +daemon .*\n +-> .*start shoald", written, re.MULTILINE)
    assert "data path" not in written


def test_a_blocked_data_path_is_found_from_both_ends(lab: Lab) -> None:
    broken, other = lab.node("w1"), lab.node("m1")
    filter_packets(broken, "udp dport 4789 drop")
    try:
        for one, peer in ((other, broken), (broken, other)):
            finding = path_to(peer, findings(one))
            assert finding["Level"] == "problem"
            assert "UDP port 4789 both ways" in finding["Remedy"]
        assert path_to(lab.node("w2"), findings(other))["Level"] == "good"
    finally:
        filter_packets(broken, None)
    assert path_to(broken, findings(other))["Level"] == "good"


def test_a_blocked_port_of_encrypted_networks_is_found(lab: Lab) -> None:
    try:
        find_way(NetworkSettings())
    except ShoalError as error:
        pytest.skip(error.message)
    manager, broken = lab.node("m1"), lab.node("w1")
    check = f"({broken.address})"

    def path() -> dict[str, Any]:
        found = findings(manager)
        return next((found[each] for each in found if each.startswith("encrypted path") and check in each), {})

    manager.docker("network", "create", "-d", "overlay", "--opt", "encrypted", "vault")
    manager.docker("service", "create", "--no-resolve-image", "-d", "--name", "secret", "--mode", "global",
                   "--network", "vault", "busybox", "sleep", "10000")  # fmt: skip
    wait_for(lambda: path().get("Level") == "good", "the nodes reach each other by WireGuard")
    filter_packets(broken, "udp dport 51820 drop")
    try:
        assert path()["Level"] == "problem"
        assert "UDP ports 51820" in path()["Remedy"]
    finally:
        filter_packets(broken, None)
    manager.docker("service", "rm", "secret")


def test_a_path_that_carries_less_than_its_links_say_and_a_manager_out_of_reach(lab: Lab) -> None:
    broken, other = lab.node("w1"), lab.node("m1")
    filter_packets(broken, "udp dport 4789 meta length > 1400 drop")
    try:
        assert "packets of 1450 bytes" in path_to(broken, findings(other))["Text"]
        filter_packets(broken, "tcp sport 2377 drop")
        check = f"manager {other.address}:2377"
        assert "TCP port 2377" in findings(broken)[check]["Remedy"]
    finally:
        filter_packets(broken, None)


def test_what_a_daemon_that_is_gone_has_left(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("w2")
    directory = tmp_path / "netns"
    directory.mkdir()
    bound = directory / "ingress-0a1b2c"
    bound.touch()
    subprocess.run(["unshare", f"--net={bound}", "true"], check=True)
    node.execute("nft", "add", "table", "ip", "shoal_0a1b2c")
    try:
        done = node.shoal("doctor", check=False)
        assert done.returncode == 1
        assert f"the network namespace {bound}, the nftables table ip shoal_0a1b2c" in done.stdout
        assert f"umount -l {directory}/*" in done.stdout
    finally:
        node.execute("nft", "delete", "table", "ip", "shoal_0a1b2c")
        subprocess.run(["umount", bound], check=True)


def test_the_way_of_a_request(lab: Lab) -> None:
    manager = lab.node("m1")
    manager.docker("network", "create", "-d", "overlay", "back")
    manager.docker("service", "create", "--no-resolve-image", "-d", "--name", "web", "--replicas", "2", "--network",
                   "back", "-p", "8080:80", "busybox", "sleep", "10000")  # fmt: skip
    service = get(manager, "/services/web")
    wait_for(lambda: len(running(manager, service["ID"])) == 2, "it runs")
    written = manager.shoal("doctor", "--network-trace", "web").stdout
    for node in lab.nodes:
        assert f"entry  {node.name} {node.address}:8080  answers" in written
    assert written.count("  serves  ") == 4
    traced = json.loads(manager.shoal("doctor", "--network-trace", "web", "--format", "json").stdout)
    allocated = get(manager, f"/services/{service['ID']}")["Endpoint"]["VirtualIPs"]
    virtual = {each["Addr"].partition("/")[0] for each in allocated}
    assert traced["Networks"][0]["VirtualIP"] in virtual
    manager.docker("service", "rm", "web")
