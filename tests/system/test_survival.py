"""kill -9 of shoald at random moments under load: nothing acknowledged is lost, nothing runs twice or stays behind."""

import contextlib
import http.client
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.system.daemon import RunningDaemon, running_daemon, wait_for
from tests.system.left import left_on_machine
from tests.system.load import Client
from tests.system.swarm import count_lines, create, get, init_swarm, running

pytestmark = pytest.mark.root

CLIENTS = 3
CONVERGENCE_SECONDS = 60.0
COUNT_LINES = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"


def identities(daemon, services):
    """Container, pid and the pid's start of each running task: they change when a container is made anew."""
    found = set()
    for service in services:
        for task in running(daemon, service):
            container = get(daemon, f"/containers/{task['Status']['ContainerStatus']['ContainerID']}/json")
            pid = container["State"]["Pid"]
            started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
            found.add((task["ID"], container["Id"], pid, started))
    return found


def difference_from_wanted(daemon):
    """Say what is not yet as it should be; empty when the swarm has converged."""
    services = {service["ID"]: service for service in get(daemon, "/services")}
    tasks = get(daemon, "/tasks")
    wrong = [f"task {task['ID']} of a service that is gone" for task in tasks if task["ServiceID"] not in services]
    wanted_containers = set()
    for service_id, service in services.items():
        wanted = service["Spec"]["Mode"]["Replicated"]["Replicas"]
        ours = [task for task in tasks if task["ServiceID"] == service_id and task["DesiredState"] == "running"]
        slots = Counter(task["Slot"] for task in ours if task["Status"]["State"] == "running")
        if len(ours) != wanted or len(slots) != wanted or set(slots.values()) - {1}:
            wrong.append(f"{service['Spec']['Name']}: {wanted} wanted, {dict(slots)} run, {len(ours)} tasks")
        if service.get("UpdateStatus", {}).get("State") == "updating":
            wrong.append(f"{service['Spec']['Name']}: being updated")
        outdated = [
            task["ID"] for task in ours
            if task["Spec"]["ContainerSpec"].get("Env") != service["Spec"]["TaskTemplate"]["ContainerSpec"].get("Env")
        ]  # fmt: skip
        wrong += [f"task {task_id} is outdated" for task_id in outdated]
        wanted_containers |= {task["Status"].get("ContainerStatus", {}).get("ContainerID") for task in ours}
    up = {container["Id"] for container in get(daemon, "/containers/json")}
    wrong += [f"stray container {container}" for container in up - wanted_containers]
    wrong += [f"container {container} does not run" for container in wanted_containers - up]
    known = {task["ID"] for task in tasks}
    for container in get(daemon, "/containers/json?all=1"):
        if container["Labels"]["com.docker.swarm.task.id"] not in known:
            wrong.append(f"container {container['Id']} of a forgotten task")
    kept_by_runc = {path.name for path in (daemon.exec_root / "runc").iterdir()}
    wrong += [f"runc has {container}" for container in kept_by_runc ^ up]
    namespaces = [path.name for path in (daemon.exec_root / "netns").iterdir() if not path.name.startswith("ingress")]
    if len(namespaces) != len(up):
        wrong.append(f"{len(namespaces)} network namespaces of {len(up)} containers")
    return wrong


