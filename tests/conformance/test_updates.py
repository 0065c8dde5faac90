"""Updates beyond Docker's, with the stock docker command and shoal on real containers."""

import json

import pytest

from tests.system.asking import asking
from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

QUICK = ("--no-resolve-image", "--stop-grace-period", "0s", "--update-monitor", "100ms", "--rollback-monitor", "100ms")
RUN = ("busybox", "sleep", "1000")


def status_of(docker, name):
    return json.loads(docker("service", "inspect", name))[0].get("UpdateStatus") or {}


def running(docker, name):
    template = "{{.Name}} {{.Image}}"
    return sorted(docker("service", "ps", "-f", "desired-state=running", "--format", template, name).splitlines())


def test_a_canary_waits_is_promoted_and_a_revision_comes_back(daemon, docker):
    docker("tag", "busybox", "busybox:two")
    canary = ("--canary", "1", "--drain", "0s")
    made = daemon.shoal("service", "create", "-d", *QUICK, *canary, "--replicas", "3", "--name", "web", *RUN)
    assert made.returncode == 0, made.stderr
    wait_for(lambda: "3/3" in docker("service", "ls"), "three run")
    updated = daemon.docker("service", "update", "--no-resolve-image", "--image", "busybox:two", "web", check=False)
    assert updated.returncode == 1
    assert "service update paused: awaiting promotion: 1 of 3 slots are updated" in updated.stderr
    assert running(docker, "web") == ["web.1 busybox:two", "web.2 busybox:latest", "web.3 busybox:latest"]
    promoted = daemon.shoal("service", "promote", "web")
    assert promoted.returncode == 0, promoted.stderr
    wait_for(lambda: status_of(docker, "web").get("State") == "completed", "the rest followed")
    assert running(docker, "web") == ["web.1 busybox:two", "web.2 busybox:two", "web.3 busybox:two"]
    again = daemon.shoal("service", "promote", "web", check=False)
    assert "service web awaits no promotion: its update is completed" in again.stderr
    history = ("service", "history", "--format", "{{.Revision}} {{.Image}} {{.Tasks}} {{.Current}}", "web")
    assert daemon.shoal(*history).stdout.splitlines() == ["2 busybox:two 3 yes", "1 busybox:latest 0 "]
    back = daemon.shoal("service", "rollback", "--to", "1", "web")
    assert back.returncode == 0, back.stderr
    wait_for(lambda: status_of(docker, "web")["State"] == "rollback_completed", "it is back")
    assert {line.split()[1] for line in running(docker, "web")} == {"busybox:latest"}
    bad = daemon.shoal("service", "update", "-d", "--canary", "half", "web", check=False)
    assert 'service label shoal.update.canary: "half" is neither' in bad.stderr
    daemon.shoal("service", "update", "-d", "--canary", "", "web")
    assert json.loads(docker("service", "inspect", "web"))[0]["Spec"]["Labels"] == {"shoal.drain": "0s"}
    none = daemon.shoal("service", "rollback", "--to", "9", "web", check=False)
    assert "service web has no revision 9: kept are 1, 2, 3, 4" in none.stderr


def test_an_image_that_is_not_there_costs_no_replica(daemon, docker):
    docker("service", "create", "-d", *QUICK, "--replicas", "2", "--name", "web", *RUN)
    wait_for(lambda: "2/2" in docker("service", "ls"), "two run")
    before = docker("ps", "-q")
    updated = daemon.docker(
        "service", "update", "--no-resolve-image", "--image", "localhost:1/none", "web", check=False
    )
    assert "service update paused: update paused due to failure or early termination of task" in updated.stderr
    assert docker("ps", "-q") == before


def test_a_host_port_under_start_first_is_no_dead_end(daemon, docker):
    port = ("--publish", "mode=host,published=18080,target=80")
    docker("service", "create", "-d", *QUICK, *port, "--update-order", "start-first", "--name", "web", *RUN)
    wait_for(lambda: "1/1" in docker("service", "ls"), "it runs")
    # the image is pulled before the old task gives its port up
    before = docker("ps", "-q")
    bad = daemon.docker("service", "update", "--no-resolve-image", "--image", "localhost:1/none", "web", check=False)
    assert "service update paused: update paused due to failure or early termination of task" in bad.stderr
    assert docker("ps", "-q") == before
    assert "No such image: localhost:1/none" in docker("service", "ps", "--no-trunc", "web")
    docker("service", "update", "-d", "--no-resolve-image", "--image", "busybox", "--env-add", "A=b", "web")
    told = wait_for(lambda: "stops its old task first" in status_of(docker, "web").get("Message", ""), "it is said")
    assert told
    wait_for(lambda: status_of(docker, "web")["State"] == "completed", "the update ends")


def test_blue_green_gives_all_traffic_to_the_new_tasks_at_once(daemon, docker):
    serve = ("busybox", "sh", "-c", "echo $COLOUR > /www/index.html; exec httpd -f -p 80 -h /www")
    # a task that runs answers
    check = ("--health-cmd", "wget -q -O /dev/null http://127.0.0.1/", "--health-interval", "300ms")
    labels = ("--update-strategy", "blue-green", "--canary", "100%")
    words = ("--replicas", "3", "--publish", "18081:80", "--env", "COLOUR=blue", "--name", "web")
    made = daemon.shoal("service", "create", "-d", *QUICK, *labels, *check, *words, *serve)
    assert made.returncode == 0, made.stderr
    wait_for(lambda: "3/3" in docker("service", "ls"), "three run")
    with asking(f"/run/netns/{daemon.netns}", "127.0.0.1", 18081) as asked:
        updated = daemon.docker("service", "update", "--env-add", "COLOUR=green", "web", check=False)
        assert "awaiting promotion: 3 of 3 slots have new tasks that take no traffic yet" in updated.stderr
        assert len(running(docker, "web")) == 6
        assert fetch(daemon) == "blue"
        promoted = daemon.shoal("service", "promote", "web")
        assert promoted.returncode == 0, promoted.stderr
        wait_for(lambda: len(docker("ps", "-q").split()) == 3, "the old ones have stopped")
    assert asked.failures() == []
    assert asked.texts()[0] == "blue"
    assert asked.begun_after_first("green") == {"green"}
    # a new task that fails leaves those that serve alone; a rollback brings back the other specification at once, too
    before = docker("ps", "-q")
    with asking(f"/run/netns/{daemon.netns}", "127.0.0.1", 18081) as asked:
        failed = daemon.docker(
            "service", "update", "--no-resolve-image", "--image", "localhost:1/none", "web", check=False
        )
        assert "service update paused: update paused due to failure" in failed.stderr
        assert docker("ps", "-q") == before
        assert fetch(daemon) == "green"
        back = daemon.shoal("service", "rollback", "-d", "--to", "1", "web")
        assert back.returncode == 0, back.stderr
        wait_for(lambda: status_of(docker, "web")["State"] == "rollback_completed", "it is back")
        assert fetch(daemon) == "blue"
    assert asked.failures() == []
    assert asked.begun_after_first("blue") == {"blue"}


def fetch(daemon):
    return daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:18081/").stdout.strip()
