"""kill -9 of the keeper, the containers' parent, under a whole daemon: containers run on and no line is lost."""

import os
import signal

import pytest

from tests.system.daemon import running_daemon, wait_for
from tests.system.left import left_on_machine, processes_with
from tests.system.swarm import count_lines, create, exit_of, get, init_swarm, running, tasks_of

pytestmark = pytest.mark.root

COUNT = "i=0; while :; do i=$((i+1)); echo $i; usleep 2000; done"
KILLS = 3


def keeper_pid(daemon):
    found = [line for line in processes_with(str(daemon.exec_root)) if "shoal.engine.keeper" in line]
    return int(found[0].partition(":")[0]) if found else 0


def kill_keeper(daemon):
    """Kill the keeper and wait for the next one."""
    killed = keeper_pid(daemon)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: keeper_pid(daemon) not in (0, killed), "a new keeper")


def container_of(daemon, task):
    return get(daemon, f"/containers/{task['Status']['ContainerStatus']['ContainerID']}/json")


def wait_for_growth(daemon, container):
    """Wait until a container has written some lines more."""
    seen = len(count_lines(daemon, container))
    wait_for(lambda: len(count_lines(daemon, container)) > seen + 50, "the log grows")


@pytest.fixture(scope="module")
def daemon():
    with running_daemon() as daemon:
        daemon_id = get(daemon, "/info")["ID"]
        daemon.import_busybox()
        init_swarm(daemon)
        yield daemon
        assert daemon.request("POST", "/swarm/leave?force=1", timeout=60)[0] == 200
        assert daemon.stop() == 0
        assert left_on_machine(daemon_id, daemon.root) == []


def test_containers_run_on_and_lose_no_line(daemon):
    service = create(daemon, "counter", ["sh", "-c", COUNT], replicas=2)
    wait_for(lambda: len(running(daemon, service)) == 2, "the counters run")
    before = {task["ID"]: container_of(daemon, task)["State"]["Pid"] for task in running(daemon, service)}
    container = container_of(daemon, running(daemon, service)[0])["Id"]
    for _ in range(KILLS):
        wait_for_growth(daemon, container)
        kill_keeper(daemon)
    wait_for_growth(daemon, container)
    assert {task["ID"]: container_of(daemon, task)["State"]["Pid"] for task in running(daemon, service)} == before
    lines = count_lines(daemon, container)
    assert lines == list(range(1, len(lines) + 1))
    by_task = {}
    for line in daemon.docker("service", "logs", "--no-trunc", "counter").stdout.splitlines():
        who, _, number = line.partition("|")
        by_task.setdefault(who.strip(), []).append(int(number))
    assert len(by_task) == 2
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in by_task.values())
    assert daemon.request("DELETE", "/services/counter")[0] == 200


def test_later_exits_are_reported_with_their_code(daemon):
    kill_keeper(daemon)
    service = create(daemon, "exits", ["sh", "-c", "exit 7"], RestartPolicy={"Condition": "none"})
    wait_for(lambda: [t for t in tasks_of(daemon, service) if t["Status"]["State"] == "failed"], "the task has failed")
    assert [exit_of(task) for task in tasks_of(daemon, service)] == [("failed", 7, "task: non-zero exit (7)")]
    assert daemon.request("DELETE", "/services/exits")[0] == 200


def test_an_exit_nobody_saw_is_a_failure_and_the_task_is_replaced(daemon):
    service = create(daemon, "unseen", ["sleep", "1000"], RestartPolicy={"Delay": 0})
    (task,) = wait_for(lambda: running(daemon, service), "the task runs")
    keeper = keeper_pid(daemon)
    os.kill(keeper, signal.SIGSTOP)  # it sees nothing any more
    os.kill(container_of(daemon, task)["State"]["Pid"], signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    (replacement,) = wait_for(
        lambda: [each for each in running(daemon, service) if each["ID"] != task["ID"]], "a new task runs"
    )
    assert replacement["Slot"] == task["Slot"]
    (old,) = [each for each in tasks_of(daemon, service) if each["ID"] == task["ID"]]
    state, _, error = exit_of(old)
    assert state == "failed"
    assert "exit code unknown" in error
    assert daemon.request("DELETE", "/services/unseen")[0] == 200


def test_daemon_and_keeper_killed_together(daemon):
    service = create(daemon, "both", ["sh", "-c", COUNT])
    (task,) = wait_for(lambda: running(daemon, service), "the task runs")
    before = container_of(daemon, task)
    wait_for(lambda: len(count_lines(daemon, before["Id"])) > 50, "the log grows")
    os.kill(keeper_pid(daemon), signal.SIGKILL)
    daemon.kill()
    daemon.start()
    wait_for(lambda: running(daemon, service), "the task is known again")
    after = container_of(daemon, task)
    assert (after["Id"], after["State"]["Pid"]) == (before["Id"], before["State"]["Pid"])
    wait_for_growth(daemon, before["Id"])
    lines = count_lines(daemon, before["Id"])
    assert lines == list(range(1, len(lines) + 1))


def test_an_exit_while_the_daemon_is_away_is_reported_with_its_code(daemon):
    service = create(daemon, "away", ["sleep", "1000"], RestartPolicy={"Delay": 0})
    (task,) = wait_for(lambda: running(daemon, service), "the task runs")
    pid = container_of(daemon, task)["State"]["Pid"]
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    wait_for(lambda: [each for each in running(daemon, service) if each["ID"] != task["ID"]], "a new task runs")
    (old,) = [each for each in tasks_of(daemon, service) if each["ID"] == task["ID"]]
    assert exit_of(old) == ("failed", 137, "task: non-zero exit (137)")
