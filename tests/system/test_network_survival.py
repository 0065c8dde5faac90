"""The network of a node whose daemon is killed: what is there goes on, and what was half made or removed is mended."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.daemon import running_daemon, wait_for
from tests.system.left import left_on_machine
from tests.system.swarm import init_swarm

pytestmark = pytest.mark.root

SERVE = "hostname > /www/index.html; exec httpd -f -p 80 -h /www"
LOCAL = ("--no-resolve-image", "--stop-grace-period", "0s", "-d")


def create(daemon, name, network, *words):
    daemon.docker("service", "create", *LOCAL, "--name", name, "--network", network, *words)
    shown = ("service", "ls", "--format", "{{.Name}} {{.Replicas}}")
    wait_for(lambda: f"{name} 1/1" in daemon.docker(*shown).stdout, f"{name} runs", 40)
    return daemon.docker("ps", "-q", "--filter", f"name={name}.1").stdout.strip()


def ask(pid, name):
    """Resolve a name from within a container's namespace: no daemon is needed for it."""
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-m", "tests.system.network.names_peer", "ask"]
    done = subprocess.run(command, input=json.dumps({"name": name}) + "\n", capture_output=True, text=True, check=True)
    return json.loads(done.stdout).get("records", [])


def fetch(pid, address):
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "curl", "-sS", "--max-time", "5", f"http://{address}/"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def leave(daemon, daemon_id):
    for service in daemon.docker("service", "ls", "-q").stdout.split():
        daemon.docker("service", "rm", service)
    wait_for(lambda: daemon.docker("ps", "-aq").stdout == "", "no container", 40)
    daemon.docker("swarm", "leave", "--force")
    assert daemon.stop() == 0
    assert left_on_machine(daemon_id, daemon.root) == []


def test_names_and_addresses_go_on_without_the_daemon():
    with running_daemon() as daemon:
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        daemon.import_busybox()
        init_swarm(daemon)
        daemon.docker("network", "create", "-d", "overlay", "net")
        web = create(daemon, "web", "net", "--publish", "8080:80", "busybox", "sh", "-c", SERVE)
        client = create(daemon, "client", "net", "busybox", "sleep", "1000")
        pid = daemon.docker("inspect", "--format", "{{.State.Pid}}", client).stdout.strip()
        (virtual_ip,) = ask(pid, "web")
        for end in (daemon.kill, daemon.stop):
            end()
            assert ask(pid, "web") == [virtual_ip]
            assert fetch(pid, virtual_ip) == web
            assert daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8080/").stdout.strip() == web
            daemon.start()
            assert ask(pid, "web") == [virtual_ip]
        assert daemon.docker("ps", "-q").stdout.split().count(web) == 1, "it is the same container"
        leave(daemon, daemon_id)


# twelve kills a seed
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 9))])
def test_killed_while_networks_come_and_go(seed):
    chance = random.Random(seed)
    with running_daemon() as daemon:
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        daemon.import_busybox()
        init_swarm(daemon)
        daemon.docker("network", "create", "-d", "overlay", "kept")
        web = create(daemon, "web", "kept", "busybox", "sh", "-c", SERVE)
        client = create(daemon, "client", "kept", "busybox", "sleep", "1000")
        pid = daemon.docker("inspect", "--format", "{{.State.Pid}}", client).stdout.strip()
        for turn in range(6):
            name = f"net{turn}"
            daemon.docker("network", "create", "-d", "overlay", name)
            words = ("service", "create", *LOCAL, "--replicas", "3", "--name", name, "--network", name)
            daemon.docker(*words, "busybox", "sleep", "1000")
            look = chance.randrange(4)
            wait_for(lambda look=look: len(daemon.docker("ps", "-q").stdout.split()) >= 2 + look, "some of it runs")
            daemon.kill()
            daemon.start()
            daemon.docker("service", "rm", name)
            look = chance.randrange(3)
            wait_for(lambda look=look: len(daemon.docker("ps", "-q").stdout.split()) <= 5 - look, "some of it is gone")
            daemon.kill()
            daemon.start()
            wait_for(lambda: len(daemon.docker("ps", "-aq").stdout.split()) == 2, "all of it is gone", 40)
            wait_for(
                lambda name=name: daemon.docker("network", "rm", name, check=False).returncode == 0, "it is removed"
            )
            (virtual_ip,) = ask(pid, "web")
            assert fetch(pid, virtual_ip) == web
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        bound = [line.split()[4] for line in mounts if f"{daemon.root}/run/netns/" in line]
        # two tasks, their network, the mesh
        assert len(bound) == 4, bound
        assert all(re.search(r"/netns/[\w-]+$", path) for path in bound)
        leave(daemon, daemon_id)
