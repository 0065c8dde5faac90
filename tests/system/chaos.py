"""Real swarms under real faults: a lab whose daemons are killed, stopped, parted, out of disk, while clients write.

    python -m tests.system.chaos --minutes 10 [--seed 1] [--managers 3] [--workers 2]

In rounds: faults for a while, then all is healed and everything wanted must run again, once, on all accounts. What the
clients were told must be a linearizable history. The seed draws the faults; what comes of them is the machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from shoal.errors import ShoalError
from shoal.lab.lab import Lab
from shoal.lab.node import LabNode
from tests.sim.linearizability import NEVER, Operation, is_linearizable, service_step
from tests.system.daemon import wait_for
from tests.system.lab import running_lab

NAMES = ("c0", "c1", "c2")
REPLICAS_MOST = 3
HEALING_SECONDS = 120.0
ROUND_SECONDS = 45.0
CLIENTS = 3
FULL_BYTES = 1
READ_SECONDS = 10.0
WRITE_SECONDS = 30.0
SERVICE_LABEL = "com.docker.swarm.service.id"
TASK_LABEL = "com.docker.swarm.task.id"
# what the daemon says of a change that has certainly not been made
NOT_MADE = ("does not have a leader", "leads no more: try again", "This node is not a swarm manager")


class Recorder:
    """Operations by service name, in the order in which they were asked and answered."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._now = 0
        self.operations: dict[str, list[Operation]] = {name: [] for name in NAMES}
        self.outcomes: Counter[str] = Counter()

    def moment(self) -> int:
        with self._turn:
            self._now += 1
            return self._now

    def note(self, service: str, name: str, arguments: tuple[str, ...], outcome: Any, called_at: int, who: str) -> None:
        answered_at = NEVER if outcome == "unknown" else self.moment()
        with self._turn:
            self.outcomes[f"{name} {outcome if isinstance(outcome, str) else 'seen'}"] += 1
            operation = Operation(name, arguments, outcome, called_at, answered_at, who)
            self.operations[service].append(operation)

    def judge(self) -> None:
        for service, operations in self.operations.items():
            told = "\n".join(map(str, sorted(operations, key=lambda each: each.called_at)))
            assert is_linearizable(operations, service_step, None), f"{service}: no linearizable history:\n{told}"


class Client(threading.Thread):
    """Reads and writes through any manager until it is told to stop."""

    def __init__(self, name: str, managers: list[LabNode], recorder: Recorder, seed: str) -> None:
        super().__init__(name=name, daemon=True)
        self._managers = managers
        self._recorder = recorder
        self._chance = random.Random(seed)
        self._writes = 0
        self.pause = threading.Event()
        self.is_idle = threading.Event()
        self.is_over = False
        self.trouble = ""

    def run(self) -> None:
        try:
            while not self.is_over:
                if self.pause.is_set():
                    self.is_idle.set()
                    time.sleep(0.05)
                    continue
                self.is_idle.clear()
                self._act(self._chance.choice(NAMES))
                time.sleep(self._chance.expovariate(2.0))
        except Exception as error:
            self.trouble = repr(error)
            raise
        finally:
            self.is_idle.set()

    def _act(self, service: str) -> None:
        seen = self.read(service, self._chance.choice(self._managers))
        if seen == "failed" or self._chance.random() < 0.2:
            return
        self._writes += 1
        tag = f"{self.name}-{self._writes}"
        if seen is None:
            spec = spec_of(service, tag, self._chance.randint(1, REPLICAS_MOST))
            self._write(service, "create", (tag,), "/services/create", spec)
            return
        labels = seen["Spec"]["Labels"]
        if self._chance.random() < 0.15:
            self._write(service, "remove", (labels["birth"],), f"/services/{seen['ID']}", None)
            return
        spec = {**seen["Spec"], "Labels": {**labels, "tag": tag}}
        spec["Mode"] = {"Replicated": {"Replicas": self._chance.randint(0, REPLICAS_MOST)}}
        path = f"/services/{seen['ID']}/update?version={seen['Version']['Index']}"
        self._write(service, "update", (labels["birth"], labels["tag"], tag), path, spec)

    def read(self, service: str, node: LabNode) -> Any:
        """Return the service, None, or "failed"; what is said to be stale is nobody's claim."""
        called_at = self._recorder.moment()
        try:
            answer = node.ask("GET", f"/services/{service}", None, READ_SECONDS)
        except (ShoalError, OSError):
            return "failed"
        if answer.status not in (200, 404) or any(name.lower() == "x-shoal-stale" for name in answer.headers):
            return "failed"
        seen = answer.body if answer.status == 200 else None
        labels = seen["Spec"]["Labels"] if seen else {}
        outcome = (labels["birth"], labels["tag"]) if seen else None
        self._recorder.note(service, "read", (), outcome, called_at, self.name)
        return seen

    def _write(self, service: str, name: str, arguments: tuple[str, ...], path: str, body: Any) -> None:
        called_at = self._recorder.moment()
        method = "DELETE" if name == "remove" else "POST"
        try:
            answer = self._chance.choice(self._managers).ask(method, path, body, WRITE_SECONDS)
        except (ShoalError, OSError):
            outcome = "unknown"
        else:
            outcome = outcome_of(answer.status, str(answer.body))
        if outcome == "failed":
            self._recorder.outcomes[f"{name} failed"] += 1
        else:
            self._recorder.note(service, name, arguments, outcome, called_at, self.name)


