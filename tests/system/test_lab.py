"""The lab itself: made, grown, hurt in every way, taken away without a trace."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoal.errors import Conflict, NotFound
from shoal.lab.kernel import cgroups_of
from shoal.lab.lab import Lab, take_down
from shoal.lab.node import LabNode, python_environment
from shoal.lab.processes import identify, is_running
from shoal.lab.state import ROOT
from tests.system.daemon import wait_for
from tests.system.lab import node_id, nodes, running_lab
from tests.system.left import processes_with
from tests.system.swarm import create, get, running

pytestmark = pytest.mark.root


def shoal_lab(name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `shoal lab` as a person does."""
    command = [sys.executable, "-m", "shoal.cli.main", "lab", *arguments]
    environment = {**python_environment(), "SHOAL_LAB": name}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert not check or done.returncode == 0, done.stderr
    return done


LISTEN = """
import socket
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind(("", 9))
heard.settimeout(1.0)
print("listening", flush=True)
try:
    print(heard.recv(9).decode())
except TimeoutError:
    print("silence")
"""
SPEAK = """
import socket, sys, time
while True:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"heard", (sys.argv[1], 9))
    time.sleep(0.05)
"""


def hears(listener: LabNode, speaker: LabNode) -> bool:
    """Whether datagrams of one node reach another."""
    listen = listener.command_line(sys.executable, "-c", LISTEN)
    speak = speaker.command_line(sys.executable, "-c", SPEAK, listener.address)
    with subprocess.Popen(listen, stdout=subprocess.PIPE, text=True) as ear:
        assert ear.stdout is not None
        assert ear.stdout.readline() == "listening\n"
        with subprocess.Popen(speak) as mouth:
            try:
                return ear.stdout.readline() == "heard\n"
            finally:
                mouth.kill()


def left_of(name: str, scratch: Path) -> list[str]:
    """Return what is on the machine that carries the name of a lab or lies in its directories."""
    mounts = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(scratch) in line or name in line
    ]
    namespaces = [str(path) for path in Path("/run/netns").glob(f"shoal-lab-{name}-*")]
    files = [str(path) for path in (ROOT / name, *scratch.glob("*")) if path.exists()]
    return [*mounts, *namespaces, *files, *processes_with(str(scratch))]


@pytest.fixture
def place() -> Iterator[tuple[str, Path]]:
    """A name and a directory for a lab, which is taken away at the end if the test has not done so."""
    name, scratch = f"t{secrets.token_hex(4)}", Path(tempfile.mkdtemp(prefix="shoal-lab-"))
    try:
        yield name, scratch
    finally:
        take_down(name)
        shutil.rmtree(scratch)


def test_a_lab_is_made_completed_grown_and_taken_away(place):
    name, scratch = place
    shown = shoal_lab(name, "up", "--managers", "1", "--workers", "1", "--scratch", str(scratch)).stdout
    lab = Lab(name)
    manager, worker = lab.nodes
    assert [line.split()[:5] for line in shown.splitlines()[1:3]] == [
        ["m1", "manager", manager.address, "running", "active"],
        ["w1", "worker", worker.address, "running", "active"],
    ]
    assert worker.execute("hostname").stdout == "w1\n"
    service = create(manager, "web", ["sleep", "999"], replicas=2)
    wait_for(lambda: len(running(manager, service)) == 2, "they run")

    # again: nothing happens; with a node less: it is completed; with more: it grows
    before = [node.pid for node in lab.nodes]
    shoal_lab(name, "up")
    assert [node.pid for node in lab.nodes] == before
    worker.kill()
    shown = shoal_lab(name, "up", "--workers", "2").stdout
    assert [line.split()[0] for line in shown.splitlines()[1:4]] == ["m1", "w1", "w2"]
    assert lab.node("m1").pid == before[0]
    assert {node["Description"]["Hostname"] for node in nodes(manager).values()} == {"m1", "w1", "w2"}
    refused = shoal_lab(name, "up", "--workers", "1", check=False)
    assert (refused.returncode, refused.stderr) == (
        1,
        f'lab "{name}" has 2 workers: to have 1, use `shoal lab remove w2`\n',
    )
    with pytest.raises(Conflict, match="lives in"):
        Lab.up(name=name, scratch=scratch / "elsewhere")

    identities = [(node.data_root / "daemon-id").read_text().strip() for node in lab.nodes]
    assert any(cgroups_of(identity) for identity in identities)
    assert shoal_lab(name, "down").stdout == f'Lab "{name}" is gone.\n'
    assert left_of(name, scratch) == []
    assert not any(cgroups_of(identity) for identity in identities)
    assert shoal_lab(name, "down").stdout == f'There was no lab "{name}".\n'
    with pytest.raises(NotFound, match="shoal lab up"):
        Lab(name)


