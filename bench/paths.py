"""What each way to a task costs: direct, overlay, virtual address, mesh with the task here and elsewhere, docker-proxy.

Run as root: python bench/paths.py [seconds [rounds]]; needs nginx, wrk and iperf3; for docker-proxy its path in
DOCKER_PROXY. Three hosts are namespaces of this machine, so that every hop of a way shares its processors: compare
within a run only. Leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.system.network.hosts import Hosts, endpoint, overlay, service, update
from tests.system.network.place import run

from shoal.network.settings import names_of

ROUNDS = 3
# compared round by round: what else the machine does weighs on both alike
PAIRS = (
    ("mesh, task on the node asked", "direct, routed to the task"),
    ("virtual address, same node", "overlay, same node"),
    ("virtual address, other node", "overlay, other node"),
    ("mesh, task on another node", "docker-proxy to another node"),
)
CLIENTS = 32
NGINX = """
daemon off; master_process off; worker_processes 1; pid {root}/{name}.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000; client_body_temp_path {root}/{name};
  proxy_temp_path {root}/{name}p; fastcgi_temp_path {root}/{name}f;
  uwsgi_temp_path {root}/{name}u; scgi_temp_path {root}/{name}s;
  server {{ listen 80 backlog=4096; location / {{ return 200 "hello\\n"; }} }} }}
"""


class Ways:
    """The hosts, what serves on them, and the ways to it."""

    def __init__(self, hosts: Hosts, seconds: float) -> None:
        self.hosts, self.seconds = hosts, seconds
        self.processes: list[subprocess.Popen[bytes]] = []

    def spawn(self, namespace: str, *command: str, **keywords: object) -> None:
        process = subprocess.Popen(  # type: ignore[call-overload]
            ["nsenter", f"--net={namespace}", *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **keywords,
        )
        self.processes.append(process)

    def serve(self, namespace: str, name: str) -> None:
        configuration = self.hosts.root / f"{name}.conf"
        configuration.write_text(NGINX.format(root=self.hosts.root, name=name))
        self.spawn(namespace, "nginx", "-c", str(configuration))
        self.spawn(namespace, "iperf3", "-s", "-p", "5201")

    def load(self, namespace: str, address: str, port: int, keep: bool) -> tuple[float, float, float]:
        """Return requests a second, and the median and 99th percentile in ms."""
        header = [] if keep else ["-H", "Connection: close"]
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{self.seconds:g}s", "--latency", *header]
        done = run("nsenter", f"--net={namespace}", *command, f"http://{address}:{port}/")
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]
        return rate, *(_milliseconds(done.stdout, percent) for percent in ("50%", "99%"))

    def throughput(self, namespace: str, address: str, port: int) -> float:
        """Return Gbit a second of one stream."""
        done = run(
            "nsenter",
            f"--net={namespace}",
            "iperf3",
            "-c",
            address,
            "-p",
            str(port),
            "-t",
            f"{self.seconds:g}",
            "-f",
            "m",
        )
        rates = re.findall(r"([\d.]+) Mbits/sec.*receiver", done.stdout)
        return float(rates[-1]) / 1000

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _milliseconds(text: str, percent: str) -> float:
    value, unit = re.search(rf"{percent}\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def build(hosts: Hosts, ways: Ways) -> dict[str, tuple[str, str, int, int]]:
    """Return the ways: client's namespace, address, port of HTTP, port of iperf3."""
    for host in hosts.hosts:
        host.drive()
    net = overlay("net", 1)
    backend = {"task_id": "server", "address": "10.0.0.11", "node_number": 1}
    ports = [
        {
            "protocol": "tcp",
            "published_port": published,
            "target_port": target,
            "service_id": "web",
            "backends": [backend],
        }
        for published, target in ((8080, 80), (8201, 5201))
    ]
    ends = (endpoint("server", 1, "10.0.1.11"), endpoint("near", 1, "10.0.1.12"), endpoint("far", 2, "10.0.1.21"))
    web = service("web", ["10.0.1.2"], ends[0])
    others = [service(f"s{number}", [f"10.0.1.{100 + number}"], ends[0]) for number in range(100)]
    clients = service("clients", [], *ends[1:])
    ingress = {"version": 1, "ports": ports, "endpoints": [backend]}
    hosts.tell(1, update(net, web, clients, *others), ingress=ingress)
    server = hosts[1].attach("server", ("net", "10.0.1.11/24"), ingress_address="10.0.0.11")
    near = hosts[1].attach("near", ("net", "10.0.1.12/24"))
    far = hosts[2].attach("far", ("net", "10.0.1.21/24"))
    ways.serve(server, "task")
    outside = hosts[3].path
    # what nothing else may do: reach the task by its own address, through the same hops and no translation
    nft = ("nft", "insert", "rule", "ip", names_of(hosts[1].host).table, "forward", "accept")
    run("ip", "netns", "exec", hosts[1].host, *nft)
    for host in (hosts[2], hosts[3]):
        run("ip", "-n", host.host, "route", "replace", "10.0.0.11/32", "via", hosts[1].address)
    found = {
        "direct, routed to the task": (outside, "10.0.0.11", 80, 5201),
        "mesh, task on the node asked": (outside, hosts[1].address, 8080, 8201),
        "mesh, task on another node": (outside, hosts[2].address, 8080, 8201),
        "overlay, same node": (near, "10.0.1.11", 80, 5201),
        "virtual address, same node": (near, "10.0.1.2", 80, 5201),
        "overlay, other node": (far, "10.0.1.11", 80, 5201),
        "virtual address, other node": (far, "10.0.1.2", 80, 5201),
    }
    proxy = os.environ.get("DOCKER_PROXY")
    if proxy:
        for port, target in ((8081, 80), (8202, 5201)):
            # it reports to descriptor 3, which it must have
            words = ("-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", str(port), "-container-ip", "10.0.0.11")
            command = ["sh", "-c", 'exec "$0" "$@" 3>/dev/null', proxy, *words, "-container-port", str(target)]
            ways.spawn(hosts[2].path, *command)
        found["docker-proxy to another node"] = (outside, hosts[2].address, 8081, 8202)
    return found


