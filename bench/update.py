"""A rolling update of 20 replicas with parallelism 1 and 5: until every task is a new one, until it counts as complete.

Run: python bench/update.py [--rounds N] [replicas]. With DOCKER_PEER_SOCKET set to the socket of a real Docker Swarm
(with busybox:latest loaded) both are measured in the same run, in turns. Stop-first, no delay, monitored for a second;
the tasks end at SIGTERM, as they should.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from engines import Engine, engines

PARALLELISMS = (1, 5)
POLL_SECONDS = 0.05
LIMIT_SECONDS = 180.0
SECOND_NS = 1_000_000_000
# a shell that ends at once when it is told to
COMMAND = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]


def service(name: str, replicas: int, parallelism: int, turn: int) -> dict[str, Any]:
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Command": COMMAND, "Env": [f"TURN={turn}"]},
            "RestartPolicy": {"Delay": SECOND_NS},
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
        "UpdateConfig": {"Parallelism": parallelism, "Monitor": SECOND_NS, "Order": "stop-first"},
    }


def running(engine: Engine, id_: str, turn: int) -> int:
    """Count the tasks that run as this turn wants them."""
    wanted = [f"TURN={turn}"]
    return sum(
        task["Status"]["State"] == task["DesiredState"] == "running"
        and task["Spec"]["ContainerSpec"].get("Env") == wanted
        for task in engine.tasks(id_)
    )


def wait_until(engine: Engine, is_so: Any, what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{engine.name}: not within {LIMIT_SECONDS:g} s: {what}")
        time.sleep(POLL_SECONDS)


def measure(engine: Engine, replicas: int, parallelism: int, round_: int) -> tuple[float, float]:
    """Return how long an update takes until all tasks are new, and until it is complete."""
    name = f"update-{parallelism}-{round_}"
    id_ = engine.call("POST", "/services/create", service(name, replicas, parallelism, 0))["ID"]
    wait_until(engine, lambda: running(engine, id_, 0) == replicas, "all run")
    version = engine.call("GET", f"/services/{id_}")["Version"]["Index"]
    begun = time.monotonic()
    engine.call("POST", f"/services/{id_}/update?version={version}", service(name, replicas, parallelism, 1))
    wait_until(engine, lambda: running(engine, id_, 1) == replicas, "all tasks are new")
    all_new = time.monotonic() - begun
    wait_until(
        engine,
        lambda: (engine.call("GET", f"/services/{id_}").get("UpdateStatus") or {}).get("State") == "completed",
        "the update is complete",
    )
    complete = time.monotonic() - begun
    engine.call("DELETE", f"/services/{id_}")
    wait_until(engine, lambda: engine.containers() == 0, "all containers are gone")
    return all_new, complete


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("replicas", nargs="?", type=int, default=20)
    asked = parser.parse_args()
    with engines() as found:
        print(f"{'parallelism':>11}  {'engine':<8} {'all tasks new, s':>24} {'complete, s':>24}")
        for parallelism in PARALLELISMS:
            results: dict[str, list[tuple[float, float]]] = {engine.name: [] for engine in found}
            for round_ in range(asked.rounds):
                for engine in found:
                    results[engine.name].append(measure(engine, asked.replicas, parallelism, round_))
            for name, pairs in results.items():
                cells = [f"{statistics.median(x):.2f} ({min(x):.2f}-{max(x):.2f})" for x in zip(*pairs, strict=True)]
                print(f"{parallelism:>11}  {name:<8} {cells[0]:>24} {cells[1]:>24}", flush=True)


if __name__ == "__main__":
    main()