def test_an_interrupted_making_is_taken_away(place):
    name, scratch = place
    command = [sys.executable, "-m", "shoal.cli.main", "lab", "up", "--name", name, "--scratch", str(scratch)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=python_environment()) as maker:
        wait_for(lambda: list(scratch.glob("*/run/keeper.sock")), "daemons are starting")
        maker.send_signal(signal.SIGKILL)
    assert processes_with(str(scratch))
    shoal_lab(name, "down")
    assert left_of(name, scratch) == []


def test_what_can_befall_a_node():
    with running_lab(2, 1) as lab:
        first, second, worker = lab.nodes

        def daemon_of(node: LabNode) -> str:
            return next(row.daemon for row in lab.status() if row.name == node.name)

        # cut in one direction, from one node, healed
        assert hears(first, worker)
        lab.partition("m1", one_way="in", others=["w1"])
        assert not hears(first, worker)
        assert hears(worker, first)
        assert hears(first, second)
        assert [row.network for row in lab.status()] == ["hears nothing of w1", "", "not heard by m1"]
        lab.heal("w1")
        assert hears(first, worker)
        lab.partition("w1")
        assert not hears(worker, second)
        assert lab.status()[2].network == "cut from everybody"
        lab.heal()

        # its shoald frozen, killed, stopped: what runs on it runs on
        service = create(first, "web", ["sleep", "999"], more={"Mode": {"Global": {}}}, RestartPolicy={"Delay": 0})
        wait_for(lambda: len(running(first, service)) == 3, "one on every node")
        container = worker.docker("ps", "-q", "--no-trunc").stdout.strip()
        process = identify(int(worker.docker("inspect", "--format", "{{.State.Pid}}", container).stdout))
        assert is_running(process)
        worker.freeze()
        assert daemon_of(worker) == "frozen"
        with pytest.raises(Conflict, match="thaw"):
            worker.stop()
        worker.thaw()
        worker.kill_daemon()
        assert daemon_of(worker) == "stopped"
        assert is_running(process)
        worker.start()
        worker.stop()
        assert is_running(process)
        with pytest.raises(Conflict, match="`shoal lab start w1` first"):
            worker.stop()
        worker.start()
        assert worker.docker("ps", "-q", "--no-trunc").stdout.strip() == container
        os.kill(worker.pid, signal.SIGKILL)
        wait_for(lambda: daemon_of(worker) == "crashed", "nobody has asked for its end")

        # its power cut: all of it ends; its disk is as it was
        own = (worker.data_root / "swarm" / "state.json").read_bytes()
        worker.kill()
        assert daemon_of(worker) == "off"
        assert processes_with(str(worker.root)) == []
        assert not is_running(process)
        with pytest.raises(Conflict, match="is off"):
            worker.execute("true")
        lost = [task["ID"] for task in running(first, service)]
        worker.start()
        assert (worker.data_root / "swarm" / "state.json").read_bytes() == own
        wait_for(
            lambda: len(new := running(first, service)) == 3 and {task["ID"] for task in new} != set(lost),
            "it runs a new task",
        )


def test_nodes_are_added_and_removed():
    with running_lab(1, 0) as lab:
        first = lab.node("m1")
        assert lab.add_worker().name == "w1"
        second = lab.add_manager()
        third = lab.add_manager()
        assert lab.status()[0].manager == "leader"
        assert {node["Description"]["Hostname"] for node in nodes(third).values()} == {"m1", "m2", "m3", "w1"}
        shoal_lab(lab.name, "remove", "m3")
        assert (third.root.exists(), third.namespace.exists(), third.uts.exists()) == (False, False, False)
        lab.node("w1").kill()
        lab.remove("w1")
        assert set(nodes(first)) == {node_id(first), node_id(second)}
        lab.remove("m1")
        assert set(nodes(second)) == {node_id(second)}
        with pytest.raises(Conflict, match="last node"):
            lab.remove("m2")


def test_labs_stand_side_by_side_and_docker_is_pointed_at_a_node():
    with running_lab(1, 0) as one, running_lab(1, 0) as other:
        assert one.node("m1").address != other.node("m1").address
        assert get(one.node("m1"), "/swarm")["ID"] != get(other.node("m1"), "/swarm")["ID"]
        script = (
            'shoal() { "$PYTHON" -m shoal.cli.main "$@"; }; PS1="$ "\n'
            'eval "$(shoal lab env --name $LAB m1)"; echo "$DOCKER_HOST|$SHOAL_LAB|$PS1"; docker node ls -q\n'
            'eval "$(shoal lab env m1)"; eval "$(shoal lab env --unset)"; echo "${DOCKER_HOST-}|${SHOAL_LAB-}|$PS1"'
        )
        environment = {**python_environment(), "PYTHON": sys.executable, "LAB": other.name}
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=environment)
        node = other.node("m1")
        assert done.stdout == f"{node.host}|{other.name}|(m1) $ \n{node_id(node)}\n||$ \n"
        ran = shoal_lab(other.name, "exec", "m1", "--", "sh", "-c", "hostname; echo $DOCKER_HOST; exit 7", check=False)
        assert (ran.returncode, ran.stdout) == (7, f"m1\n{node.host}\n")
        assert "API listens" in shoal_lab(other.name, "logs", "m1").stdout
