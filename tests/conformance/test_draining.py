"""No request is lost: what has begun is finished, and nothing new comes to a task that is to stop."""

import subprocess
import threading

import pytest

from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

SLOW = (
    "mkdir -p /www/cgi-bin; printf '#!/bin/sh\\nsleep 1\\necho\\necho done\\n' > /www/cgi-bin/slow; "
    "chmod +x /www/cgi-bin/slow; "
)
SERVE = "exec httpd -f -p 80 -h /www"
STATE = ("service", "inspect", "--format", "{{.UpdateStatus.State}}", "web")
LOCAL = ("--no-resolve-image", "-d", "--stop-grace-period", "0s")


def create(docker, *words):
    docker("service", "create", *LOCAL, "--name", "web", "--publish", "8090:80", *words)
    wait_for(lambda: "web 1/1" in docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}"), "web runs")


def begin_slow_request(daemon):
    request = ("curl", "-sS", "--max-time", "10", "http://127.0.0.1:8090/cgi-bin/slow")
    command = ["nsenter", f"--net=/run/netns/{daemon.netns}", *request] if daemon.netns else list(request)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize(("label", "answer"), [("shoal.drain=5s", "done"), ("shoal.drain=0", "")])
def test_a_request_under_way_is_answered_before_its_task_stops(daemon, docker, label, answer):
    create(docker, "--label", label, "busybox", "sh", "-c", SLOW + SERVE)
    container = docker("ps", "-q").strip()
    asked = begin_slow_request(daemon)
    wait_for(lambda: "slow" in docker("exec", container, "ps", check=False), "it is at work")
    docker("service", "scale", "-d", "web=0")
    said = asked.communicate()[0]
    assert (said.strip() == "done") == bool(answer), said


def test_updates_under_load_fail_no_request(daemon, docker):
    page = "hostname > /www/index.html; "
    # a task without a check counts as running before its program listens
    check = ("--health-cmd", "wget -q -O /dev/null http://127.0.0.1/", "--health-start-period", "20s")
    check += ("--health-start-interval", "0.1s", "--health-interval", "1s")
    words = ("--replicas", "1", "--update-order", "start-first", "--update-delay", "0s", *check)
    create(docker, *words, "busybox", "sh", "-c", page + SERVE)
    docker("service", "scale", "-d", "web=3")
    wait_for(lambda: "web 3/3" in docker("service", "ls", "--format", "{{.Name}} {{.Replicas}}"), "three run")
    stop, answers, failures = threading.Event(), [], []

    def load():
        while not stop.is_set():
            done = daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8090/", check=False)
            (answers if done.returncode == 0 else failures).append(done.stdout.strip() or done.stderr)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for turn in range(2):
            docker("service", "update", "-d", "--env-add", f"TURN={turn}", "web")
            wait_for(lambda: docker(*STATE).strip() == "completed", "it is updated", 60)
        docker("service", "scale", "-d", "web=1")
        wait_for(lambda: len(docker("ps", "-q").split()) == 1, "one is left", 60)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert failures == []
    assert len(set(answers)) > 3
