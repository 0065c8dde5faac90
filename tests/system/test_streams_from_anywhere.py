"""Containers of every node through the stock docker command on any manager: one swarm of two managers and a worker."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from shoal.lab.lab import Lab
from shoal.lab.node import LabNode
from shoal.rpc.websocket import SILENCE_SECONDS
from tests.conformance.terminal import check_shell, on_terminal
from tests.system.daemon import wait_for
from tests.system.lab import node_id, nodes, running_lab
from tests.system.swarm import create, get, running, tasks_of

PATIENCE_SECONDS = 20.0

pytestmark = pytest.mark.root


class Place(NamedTuple):
    """The hosts, and the container of a global service on the worker: its id and the name of its task."""

    lab: Lab
    leader: LabNode
    follower: LabNode
    worker: LabNode
    container: str
    task_name: str
    task_id: str


def running_on(manager: LabNode, service: str, node: str) -> dict[str, object]:
    return next(task for task in running(manager, service) if task["NodeID"] == node)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with running_lab(2, 1) as lab:
        leader, follower, worker = lab.nodes
        everywhere = {"Mode": {"Global": {}}}
        service = create(leader, "sleepers", ["sleep", "9999"], more=everywhere)
        wait_for(lambda: len(running(leader, service)) == 3, "a task on every node")
        task = running_on(leader, service, node_id(worker))
        container = task["Status"]["ContainerStatus"]["ContainerID"]
        name = get(worker, f"/containers/{container}/json")["Name"].removeprefix("/")
        yield Place(lab, leader, follower, worker, container, name, task["ID"])


@pytest.fixture(params=["leader", "follower"])
def manager(place: Place, request: pytest.FixtureRequest) -> LabNode:
    return getattr(place, request.param)


def environment(host: LabNode) -> dict[str, str]:
    return {"DOCKER_HOST": host.host, "TERM": "xterm"}


def test_exec(place: Place, manager: LabNode) -> None:
    def run(*words: str, **keywords: str) -> tuple[int, str, str]:
        done = manager.docker("exec", *words, check=False, **keywords)
        return done.returncode, done.stdout, done.stderr

    for reference in (place.container, place.container[:12], place.task_name, place.task_id):
        assert run(reference, "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    assert run("-i", place.container, "cat", input="typed\n") == (0, "typed\n", "")
    code, out, _ = run(place.container, "nope")
    assert code == 127
    assert 'exec: "nope": executable file not found in $PATH' in out
    # it ends before its input does
    assert run("-i", place.container, "head", "-c", "5", input="x" * 500_000)[:2] == (0, "xxxxx")
    assert run("-d", place.container, "sh", "-c", "echo x > /tmp/made")[0] == 0
    wait_for(lambda: run(place.container, "cat", "/tmp/made")[1] == "x\n", "what the detached command makes")
    run(place.container, "rm", "/tmp/made")
    assert "No such container: nobody" in run("nobody", "true")[2]
    # a worker knows its own containers only
    other = next(t for t in tasks_of(manager, service_of(place)) if t["ID"] != place.task_id)
    assert "No such container" in place.worker.docker("exec", other["ID"], "true", check=False).stderr


def service_of(place: Place) -> str:
    return get(place.leader, f"/tasks/{place.task_id}")["ServiceID"]


def test_exec_on_a_terminal(place: Place, manager: LabNode) -> None:
    command = ("docker", "exec", "-it", place.task_name, "sh")
    with on_terminal(*command, environment=environment(manager)) as terminal:
        check_shell(terminal)


def test_a_megabyte_both_ways(place: Place, manager: LabNode) -> None:
    content = os.urandom(1 << 20)
    done = subprocess.run(
        ["docker", "exec", "-i", place.container, "cat"], input=content, capture_output=True, check=True,
        timeout=60, env={**os.environ, **environment(manager)},
    )  # fmt: skip
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(content).digest()


def test_a_client_that_reads_late_gets_all_and_nothing_is_left(place: Place) -> None:
    hosts = place.lab.nodes
    before = {host.name: open_descriptors(host) for host in hosts}
    command = ["docker", "exec", place.container, "head", "-c", "20000000", "/dev/zero"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment(manager)})
        for manager in (place.leader, place.follower)
    ]
    # more than all buffers hold waits for longer than a link between nodes may be silent
    first = [process.stdout.read(1) for process in processes if process.stdout is not None]
    time.sleep(SILENCE_SECONDS + 1.0)
    rest = [process.communicate()[0] for process in processes]
    assert [len(one) + len(other) for one, other in zip(first, rest, strict=True)] == [20_000_000] * 2
    assert [process.returncode for process in processes] == [0, 0]
    # a client that goes away in the middle
    command[3:] = ["sh", "-c", "echo $$; exec yes"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, **environment(place.follower)}
    ) as process:
        assert process.stdout is not None
        pid = process.stdout.readline().decode().strip()
        process.kill()
    place.leader.docker("exec", place.container, "kill", pid)
    wait_for(
        lambda: all(open_descriptors(host) <= before[host.name] for host in hosts),
        f"no more descriptors than {before}",
    )


def open_descriptors(host: LabNode) -> int:
    return len(list(Path(f"/proc/{host.pid}/fd").iterdir()))


def test_inspect_stats_top_and_kill(place: Place, manager: LabNode) -> None:
    docker = manager.docker
    shown = json.loads(docker("inspect", place.task_name).stdout)[0]
    assert shown["Id"] == place.container
    assert shown == json.loads(place.worker.docker("inspect", place.container).stdout)[0]
    # by the id of the task: what Docker shows of a task, and the container
    assert docker("inspect", "--format", "{{.NodeID}} {{.Path}}", place.task_id).stdout == (
        f"{node_id(place.worker)} sleep\n"
    )
    assert "sleep 9999" in docker("top", place.container).stdout
    usage = json.loads(docker("stats", "--no-stream", "--format", "json", place.task_name).stdout)
    assert place.container.startswith(usage["ID"])
    assert usage["PIDs"] == "1"
    assert docker("kill", "--signal", "CONT", place.task_name).returncode == 0
    refused = docker("kill", "--signal", "NONSENSE", place.task_name, check=False)
    assert "invalid signal: NONSENSE" in refused.stderr
    # what a node has is its own matter
    assert place.container not in docker("ps", "-aq", "--no-trunc").stdout


def test_attach(place: Place, manager: LabNode) -> None:
    container = {"Image": "busybox", "Command": ["sh"], "TTY": True, "OpenStdin": True, "StopGracePeriod": 0}
    placement = {"Constraints": [f"node.id=={node_id(place.worker)}"]}
    spec = {"ContainerSpec": container, "RestartPolicy": {"Condition": "none"}, "Placement": placement}
    status, answer = manager.request("POST", "/services/create", {"Name": "typed", "TaskTemplate": spec})
    assert status == 201, answer
    try:
        wait_for(lambda: running(manager, answer["ID"]), "it runs")
        with on_terminal("docker", "attach", "typed.1", environment=environment(manager)) as terminal:
            terminal.type_until("\n", "# ")
            terminal.type_until("stty size\n", "30 100")
            terminal.resize(13, 57)
            terminal.type_until("stty size\n", "13 57")
            terminal.type("exit 6\n")
            assert terminal.wait() == 6
        assert "stty size" in manager.docker("logs", "typed.1").stdout
    finally:
        manager.docker("service", "rm", "typed")


class Followed:
    """A docker command that goes on; `lines` are those not read yet."""

    def __init__(self, host: LabNode, *command: str) -> None:
        self._process = subprocess.Popen(
            ["docker", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment(host)},
        )  # fmt: skip
        self._rest = b""

    def read_until(self, is_enough: Callable[[list[str]], bool]) -> list[str]:
        """Return the next lines, as many as are enough."""
        lines: list[str] = []
        output = self._process.stdout
        assert output is not None
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_enough(lines):
            line, found, rest = self._rest.partition(b"\n")
            if found:
                lines.append(line.decode())
                self._rest = rest
                continue
            assert select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0], f"no more than {lines}"
            data = os.read(output.fileno(), 65536)
            assert data, f"it ended with {lines}"
            self._rest += data
        return lines

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.terminate()
        self._process.communicate()


def node_of(line: str) -> str:
    """The node that stands before a line of `docker service logs --no-resolve --no-trunc`."""
    return line.split("@")[1].split(maxsplit=1)[0]


def test_logs(place: Place, manager: LabNode) -> None:
    docker = manager.docker
    script = "echo one $(hostname); echo two; sleep 0.5; echo three; exec sleep 9999"
    at_once = {"Delay": 1_000_000}
    service = create(manager, "talkers", ["sh", "-c", script], more={"Mode": {"Global": {}}}, RestartPolicy=at_once)
    with Followed(manager, "service", "logs", "-f", "--no-trunc", "--no-resolve", "talkers") as followed:
        try:
            heard = followed.read_until(lambda lines: sum("three" in line for line in lines) == 3)
            assert {node_of(line) for line in heard} == {node_id(host) for host in place.lab.nodes}
            assert len(heard) == 9
            tasks = running(manager, service)
            of_worker = next(task for task in tasks if task["NodeID"] == node_id(place.worker))
            assert docker("logs", of_worker["ID"]).stdout.splitlines()[1:] == ["two", "three"]
            stamped = docker("logs", "-t", "--since", "10m", of_worker["ID"]).stdout.splitlines()
            middle = stamped[1].split()[0]
            assert [line.split()[1] for line in stamped] == ["one", "two", "three"]
            assert docker("logs", "--until", middle, of_worker["ID"]).stdout.splitlines()[-1] == "two"
            assert docker("logs", "--tail", "1", of_worker["ID"]).stdout == "three\n"
            tails = docker("service", "logs", "--raw", "--tail", "1", "talkers").stdout.splitlines()
            assert tails == ["three"] * 3
            one = docker("service", "logs", "--raw", of_worker["ID"]).stdout.splitlines()
            assert one[1:] == ["two", "three"]
            # a task that comes later
            docker("kill", of_worker["ID"])
            later = followed.read_until(lambda lines: bool(lines) and "three" in lines[-1])
            assert all(of_worker["ID"] not in line for line in later)
            assert {node_of(line) for line in later} == {node_id(place.worker)}
        finally:
            docker("service", "rm", "talkers")


def test_a_node_that_is_cut_off(place: Place) -> None:
    lost = node_id(place.worker)
    script = "echo here; exec sleep 9999"
    more = {"Mode": {"Global": {}}}
    create(place.leader, "cut", ["sh", "-c", script], more=more)
    managers = (place.leader, place.follower)
    assert place.leader.docker("swarm", "update", "--dispatcher-heartbeat", "1s").returncode == 0

    def logs(host: LabNode, *words: str) -> list[str]:
        done = host.docker("service", "logs", "--raw", *words, "cut")
        return sorted(done.stdout.splitlines() + done.stderr.splitlines())

    wait_for(lambda: logs(place.leader) == ["here"] * 3, "all have spoken")
    with Followed(place.follower, "service", "logs", "-f", "--raw", "cut") as followed:
        try:
            followed.read_until(lambda lines: len(lines) == 3)
            place.lab.partition(place.worker.name)
            # in the middle of a stream, when nobody knows yet, and when it is known
            warning = followed.read_until(bool)[0]
            assert "warning: incomplete log stream" in warning
            wait_for(lambda: nodes(place.leader)[lost]["Status"]["State"] == "down", "it is down")
            for host in managers:
                # with a heartbeat of a second a busy machine may take the others for down, too, for a moment
                heard: list[str] = []

                def both_speak(host: LabNode = host, heard: list[str] = heard) -> bool:
                    heard[:] = logs(host)
                    return heard[:2] == ["here"] * 2

                wait_for(both_speak, "the logs of those that are there")
                assert f"({lost}) is down" in heard[2]
                refused = host.docker("exec", place.container, "true", check=False)
                assert f"({lost}) is down" in refused.stderr
            place.lab.heal()
            wait_for(lambda: nodes(place.leader)[lost]["Status"]["State"] == "ready", "it is back")
            wait_for(lambda: logs(place.follower).count("here") >= 3, "its logs are back")
        finally:
            place.leader.docker("service", "rm", "cut")