def outcome_of(status: int, text: str) -> str:
    """What an answer says of a write."""
    if status in (200, 201):
        return "done"
    if status == 404:
        return "missing"
    if status == 409:
        return "taken"
    if "out of sequence" in text:
        return "stale"
    return "failed" if any(words in text for words in NOT_MADE) else "unknown"


def spec_of(name: str, tag: str, replicas: int) -> dict[str, Any]:
    container = {"Image": "busybox", "Args": ["sleep", "99999"], "StopGracePeriod": 0}
    return {
        "Name": name,
        "Labels": {"birth": tag, "tag": tag},
        "TaskTemplate": {"ContainerSpec": container, "RestartPolicy": {"Delay": 1_000_000_000}},
        "Mode": {"Replicated": {"Replicas": replicas}},
    }


class Chaos:
    """Draws faults on a lab and takes them back."""

    def __init__(self, lab: Lab, seed: int, say: Callable[[str], None] = print) -> None:
        self._lab = lab
        self._chance = random.Random(f"chaos {seed}")
        self._began = time.monotonic()
        self._say_line = say
        self.done: Counter[str] = Counter()

    def say(self, text: str) -> None:
        self._say_line(f"{time.monotonic() - self._began:7.1f} {text}")

    def one(self) -> None:
        """One fault, to its end or with what `heal` takes back."""
        kind = self._chance.choice(
            [self._kill, self._power, self._freeze, self._part, self._part, self._full, self._leader, self._lose_disk]
        )
        self.done[kind.__name__.strip("_")] += 1
        kind()

    def _node(self) -> LabNode:
        return self._chance.choice(self._lab.nodes)

    def _hold(self, most: float) -> None:
        time.sleep(self._chance.uniform(0.3, most))

    def start(self, node: LabNode) -> None:
        """As systemd: tried again; a full disk may end it at once."""
        with contextlib.suppress(ShoalError):
            node.start()

    def _kill(self, node: LabNode | None = None) -> None:
        node = node or self._node()
        if node.state == "running":
            self.say(f"kill -9 {node.name}")
            node.kill_daemon()
            self._hold(6.0)
        self.start(node)

    def _leader(self) -> None:
        for node in self._lab.nodes:
            with contextlib.suppress(ShoalError, KeyError, TypeError):
                for row in node.ask("GET", "/nodes", None, READ_SECONDS).body:
                    if row.get("ManagerStatus", {}).get("Leader"):
                        self._kill(self._lab.node(row["Description"]["Hostname"]))
                        return

    def _power(self) -> None:
        node = self._node()
        self.say(f"{node.name} loses its power")
        node.kill()
        self._hold(10.0)
        self.start(node)

    def _freeze(self) -> None:
        node = self._node()
        if node.state == "running":
            self.say(f"{node.name} is stopped")
            node.freeze()
            self._hold(20.0)
            node.thaw()
            self.say(f"{node.name} goes on")

    def _part(self) -> None:
        node = self._node()
        others = [each.name for each in self._lab.nodes if each.name != node.name]
        way = self._chance.choice([None, None, "in", "out"])
        chosen = self._chance.sample(others, self._chance.randint(1, len(others)))
        self.say(f"{node.name} is parted from {chosen} ({way or 'both ways'})")
        self._lab.partition(node.name, one_way=way, others=chosen)
        self._hold(12.0)
        self._lab.heal(node.name)

    def _full(self) -> None:
        """Every write of the daemon fails, as on a full disk; then it is started again."""
        node = self._node()
        if node.state != "running":
            return
        self.say(f"the disk of {node.name} is full")
        daemon = node.pid
        kept = resource.prlimit(daemon, resource.RLIMIT_FSIZE)
        resource.prlimit(daemon, resource.RLIMIT_FSIZE, (FULL_BYTES, kept[1]))
        self._hold(5.0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(daemon, resource.RLIMIT_FSIZE, kept)
        self._hold(2.0)
        self.start(node)

    def _lose_disk(self) -> None:
        """A manager comes back without its log: only where all others have theirs, or it is lost for good."""
        managers = [node for node in self._lab.nodes if node.role == "manager"]
        if not all(self._knows_all(node, len(managers)) for node in managers):
            return
        node = self._chance.choice(managers)
        self.say(f"{node.name} loses its power and its log")
        node.kill()
        shutil.rmtree(node.data_root / "swarm" / "raft")
        self._hold(5.0)
        self.start(node)

    def _knows_all(self, node: LabNode, managers: int) -> bool:
        try:
            rows = _get(node, "/nodes")
        except (ShoalError, OSError):
            return False
        reachable = [row for row in rows if row.get("ManagerStatus", {}).get("Reachability") == "reachable"]
        return len(reachable) == managers

    def heal(self) -> None:
        """Take everything back: from now on all must come right by itself."""
        self.say("all is healed")
        self._lab.heal()
        for node in self._lab.nodes:
            if node.state == "frozen":
                node.thaw()
            node.start()


class Census:
    """What runs, by the word of the managers and by that of every node."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def managers(self) -> list[LabNode]:
        return [node for node in self._lab.nodes if node.role == "manager"]

    def wrong(self) -> list[str]:
        """Say what is not as it is wanted."""
        wrong: list[str] = []
        for node in self._lab.nodes:
            if node.state != "running":
                node.start()  # as systemd would
                wrong.append(f"{node.name} did not run")
        manager = self.managers()[0]
        nodes = _get(manager, "/nodes")
        wrong += [
            f"{n['Description']['Hostname']} is {n['Status']['State']}"
            for n in nodes
            if n["Status"]["State"] != "ready"
        ]
        tasks = _get(manager, "/tasks")
        wanted: set[str] = set()
        for service in _get(manager, "/services"):
            ours = [t for t in tasks if t["ServiceID"] == service["ID"] and t["DesiredState"] in ("ready", "running")]
            slots = sorted(task["Slot"] for task in ours)
            replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"]
            if len(slots) != replicas or len(set(slots)) != replicas:
                wrong.append(f"{service['Spec']['Name']} has slots {slots}, {replicas} are wanted")
            states = {task["Status"]["State"] for task in ours}
            if states - {"running"}:
                wrong.append(f"{service['Spec']['Name']} has tasks {states}")
            wanted |= {task["ID"] for task in ours}
        found = [task for node in self._lab.nodes for task in self._running_on(node)]
        if sorted(found) != sorted(wanted):
            extra, lacking = set(found) - wanted, wanted - set(found)
            wrong.append(f"run without need: {extra}; lacking: {lacking}; {len(found)} run")
        return wrong

    def _running_on(self, node: LabNode) -> list[str]:
        containers = _get(node, "/containers/json")
        return [c["Labels"][TASK_LABEL] for c in containers if TASK_LABEL in c["Labels"]]


def _get(node: LabNode, path: str) -> Any:
    answer = node.ask("GET", path, None, READ_SECONDS)
    if answer.status != 200 or any(name.lower() == "x-shoal-stale" for name in answer.headers):
        raise ShoalError(f"GET {path} of {node.name}: {answer.status} {answer.body}")
    return answer.body


@contextlib.contextmanager
def running_clients(managers: list[LabNode], recorder: Recorder, seed: int) -> Iterator[list[Client]]:
    clients = [Client(f"k{number}", managers, recorder, f"client {seed} {number}") for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.is_over = True
        for client in clients:
            client.join(2 * WRITE_SECONDS)


def run(seconds: float, seed: int, managers: int, workers: int, say: Callable[[str], None] = print) -> Counter[str]:
    """Rounds of chaos and calm for so long; returns what was done. Raises AssertionError, with what did not hold."""
    recorder = Recorder()
    with running_lab(managers, workers) as lab:
        chaos, census = Chaos(lab, seed, say), Census(lab)
        with running_clients(census.managers(), recorder, seed) as clients:
            end = time.monotonic() + seconds
            number = 0
            while time.monotonic() < end:
                number += 1
                live_through_a_round(chaos, census, clients, min(end, time.monotonic() + ROUND_SECONDS), number)
        for client in clients:
            assert not client.trouble, client.trouble
            for node in census.managers():
                for name in NAMES:
                    assert client.read(name, node) != "failed", f"{node.name} does not answer"
        recorder.judge()
        say(f"{number} rounds: {dict(chaos.done)}; {dict(recorder.outcomes)}")
    return chaos.done + recorder.outcomes


def live_through_a_round(chaos: Chaos, census: Census, clients: list[Client], end: float, number: int) -> None:
    while time.monotonic() < end:
        chaos.one()
    chaos.heal()
    healed_at = time.monotonic()
    for client in clients:
        client.is_idle.clear()
        client.pause.set()
    wait_for(lambda: all(client.is_idle.is_set() for client in clients), "the clients rest", 2 * WRITE_SECONDS)
    seen: list[str] = []

    def is_well() -> bool:
        try:
            seen[:] = census.wrong()
        except (ShoalError, OSError) as error:
            seen[:] = [str(error)]
        return not seen

    try:
        wait_for(is_well, "all is well", HEALING_SECONDS)
    except AssertionError:
        raise AssertionError(f"round {number} does not come right in {HEALING_SECONDS:.0f} s: {seen}") from None
    chaos.say(f"round {number}: all is well {time.monotonic() - healed_at:.1f} s after healing")
    for client in clients:
        client.pause.clear()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--managers", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    try:
        run(given.minutes * 60, given.seed, given.managers, given.workers, lambda text: print(text, flush=True))
    except (AssertionError, subprocess.SubprocessError) as error:
        print(f"seed {given.seed}: {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