def wait_for_convergence(daemon):
    deadline = time.monotonic() + CONVERGENCE_SECONDS
    while wrong := difference_from_wanted(daemon):
        assert time.monotonic() < deadline, "\n".join(wrong)
        time.sleep(0.2)


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.long)])
def test_daemon_killed_under_load(kills):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}, {kills} kills")
    chance = random.Random(seed)
    with running_daemon() as daemon:
        daemon_id = get(daemon, "/info")["ID"]
        daemon.import_busybox()
        # many snapshots, so that kills hit their writing, too
        init_swarm(daemon, Raft={"SnapshotInterval": 100, "LogEntriesForSlowFollowers": 10})
        untouched = [create(daemon, f"untouched-{n}", ["sh", "-c", COUNT_LINES], replicas=2) for n in range(2)]
        wait_for(lambda: all(len(running(daemon, each)) == 2 for each in untouched), "the untouched services run")
        before = identities(daemon, untouched)
        clients = [Client(daemon, number, random.Random(chance.random())) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for kill in range(kills):
            time.sleep(chance.uniform(0, 1.0))
            daemon.kill()
            if kill % 4 == 3:
                # in the middle of taking everything up again
                daemon.spawn()
                time.sleep(chance.uniform(0.2, 1.0))
                daemon.kill()
            daemon.start()
            assert [failure for client in clients for failure in client.failures] == []
        for client in clients:
            client.end()
        print(
            f"{sum(c.acknowledged for c in clients)} writes acknowledged, {sum(c.lost for c in clients)} lost answers"
        )
        assert sum(client.acknowledged for client in clients) > kills
        names = {name for client in clients for name, (look,) in client.possible.items() if look}
        found = {service["Spec"]["Name"] for service in get(daemon, "/services")}
        assert found == names | {"untouched-0", "untouched-1"}
        wait_for_convergence(daemon)
        # a kill is no reason for a task to fail, nor for anything else to go wrong
        wrong_lines = [line for line in daemon.log().splitlines() if "task refused" in line or "level=error" in line]
        assert not wrong_lines, "\n".join(wrong_lines)
        assert daemon.log().count('event="snapshot written"') > 1
        assert identities(daemon, untouched) == before
        for _, container, _, _ in before:
            lines = count_lines(daemon, container)
            assert lines == list(range(1, len(lines) + 1))
        status, answer = daemon.request("POST", "/swarm/leave?force=1", timeout=60)
        assert status == 200, answer
        assert get(daemon, "/containers/json?all=1") == []
        assert [path for path in (daemon.exec_root / "netns").iterdir() if not path.name.startswith("ingress")] == []
        assert daemon.stop() == 0
        assert left_on_machine(daemon_id, daemon.root) == []


def send_unheard(daemon, path, body=None):
    """Send a request from a thread of its own; nobody waits for the answer of a daemon that is to be killed."""

    def send():
        with contextlib.suppress(OSError, http.client.HTTPException):
            daemon.request("POST", path, body)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


def test_daemon_killed_while_it_makes_or_leaves_a_swarm():
    """After each kill the node is either in a swarm that works or in none; a swarm left is left whole."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with running_daemon() as daemon:
        daemon_id = get(daemon, "/info")["ID"]
        daemon.import_busybox()
        outcomes = Counter()
        for turn in range(10):
            if turn % 2:
                thread = send_unheard(daemon, "/swarm/init", {"ListenAddr": "127.0.0.1", "AdvertiseAddr": "127.0.0.1"})
                time.sleep(chance.uniform(0.0, 0.15))
            else:
                if get(daemon, "/info")["Swarm"]["LocalNodeState"] != "active":
                    init_swarm(daemon)
                service = create(daemon, f"web{turn}", ["sleep", "999"], replicas=3, RestartPolicy={"Delay": 0})
                wait_for(lambda service=service: len(running(daemon, service)) == 3, "the tasks run")
                thread = send_unheard(daemon, "/swarm/leave?force=1")
                time.sleep(chance.uniform(0.0, 0.3))
            daemon.kill()
            thread.join(30)
            daemon.start()
            state = get(daemon, "/info")["Swarm"]["LocalNodeState"]
            outcomes["init" if turn % 2 else "leave", state] += 1
            if state == "active":
                assert len(get(daemon, "/nodes")) == 1
                wait_for_convergence(daemon)
            else:
                assert state == "inactive"
                assert get(daemon, "/containers/json?all=1") == []
        print(dict(outcomes))
        if get(daemon, "/info")["Swarm"]["LocalNodeState"] == "active":
            assert daemon.request("POST", "/swarm/leave?force=1", timeout=60)[0] == 200
        assert daemon.stop() == 0
        assert left_on_machine(daemon_id, daemon.root) == []


def test_a_log_that_cannot_be_written_ends_the_daemon():
    """Nobody knows what is on a disk after a failed write: the daemon ends, and starts from what was acknowledged."""
    with running_daemon() as daemon:
        daemon.import_busybox()
        init_swarm(daemon)
        service = create(daemon, "before", ["sleep", "1000"])
        (task,) = wait_for(lambda: running(daemon, service), "the task runs")
        acknowledged = {"before"}
        # no file of the daemon may grow beyond 1 MB: as good as a full disk
        subprocess.run(["prlimit", "--pid", str(daemon.pid), "--fsize=1000000:1000000"], check=True)
        bulk = {"Labels": {"bulk": "x" * 100_000}, "Mode": {"Replicated": {"Replicas": 0}}}
        for number in range(50):
            name = f"bulk{number}"
            spec = bulk | {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}
            try:
                status, answer = daemon.request("POST", "/services/create", spec)
            except (OSError, http.client.HTTPException):
                break
            if status != 201:
                assert status in (500, 503), answer
                break
            acknowledged.add(name)
        assert daemon.wait_for_end() == 1
        daemon.start()
        assert acknowledged <= {each["Spec"]["Name"] for each in get(daemon, "/services")}
        assert [each["ID"] for each in wait_for(lambda: running(daemon, service), "it is known")] == [task["ID"]]


def replaced(daemon: RunningDaemon, service: str, before: set[str]) -> bool:
    """Whether three tasks of the service run, and none of those of before."""
    now = {task["ID"] for task in running(daemon, service)}
    return len(now) == 3 and not now & before


def test_swarm_comes_back_after_a_power_cut():
    """Processes, namespaces and the exec root are gone, as after a reboot: what the data root holds is run anew."""
    with running_daemon() as daemon:
        daemon_id = get(daemon, "/info")["ID"]
        daemon.import_busybox()
        init_swarm(daemon)
        command = ["sh", "-c", "hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
        ports = {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}}
        service = create(daemon, "web", command, replicas=3, RestartPolicy={"Delay": 0}, more=ports)
        wait_for(lambda: len(running(daemon, service)) == 3, "the tasks run")
        before = {task["ID"] for task in running(daemon, service)}
        daemon.kill()
        daemon.sweep()
        shutil.rmtree(daemon.exec_root)
        daemon.start()
        # right after the start the store still says what the agent reported before the power went
        wait_for(lambda: replaced(daemon, service, before), "three others run", seconds=CONVERGENCE_SECONDS)
        wait_for_convergence(daemon)
        asked = ("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8080")
        assert len(daemon.execute(*asked).stdout.strip()) == 12
        assert daemon.request("POST", "/swarm/leave?force=1", timeout=60)[0] == 200
        assert daemon.stop() == 0
        assert left_on_machine(daemon_id, daemon.root) == []
