"""What a user trips over: missing images, bad and crashing commands, silent registries, races for names and ports."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conformance.conftest import SERVE_HOSTNAME
from tests.system.daemon import running_daemon, wait_for

pytestmark = pytest.mark.root

LOCAL = ("service", "create", "-d", "--no-resolve-image", "--stop-grace-period", "0s")
SILENT = """
import socket, time
listener = socket.socket()
listener.bind(("127.0.0.1", 5555))
listener.listen(50)
print("ready", flush=True)
time.sleep(1000)
"""


def tasks(docker, service):
    lines = docker("service", "ps", "--no-trunc", "--format", "{{json .}}", service).splitlines()
    found = [json.loads(line) for line in lines]
    return [task | {"Error": task["Error"].strip('"')} for task in found]


def test_missing_image(docker):
    docker(*LOCAL, "--name", "missing", "--restart-delay", "0s", "--restart-max-attempts", "1", "127.0.0.1:1/nope:1")
    rejected = wait_for(
        lambda: [t for t in tasks(docker, "missing") if t["CurrentState"].startswith("Rejected")], "it is rejected"
    )
    assert rejected[0]["Error"].startswith("No such image: 127.0.0.1:1/nope:1")
    assert docker("service", "ls", "--format", "{{.Replicas}}") == "0/1\n"


def test_bad_command(docker):
    docker(*LOCAL, "--name", "bad", "--restart-condition", "none", "busybox", "nonsense", "-x")
    (task,) = wait_for(lambda: [t for t in tasks(docker, "bad") if t["Error"]], "it fails")
    assert 'exec: "nonsense": executable file not found in $PATH' in task["Error"]
    assert task["CurrentState"].split()[0] in ("Failed", "Rejected")


def test_crashing_command_and_history(docker):
    docker(*LOCAL, "--name", "crash", "--restart-delay", "50ms", "busybox", "sh", "-c", "exit 3")
    wait_for(lambda: len(tasks(docker, "crash")) >= 5, "five tries")
    failed = [t for t in tasks(docker, "crash") if t["CurrentState"].startswith("Failed")]
    assert failed
    assert {t["Error"] for t in failed} == {"task: non-zero exit (3)"}
    seen = {t["ID"] for t in tasks(docker, "crash")}
    wait_for(lambda: len(seen.union(t["ID"] for t in tasks(docker, "crash"))) >= len(seen) + 2, "more tries")
    # the history limit: five a slot, and one more while the oldest is being forgotten
    assert len(tasks(docker, "crash")) <= 6


def test_restart_delay_is_waited_for(docker):
    docker(*LOCAL, "--name", "slow", "--restart-delay", "1h", "busybox", "false")
    first, second = wait_for(lambda: len(found := tasks(docker, "slow")) == 2 and found, "a replacement waits")
    assert (first["DesiredState"], second["DesiredState"]) == ("Ready", "Shutdown")
    assert second["Error"] == "task: non-zero exit (1)"


def test_removal_while_starting(docker):
    for attempt in range(3):
        docker(*LOCAL, "--name", "brief", "--replicas", "5", "-p", "8085:80", "busybox", "sh", "-c", SERVE_HOSTNAME)
        if attempt:
            wait_for(lambda: docker("ps", "-qa"), "the first containers")
        docker("service", "rm", "brief")
    wait_for(lambda: docker("ps", "-qa") == "", "no container")
    assert docker("service", "ls", "-q") == ""


def created_at_once(daemon, specs):
    with ThreadPoolExecutor(len(specs)) as pool:
        return list(pool.map(lambda spec: daemon.request("POST", "/services/create", spec), specs))


def spec_of(name, port=0):
    ports = [{"TargetPort": 80, "PublishedPort": port}] if port else []
    return {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox", "Args": ["sleep", "999"]}},
            "Mode": {"Replicated": {"Replicas": 0}}, "EndpointSpec": {"Ports": ports}}  # fmt: skip


def test_one_of_two_with_the_same_name_wins(daemon, docker):
    answers = created_at_once(daemon, [spec_of("same") for _ in range(8)])
    assert sorted(status for status, _ in answers) == [201] + [409] * 7
    assert {a["message"] for status, a in answers if status == 409} == {
        "name conflicts with an existing object: service same already exists"
    }
    assert docker("service", "ls", "--format", "{{.Name}}") == "same\n"


def test_one_of_two_with_the_same_port_wins(daemon, docker):
    answers = created_at_once(daemon, [spec_of(f"s{number}", 8086) for number in range(8)])
    assert sorted(status for status, _ in answers) == [201] + [400] * 7
    assert all("port '8086' is already in use by service" in a["message"] for status, a in answers if status == 400)
    assert len(docker("service", "ls", "-q").split()) == 1


def test_swarm_init_twice(docker):
    refused = docker("swarm", "init", check=False)
    assert "This node is already part of a swarm" in refused


def test_a_registry_that_does_not_answer():
    with running_daemon(environment={"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": ""}) as daemon:
        daemon.import_busybox("127.0.0.1:5555/silent")
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        command = ["nsenter", f"--net=/run/netns/{daemon.netns}", sys.executable, "-c", SILENT]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as registry:
            try:
                assert registry.stdout.readline() == "ready\n"
                started = time.monotonic()
                done = daemon.docker(
                    "service",
                    "create",
                    "-d",
                    "--name",
                    "slow",
                    "--stop-grace-period",
                    "0s",
                    "127.0.0.1:5555/silent",
                    "sleep",
                    "999",
                )
                created = time.monotonic()
                assert "image 127.0.0.1:5555/silent:latest could not be accessed on a registry to record" in done.stderr
                wait_for(lambda: "1/1" in daemon.docker("service", "ls").stdout, "it runs")
                running = time.monotonic()
                print(f"created after {created - started:.2f} s, ran {running - created:.2f} s later")
            finally:
                registry.kill()


def test_restart_with_many_tasks(daemon, docker):
    docker(*LOCAL, "--name", "many", "--replicas", "100", "busybox", "sleep", "999")
    count = ("service", "ls", "--format", "{{.Replicas}}")
    wait_for(lambda: docker(*count) == "100/100\n", "all run", seconds=60)
    before = set(docker("ps", "-q").split())
    daemon.kill()
    started = time.monotonic()
    daemon.start()
    answered = time.monotonic()
    wait_for(lambda: docker(*count) == "100/100\n", "all are known again", seconds=60)
    print(f"API after {answered - started:.2f} s, 100 tasks after {time.monotonic() - started:.2f} s")
    assert set(docker("ps", "-q").split()) == before
    docker("service", "rm", "many")
    wait_for(lambda: docker("ps", "-qa") == "", "no container", seconds=60)
