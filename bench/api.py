"""Requests a second: creates, inspects and lists of services; memory and idle use of a processor.

Run: python bench/api.py [--managers 3]; with DOCKER_PEER_SOCKET set to the socket of a real Docker Swarm both are
measured in one run (with one manager).
Services have no replicas, so what is measured is the API, the log and the store.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable

from engines import Engine, engines, several_managers

SEQUENTIAL_COUNT = 300
PARALLEL_CLIENTS = 16
PARALLEL_COUNT = 40
LISTED = 100
IDLE_SECONDS = 10.0
ROUNDS = 3


def service(name: str) -> dict[str, object]:
    return {
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Command": ["sleep", "100000"]}},
        "Mode": {"Replicated": {"Replicas": 0}},
    }


def rate(count: int, call: Callable[[int], None]) -> float:
    begun = time.monotonic()
    for number in range(count):
        call(number)
    return count / (time.monotonic() - begun)


def parallel(engine: Engine, count: int, call: Callable[[Engine, int], None]) -> float:
    clients = [Engine(engine.name, engine.path) for _ in range(PARALLEL_CLIENTS)]

    def work(client: Engine, first: int) -> None:
        for number in range(first, first + count):
            call(client, number)

    threads = [threading.Thread(target=work, args=(c, p * count)) for p, c in enumerate(clients)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return PARALLEL_CLIENTS * count / (time.monotonic() - begun)


def clear(engine: Engine) -> None:
    for one in engine.call("GET", "/services"):
        engine.call("DELETE", f"/services/{one['ID']}")


def measure(engine: Engine) -> dict[str, float]:
    clear(engine)
    rates: dict[str, float] = {}
    rates["create, one client"] = rate(
        SEQUENTIAL_COUNT, lambda n: engine.call("POST", "/services/create", service(f"one-{n}"))
    )
    clear(engine)
    rates[f"create, {PARALLEL_CLIENTS} clients"] = parallel(
        engine, PARALLEL_COUNT, lambda client, n: client.call("POST", "/services/create", service(f"many-{n}"))
    )
    clear(engine)
    for number in range(LISTED):
        engine.call("POST", "/services/create", service(f"listed-{number}"))
    rates["inspect, one client"] = rate(
        SEQUENTIAL_COUNT, lambda n: engine.call("GET", f"/services/listed-{n % LISTED}")
    )
    rates[f"list of {LISTED}, one client"] = rate(100, lambda _n: engine.call("GET", "/services"))
    rates[f"list of {LISTED}, {PARALLEL_CLIENTS} clients"] = parallel(
        engine, 10, lambda client, _n: client.call("GET", "/services")
    )
    clear(engine)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--managers", type=int, default=1, help="with more than one: through the leader and a follower")
    managers = parser.parse_args().managers
    with several_managers(managers) if managers > 1 else engines() as found:
        rows: dict[str, dict[str, list[float]]] = {}
        for _ in range(ROUNDS):
            for engine in found:
                for name, value in measure(engine).items():
                    rows.setdefault(name, {}).setdefault(engine.name, []).append(value)
        print(f"{'requests a second':<28}" + "".join(f"{engine.name:>24}" for engine in found))
        for name, values in rows.items():
            cells = [values[engine.name] for engine in found]
            print(f"{name:<28}" + "".join(f"{statistics.median(x):>9.0f} ({min(x):.0f}-{max(x):.0f})" for x in cells))
        ours = found[0]
        before = ours.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        used = (ours.cpu_seconds() - before) / IDLE_SECONDS
        print(f"{ours.name}: {ours.memory_mb():.0f} MB resident, idle {used * 100:.2f} % of a core")


if __name__ == "__main__":
    main()
