"""The daemon as a process: what it keeps over kill -9, and that nothing is left of it."""

import subprocess

import pytest

from tests.system.daemon import running_daemon, wait_for
from tests.system.left import left_on_machine

pytestmark = pytest.mark.root


def create_service(daemon, name="web", replicas=2):
    spec = {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox", "Args": ["httpd", "-f", "-p", "80", "-h", "/www"],
                                           "StopGracePeriod": 0}},
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]},
    }  # fmt: skip
    status, answer = daemon.request("POST", "/services/create", spec)
    assert status == 201, answer
    wait_for(lambda: running_tasks(daemon, name) == replicas, "replicas run")


def running_tasks(daemon, name):
    _, tasks = daemon.request("GET", f'/tasks?filters={{"service":["{name}"],"desired-state":["running"]}}')
    return sum(task["Status"]["State"] == "running" for task in tasks)


def fetch(daemon):
    return daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8080", check=False).stdout


def test_service_outlives_daemon_that_is_killed():
    with running_daemon() as daemon:
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        daemon.import_busybox()
        assert (
            daemon.request("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})[0]
            == 200
        )
        create_service(daemon)
        before = {container["Id"] for container in daemon.request("GET", "/containers/json")[1]}
        assert fetch(daemon) == "hello\n"
        daemon.kill()
        assert fetch(daemon) == "hello\n"
        daemon.start()
        wait_for(lambda: running_tasks(daemon, "web") == 2, "the tasks are known again")
        assert {container["Id"] for container in daemon.request("GET", "/containers/json")[1]} == before
        assert fetch(daemon) == "hello\n"
    assert left_on_machine(daemon_id, daemon.root) == []
    assert daemon.netns not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_nothing_is_left_of_a_daemon_that_is_killed_for_good():
    with running_daemon() as daemon:
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        daemon.import_busybox()
        assert (
            daemon.request("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})[0]
            == 200
        )
        create_service(daemon)
        daemon.kill()
    assert left_on_machine(daemon_id, daemon.root) == []
