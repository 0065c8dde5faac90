"""Health checks, as users of the docker command meet them."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import tarfile
import time
from urllib.parse import quote

import pytest

from shoal.lab.image import busybox_archive
from shoal.lib.units import parse_time_ns
from tests.conformance.test_docker_command import LOCAL, REPLICAS, container_of, create, shown, states
from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

SLEEP = ("busybox", "sleep", "1000")
FAST = ("--health-interval", "200ms", "--health-timeout", "5s", "--health-retries", "2")
STATUS = ("ps", "--format", "{{.Status}}")


def status_of(docker, task_name, *flags):
    return docker(*STATUS, *flags, "--filter", f"name={task_name}").strip()


def test_a_task_runs_once_it_is_healthy(daemon, docker):
    docker("service", "create", *LOCAL, "-d", "--name", "slow", *FAST, "--health-cmd", "echo looking; test -e /well",
           "--health-start-period", "60s", "--health-start-interval", "200ms", *SLEEP)  # fmt: skip
    wait_for(lambda: "(health: starting)" in status_of(docker, "slow.1"), "it starts")
    (task,) = states(docker, "slow")
    assert task[1].startswith("Starting")
    assert docker(*REPLICAS) == "slow 0/1\n"
    container = container_of(docker, "slow.1")
    wait_for(lambda: shown(docker, "inspect", container)["State"]["Health"]["Log"], "checks are made")
    health = shown(docker, "inspect", container)["State"]["Health"]
    assert (health["Status"], health["FailingStreak"]) == ("starting", 0)
    assert (health["Log"][0]["ExitCode"], health["Log"][0]["Output"]) == (1, "looking\n")
    docker("exec", container, "touch", "/well")
    wait_for(lambda: docker(*REPLICAS) == "slow 1/1\n", "it runs")
    assert "(healthy)" in status_of(docker, "slow.1")
    assert status_of(docker, "slow.1", "--filter", "health=healthy")
    assert not status_of(docker, "slow.1", "--filter", "health=unhealthy")
    assert shown(docker, "inspect", container)["Config"]["Healthcheck"]["Retries"] == 2


def test_an_unhealthy_task_fails_and_is_replaced(daemon, docker):
    since = str(int(time.time()))
    create(docker, "ill", *FAST, "--health-cmd", "test ! -e /ill", "--restart-delay", "0s", "--stop-grace-period",
           "1s", *SLEEP)  # fmt: skip
    before = container_of(docker, "ill.1")
    docker("exec", before, "touch", "/ill")
    wait_for(lambda: container_of(docker, "ill.1") not in ("", before), "it is replaced")
    wait_for(lambda: docker(*REPLICAS) == "ill 1/1\n", "the replacement runs")
    (failed,) = [task for task in states(docker, "ill") if task[1].startswith("Failed")]
    assert "task: non-zero exit (137): dockerexec: unhealthy container" in failed[2]
    health = shown(docker, "inspect", before)["State"]["Health"]
    assert (health["Status"], health["Log"][-1]["ExitCode"]) == ("unhealthy", 1)
    assert health["FailingStreak"] >= 2, "it is checked until it has ended"
    told = docker("events", "--since", since, "--until", str(int(time.time()) + 1), "--format", "{{.Action}}",
                  "--filter", f"container={before}")  # fmt: skip
    of_life = [word for word in told.split("\n") if not word.startswith("exec_")]
    assert of_life[:4] == ["create", "start", "health_status: healthy", "health_status: unhealthy"]
    assert "die" in told
    only = docker("events", "--since", since, "--until", str(int(time.time()) + 1), "--format", "{{.ID}}",
                  "--filter", "event=health_status", "--filter", "scope=local")  # fmt: skip
    assert set(only.split()) >= {before, container_of(docker, "ill.1")}


def test_a_check_that_takes_too_long_is_killed_and_counts(daemon, docker):
    docker("service", "create", *LOCAL, "-d", "--name", "hangs", "--health-cmd", "echo here; sleep 700",
           "--health-interval", "100ms", "--health-timeout", "500ms", "--health-retries", "3", "--restart-condition",
           "none", *SLEEP)  # fmt: skip
    wait_for(lambda: container_of(docker, "hangs.1"), "it starts")
    container = container_of(docker, "hangs.1")
    wait_for(lambda: shown(docker, "inspect", container)["State"]["Health"]["Log"], "a check was made")
    assert docker("exec", container, "ps").count("sleep 700") <= 2, "one at a time, with its shell"
    log = shown(docker, "inspect", container)["State"]["Health"]["Log"]
    assert (log[0]["ExitCode"], log[0]["Output"]) == (-1, "Health check exceeded timeout (0.5s): here\n")
    wait_for(lambda: "Failed" in str(states(docker, "hangs")), "it fails without having run")
    assert "dockerexec: unhealthy container" in str(states(docker, "hangs"))


def test_a_check_that_ends_with_its_container_counts_for_nothing(daemon, docker):
    containers = [
        docker("run", "-d", "--health-cmd", "sleep 700", "--health-interval", "100ms", "--health-timeout", "90s",
               "--health-retries", "1", *SLEEP).strip()
        for _ in range(6)
    ]  # fmt: skip
    for container in containers:
        wait_for(lambda: "sleep 700" in docker("top", container), "it is looked at")  # noqa: B023 - waited for here
    for container in containers:
        docker("kill", container)
    docker("wait", *containers)
    # "unhealthy" as Docker has it: what is no longer checked
    healths = [shown(docker, "inspect", container)["State"]["Health"] for container in containers]
    assert [(health["Status"], health["Log"]) for health in healths] == [("unhealthy", [])] * len(containers)
    docker("rm", *containers)


def test_the_images_check_is_taken_unless_it_is_switched_off(daemon, docker):
    changes = "&changes=HEALTHCHECK%20--interval%3D200ms%20CMD%20true&changes=CMD%20sleep%201000"
    path = f"/images/create?fromSrc=-&repo=checked&tag=latest{changes}"
    status, answer = daemon.request("POST", path, busybox_archive(None))
    assert status == 200, answer
    create(docker, "taken", "checked")
    assert "(healthy)" in status_of(docker, "taken.1")
    create(docker, "off", "--no-healthcheck", "checked")
    assert "health" not in status_of(docker, "off.1")
    assert "Health" not in shown(docker, "inspect", container_of(docker, "off.1"))["State"]


def test_an_image_without_a_shell_is_checked_too(daemon, docker):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(shutil.which("busybox"), "busybox")
    changes = "".join(
        f"&changes={quote(change)}"
        for change in (
            'HEALTHCHECK --interval=300ms CMD ["/busybox", "ls", "/busybox"]',
            'CMD ["/busybox", "sleep", "9"]',
        )
    )
    path = f"/images/create?fromSrc=-&repo=bare&tag=latest{changes}"
    status, answer = daemon.request("POST", path, archive.getvalue())
    assert status == 200, answer
    create(docker, "bare", "bare")
    assert "(healthy)" in status_of(docker, "bare.1")
    health = shown(docker, "inspect", container_of(docker, "bare.1"))["State"]["Health"]
    assert health["Log"][0]["Output"] == "/busybox\n"


def test_checks_go_on_when_the_daemon_was_killed(daemon, docker):
    create(docker, "adopted", *FAST, "--health-cmd", "test ! -e /ill", "--restart-condition", "none",
           "--stop-grace-period", "0s", *SLEEP)  # fmt: skip
    container = container_of(docker, "adopted.1")
    daemon.kill()
    daemon.start()
    wait_for(lambda: "(healthy)" in status_of(docker, "adopted.1"), "it is checked again")
    assert container_of(docker, "adopted.1") == container
    docker("exec", container, "touch", "/ill")
    wait_for(lambda: "unhealthy container" in str(states(docker, "adopted")), "and what it finds counts")


def test_checks_go_on_when_the_keeper_was_killed(daemon, docker):
    create(docker, "kept", *FAST, "--health-cmd", "test ! -e /ill", *SLEEP)
    container = container_of(docker, "kept.1")
    keeper = int(re.findall(r"keeper started.* pid=(\d+)", daemon.log())[-1])
    os.kill(keeper, signal.SIGKILL)
    killed_at = time.time()

    def checked_since():
        last = shown(docker, "inspect", container)["State"]["Health"]["Log"][-1]
        return last["ExitCode"] == 0 and parse_time_ns(last["Start"]) > (killed_at + 1) * 1e9

    wait_for(checked_since, "checks are made by the next keeper")
    assert container_of(docker, "kept.1") == container
    assert "(healthy)" in status_of(docker, "kept.1")
