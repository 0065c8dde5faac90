"""Create to all running, and remove to no containers, for services of 10, 50 and 100 replicas.

Run: python bench/start.py [--overlay] [replicas…]; `--overlay`: on an overlay network, with a virtual address. With
DOCKER_PEER_SOCKET set to the socket of a real Docker Swarm (with busybox:latest loaded) both are measured in the same
run, in turns.
"""

from __future__ import annotations

import statistics
import sys
import time

from engines import Engine, engines

ROUNDS = 3
POLL_SECONDS = 0.05
LIMIT_SECONDS = 120.0


def service(name: str, replicas: int, networks: list[str]) -> dict[str, object]:
    return {
        "Name": name,
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Command": ["sleep", "100000"], "StopGracePeriod": 1_000_000},
            "RestartPolicy": {"Delay": 100_000_000},
            "Networks": [{"Target": network} for network in networks],
        },
        "Mode": {"Replicated": {"Replicas": replicas}},
    }


def measure(engine: Engine, replicas: int, round_: int, networks: list[str]) -> tuple[float, float]:
    begun = time.monotonic()
    id_ = engine.call("POST", "/services/create", service(f"bench-{replicas}-{round_}", replicas, networks))["ID"]
    while True:
        tasks = engine.tasks(id_)
        if sum(t["Status"]["State"] == t["DesiredState"] == "running" for t in tasks) == replicas:
            break
        if time.monotonic() - begun > LIMIT_SECONDS:
            raise RuntimeError(f"{engine.name}: not running within {LIMIT_SECONDS} s")
        time.sleep(POLL_SECONDS)
    started = time.monotonic() - begun
    begun = time.monotonic()
    engine.call("DELETE", f"/services/{id_}")
    while engine.containers():
        time.sleep(POLL_SECONDS)
    return started, time.monotonic() - begun


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--overlay"]
    networks = ["bench"] if len(arguments) < len(sys.argv) - 1 else []
    sizes = [int(argument) for argument in arguments] or [10, 50, 100]
    with engines() as found:
        for engine in found if networks else ():
            engine.call("POST", "/networks/create", {"Name": networks[0], "Driver": "overlay"})
        print(f"{'replicas':>8}  {'engine':<8} {'all running, s':>24} {'all removed, s':>24}")
        for replicas in sizes:
            results: dict[str, list[tuple[float, float]]] = {engine.name: [] for engine in found}
            for round_ in range(ROUNDS):
                for engine in found:
                    results[engine.name].append(measure(engine, replicas, round_, networks))
            for name, pairs in results.items():
                cells = [f"{statistics.median(x):.2f} ({min(x):.2f}-{max(x):.2f})" for x in zip(*pairs, strict=True)]
                print(f"{replicas:>8}  {name:<8} {cells[0]:>24} {cells[1]:>24}", flush=True)
        for engine in found:
            if engine.pid:
                print(f"{engine.name}: {engine.memory_mb():.0f} MB resident after this")


if __name__ == "__main__":
    main()