def ratios(rows: list[tuple[float, ...]], others: list[tuple[float, ...]]) -> str:
    """Return the medians of the rounds' ratios: requests a second on kept and on new connections, throughput."""
    kept, fresh, stream = (
        statistics.median(row[column] / other[column] for row, other in zip(rows, others, strict=True))
        for column in (0, 3, 6)
    )
    return f"{kept:.2f} keep-alive, {fresh:.2f} new connections, {stream:.2f} throughput"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    hosts = Hosts(3)
    ways = Ways(hosts, seconds)
    try:
        found = build(hosts, ways)
        time.sleep(1.0)
        results: dict[str, list[tuple[float, ...]]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, (namespace, address, port, stream_port) in found.items():
                kept = ways.load(namespace, address, port, keep=True)
                fresh = ways.load(namespace, address, port, keep=False)
                results[name].append((*kept, *fresh, ways.throughput(namespace, address, stream_port)))
        print(f"{'medians of ' + str(rounds):32} {'keep-alive':>28} {'new connections':>28} {'Gbit/s':>7}")
        for name, rows in results.items():
            rate, median, late, fresh, fresh_median, fresh_late, stream = map(
                statistics.median, zip(*rows, strict=True)
            )
            kept_text = f"{rate:8.0f}/s {median:5.2f} {late:6.2f} ms"
            print(f"{name:32} {kept_text:>28} {fresh:8.0f}/s {fresh_median:5.2f} {fresh_late:6.2f} ms {stream:7.2f}")
        for name, other in PAIRS:
            if other in results:
                print(f"{name} to {other}: {ratios(results[name], results[other])}")
    finally:
        ways.close()
        for host in hosts.hosts:
            with contextlib.suppress(Exception):
                host.driver.call("close", True)
        hosts.close()


if __name__ == "__main__":
    main()
