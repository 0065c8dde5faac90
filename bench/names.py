"""Answers a second and times of the resolver, asked from several namespaces at once. Needs root; leaves nothing.

Run: `unshare -n python bench/names.py [namespaces] [seconds]`, so that "the host" is an empty namespace. The askers run
on the same processors: with few of them the numbers are theirs as well.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import structlog

from shoal.model.netstate import Overlay, OverlayEndpoint, OverlayLink, OverlayService, OverlayUpdate, SandboxRequest
from shoal.network.names.client import ResolverClient

LARGE_SERVICES, LARGE_TASKS = 1000, 10
FRONT = Overlay(network_id="n1", name="front", vni=4097, subnets=("10.0.0.0/16",))

# in each namespace: a window of queries kept full (rate), or one at a time (latency)
ASKER = """
import socket, struct, sys, time
names, window, seconds = sys.argv[1].split(","), int(sys.argv[2]), float(sys.argv[3])
def query(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + labels + bytes([0, 0, 1, 0, 1])
tails = [query(name) for name in names]
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
channel.settimeout(1.0)
channel.connect(("127.0.0.11", 53))
sys.stdin.readline()
sent, times, clock, count, lost = {}, [], time.perf_counter, 0, 0
def send():
    global count
    key = struct.pack(">H", count & 0xFFFF)
    sent[key] = clock()
    channel.send(key + tails[count % len(tails)])
    count += 1
end = clock() + seconds
for _ in range(window):
    send()
while clock() < end:
    try:
        key = channel.recv(4096)[:2]
    except TimeoutError:
        lost += len(sent)
        sent.clear()
        for _ in range(window):
            send()
        continue
    times.append(clock() - sent.pop(key))
    send()
times.sort()
print(len(times), lost, times[len(times) // 2], times[int(len(times) * 0.99)])
"""


def endpoint(service: int, task: int) -> OverlayEndpoint:
    address = f"10.0.{service % 250}.{task % 250 + 1}"
    return OverlayEndpoint(
        task_id=f"t{service}-{task}", name=f"s{service}.{task}.x", addresses=(address,), node_number=1, serving=True
    )


def service(number: int, name: str, tasks: int) -> OverlayService:
    endpoints = tuple(endpoint(number, task) for task in range(tasks))
    return OverlayService(
        service_id=f"id{number}", names=(name,), virtual_ips=(f"10.0.255.{number % 250 + 1}",), endpoints=endpoints
    )


def measure(namespaces: list[str], names: str, window: int, seconds: float, pid: int) -> None:
    askers = [
        subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", ASKER, names, str(window), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for namespace in namespaces
    ]
    used = processor_seconds(pid)
    found = [asker.communicate("go\n")[0].split() for asker in start_together(askers)]
    used = processor_seconds(pid) - used
    answers = sum(int(each[0]) for each in found)
    lost = sum(int(each[1]) for each in found)
    median, late = (1e3 * statistics.median(float(each[column]) for each in found) for column in (2, 3))
    print(
        f"{names:24} {len(namespaces):3} askers, {window:3} at once: {answers / seconds:8.0f} answers/s, "
        f"median {median:6.3f} ms, p99 {late:6.3f} ms, lost {lost}, {1e6 * used / max(1, answers):5.1f} us of CPU each"
    )


def start_together(askers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    # each waits for its line; interpreters are up by then
    time.sleep(0.5)
    for asker in askers:
        assert asker.stdin is not None
        asker.stdin.write("go\n")
        asker.stdin.flush()
    return askers


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(name: str, work: object, *arguments: object) -> None:
    begin = time.perf_counter()
    assert callable(work)
    work(*arguments)
    print(f"{name:60} {1e3 * (time.perf_counter() - begin):8.2f} ms")


def main(count: int, seconds: float) -> None:
    namespaces = [f"shoal-bench-{os.getpid()}-{number}" for number in range(count)]
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as root, contextlib.ExitStack() as stack:
        client = ResolverClient(Path(root), f"shoal-resolver-bench-{os.getpid()}")
        timed("start of the resolver", client.start)
        stack.callback(client.close, True)
        large = tuple(service(number, f"s{number}", LARGE_TASKS) for number in range(LARGE_SERVICES))
        whole = OverlayUpdate(overlay=FRONT, complete=True, services=(*large, service(9999, "web", 10)))
        timed(f"a network of {LARGE_SERVICES} services of {LARGE_TASKS} tasks", client.set_network, whole)
        one = OverlayUpdate(overlay=FRONT, services=(service(9999, "web", 8),))
        timed("one service changes", client.set_network, one)
        times = []
        for number, namespace in enumerate(namespaces):
            subprocess.run(["ip", "netns", "add", namespace], check=True)
            stack.callback(subprocess.run, ["ip", "netns", "del", namespace], check=True)
            subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
            links = (OverlayLink(network_id="n1", addresses=()),)
            request = SandboxRequest(task_id=f"t{number}", overlays=links)
            begin = time.perf_counter()
            client.add_container(request, Path(f"/run/netns/{namespace}"))
            times.append(1e3 * (time.perf_counter() - begin))
        print(f"{'a container is served, median':60} {statistics.median(times):8.2f} ms")
        pid = client.look().pid
        for names in ("web", "tasks.web", "web,tasks.web,web.front,s7.3.x"):
            measure(namespaces, names, 16, seconds, pid)
        measure(namespaces[:1], "web", 1, seconds, pid)
        measure(namespaces[:1], "web", 64, seconds, pid)
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        print(f"{int(resident) / 1024:.0f} MB resident")


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 8, float(sys.argv[2]) if len(sys.argv) > 2 else 3.0)
