"""Where tasks go, and what a user is told of one that has no place."""

import re
from pathlib import Path

import pytest

from tests.conformance.test_docker_command import LOCAL
from tests.system.daemon import running_daemon, wait_for

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def daemon():
    with running_daemon("--node-generic-resource", "gpu=left", "--node-generic-resource", "gpu=right") as daemon:
        daemon.import_busybox()
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield daemon
        daemon.docker("swarm", "leave", "--force")


def test_generic_resources_are_shared_out_by_name(daemon):
    flags = ("--generic-resource", "gpu=1", "--replicas", "3", "--detach", "--name", "train")
    daemon.docker("service", "create", *LOCAL, *flags, "busybox", "sh", "-c", "env | grep DOCKER_RES; sleep 1000")

    def lines():
        return sorted(daemon.docker("service", "logs", "--raw", "train").stdout.split())

    wait_for(lambda: lines() == ["DOCKER_RESOURCE_GPU=left", "DOCKER_RESOURCE_GPU=right"], "two tasks with one each")
    shown = daemon.docker("service", "ps", "--no-trunc", "--format", "{{.CurrentState}}|{{.Error}}", "train").stdout
    pending = [line for line in shown.splitlines() if line.startswith("Pending")]
    reason = "no suitable node (insufficient resources on 1 node): gpu: 1 asked, 0 left at most"
    assert [line.partition("|")[2] for line in pending] == [f'"{reason}"']
    tasks = daemon.request("GET", '/tasks?filters={"desired-state":{"running":true}}')[1]
    given = sorted(str(task["GenericResources"]) for task in tasks if "GenericResources" in task)
    assert given == [
        "[{'NamedResourceSpec': {'Kind': 'gpu', 'Value': 'left'}}]",
        "[{'NamedResourceSpec': {'Kind': 'gpu', 'Value': 'right'}}]",
    ]
    daemon.docker("service", "scale", "--detach", "train=1")
    wait_for(lambda: len(daemon.docker("ps", "-q").stdout.split()) == 1, "one task left")
    daemon.docker("service", "rm", "train")


def test_an_unknown_key_of_a_constraint_is_refused(daemon):
    flags = ("--constraint", "node.colour==red", "--detach", "--name", "nowhere")
    refused = daemon.docker("service", "create", *LOCAL, *flags, "busybox", check=False)
    assert refused.returncode == 1
    assert "constraint key 'node.colour' is unknown: use node.id" in refused.stderr


def test_devices_and_privileges_need_the_swarms_leave(daemon):
    inside = "ls /dev/null2; stat -f -c %b /dev/shm; grep -c '^Seccomp:.0' /proc/self/status; sleep 1000"
    labels = ("--label", "shoal.privileged=true", "--label", "shoal.devices=/dev/null:/dev/null2")
    create = ("service", "create", *LOCAL, "-d", "--name", "power", *labels, "--label", "shoal.shm-size=8m")
    refused = daemon.docker(*create, "busybox", "sh", "-c", inside, check=False)
    assert "service label shoal.privileged: this swarm does not allow it" in refused.stderr
    daemon.shoal("swarm", "update", "--allow", "privileged,devices")
    daemon.docker(*create, "busybox", "sh", "-c", inside)

    def lines():
        return daemon.docker("service", "logs", "--raw", "power").stdout.split()

    # 8 MiB are 2048 pages
    wait_for(lambda: lines() == ["/dev/null2", "2048", "1"], "what it was given")
    first = daemon.docker("ps", "-q").stdout
    daemon.docker("service", "update", "-d", "--label-rm", "shoal.privileged", "power")
    wait_for(lambda: daemon.docker("ps", "-q").stdout not in ("", first), "a task without it")
    wait_for(lambda: lines()[-1] == "0", "a profile")
    daemon.docker("service", "rm", "power")


def test_processes_of_the_node_where_the_swarm_allows_them_and_no_longer(daemon):
    """What the swarm takes back is asked for again on the node, and by a rollback."""
    # its child outlives the first process where both are processes of the node
    inside = f"test -d /proc/{daemon.pid} && echo sees; ls /dev/shm; sleep 1234 & sleep 1000"
    names = ("--pid-mode", "host", "--ipc-mode", "host", "--name", "spy", "--restart-delay", "500ms")
    create = ("service", "create", *LOCAL, "-d", *names, "busybox", "sh", "-c", inside)
    refused = daemon.shoal(*create, check=False)
    assert "service label shoal.pid-mode: this swarm does not allow it" in refused.stderr
    daemon.shoal("swarm", "update", "--allow", "host-pid,host-ipc")
    shared = Path("/dev/shm") / f"shoal-test-{daemon.pid}"
    shared.touch()
    try:
        daemon.shoal(*create)
        logged = ("service", "logs", "--raw", "spy")
        wait_for(lambda: {"sees", shared.name} <= set(daemon.docker(*logged).stdout.split()), "what is the node's")
    finally:
        shared.unlink()
    container = daemon.docker("ps", "-q").stdout.strip()
    modes = daemon.docker("inspect", "-f", "{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}}", container).stdout
    assert modes == "host host\n"
    daemon.docker("service", "update", "-d", "--env-add", "A=b", "spy")
    second = wait_for(lambda: {*daemon.docker("ps", "-q").stdout.split()} - {container}, "another task").pop()
    shown = ("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "spy")
    daemon.shoal("swarm", "update", "--allow", "")
    daemon.docker("kill", second)
    told = "Rejected .*service label shoal.pid-mode: this swarm does not allow it"
    wait_for(lambda: re.search(told, daemon.docker(*shown).stdout), "the node refuses")
    wait_for(lambda: daemon.docker("ps", "-q").stdout == "", "nothing runs")
    daemon.shoal("service", "update", "-d", "--pid-mode", "", "--ipc-mode", "", "spy")
    wait_for(lambda: daemon.docker("ps", "-q").stdout, "a task without them")
    for words in (("--to", "1"), ()):
        back = daemon.shoal("service", "rollback", *words, "spy", check=False)
        assert "service label shoal.pid-mode: this swarm does not allow it" in back.stderr
    daemon.docker("service", "rm", "spy")


def test_devices_of_plain_containers(daemon):
    shown = daemon.docker("run", "--rm", "--device", "/dev/null:/dev/null2:r", "busybox", "ls", "/dev/null2").stdout
    assert shown == "/dev/null2\n"
    caps = daemon.docker("run", "--rm", "--privileged", "busybox", "grep", "^Seccomp:", "/proc/self/status").stdout
    assert caps.split() == ["Seccomp:", "0"]
    missing = daemon.docker("run", "--rm", "--device", "/dev/nosuch", "busybox", "true", check=False)
    assert 'error gathering device information while adding custom device "/dev/nosuch"' in missing.stderr
