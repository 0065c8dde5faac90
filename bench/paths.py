"""What each way to a task costs: direct, overlay, virtual address, mesh with the task here and elsewhere, docker-proxy.

Run as root: python bench/paths.py [seconds [rounds [pattern of names of ways]]]; needs nginx, wrk and iperf3; for
docker-proxy its path in DOCKER_PROXY. Three hosts are namespaces of this machine, so that every hop of a way shares its
processors: compare within a run only. The processor's time a request (us) is that of the client, the server and the
proxy, the kernel's work for them included: unlike the rates it says the same on a machine that has other work. Each way
has a client's address of its own: a port that another way has used a minute ago would be in TIME-WAIT at the server.
Leaves nothing.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.system.network.hosts import Host, Hosts, endpoint, overlay, service, update
from tests.system.network.place import run

from shoal.network.settings import names_of

ROUNDS = 3
# compared round by round: what else the machine does weighs on both alike
PAIRS = (
    ("mesh, task on the node asked", "direct, routed to the task"),
    ("virtual address, same node", "overlay, same node"),
    ("virtual address, other node", "overlay, other node"),
    ("mesh, task on another node", "docker-proxy, past the overlay"),
    ("mesh, task on another node", "docker-proxy, over the overlay"),
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

    def load(self, namespace: str, address: str, port: int, keep: bool) -> tuple[float, float, float, float]:
        """Return requests a second, the median and 99th percentile in ms, and the processor's us a request."""
        header = [] if keep else ["-H", "Connection: close"]
        command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{self.seconds:g}s", "--latency", *header]
        used = -self._processor_ns() - _processor_ns_of_children()
        done = run("nsenter", f"--net={namespace}", *command, f"http://{address}:{port}/")
        used += self._processor_ns() + _processor_ns_of_children()
        rate = float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])  # type: ignore[index]
        count = int(re.search(r"(\d+) requests in", done.stdout)[1])  # type: ignore[index]
        return rate, *(_milliseconds(done.stdout, percent) for percent in ("50%", "99%")), used / count / 1000

    def _processor_ns(self) -> int:
        """Return what the servers have used; the kernel's work on what they send and take is in it."""
        paths = (path for process in self.processes for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
        return sum(int(path.read_text().split()[0]) for path in paths)

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


def _processor_ns_of_children() -> int:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(1e9 * (used.ru_utime + used.ru_stime))


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
    serving = endpoint("server", 1, "10.0.1.11")
    web = service("web", ["10.0.1.2"], serving)
    others = [service(f"s{number}", [f"10.0.1.{100 + number}"], serving) for number in range(100)]
    places = {"near": (1, "10.0.1.12"), "near2": (1, "10.0.1.13"), "far": (2, "10.0.1.21"), "far2": (2, "10.0.1.22")}
    clients = service("clients", [], *(endpoint(name, *place) for name, place in places.items()))
    proxied = {"task_id": "proxied", "address": "10.0.0.12", "node_number": 1}
    ingress = {"version": 1, "ports": ports, "endpoints": [backend, proxied]}
    hosts.tell(1, update(net, web, clients, *others), ingress=ingress)
    server = hosts[1].attach("server", ("net", "10.0.1.11/24"), ingress_address="10.0.0.11")
    inside = {name: hosts[number].attach(name, ("net", f"{address}/24")) for name, (number, address) in places.items()}
    ways.serve(server, "task")
    ways.serve(hosts[1].attach("proxied", ingress_address="10.0.0.12"), "proxied")
    outside = hosts[3].path
    # what nothing else may do: reach the task by its own address, through the same hops and no translation
    nft = ("nft", "insert", "rule", "ip", names_of(hosts[1].host).table, "forward", "accept")
    run("ip", "netns", "exec", hosts[1].host, *nft)
    ways_out = (("10.0.0.11", "via", hosts[1].address), (hosts[1].address,), (hosts[2].address,))
    for number, words in enumerate(ways_out, 31):
        run("ip", "-n", hosts[3].host, "address", "add", f"10.98.0.{number}/24", "dev", "eth0")
        run("ip", "-n", hosts[3].host, "route", "replace", *words, "dev", "eth0", "src", f"10.98.0.{number}")
    found = {
        "direct, routed to the task": (outside, "10.0.0.11", 80, 5201),
        "mesh, task on the node asked": (outside, hosts[1].address, 8080, 8201),
        "mesh, task on another node": (outside, hosts[2].address, 8080, 8201),
        "overlay, same node": (inside["near"], "10.0.1.11", 80, 5201),
        "virtual address, same node": (inside["near2"], "10.0.1.2", 80, 5201),
        "overlay, other node": (inside["far"], "10.0.1.11", 80, 5201),
        "virtual address, other node": (inside["far2"], "10.0.1.2", 80, 5201),
    }
    if os.environ.get("DOCKER_PROXY"):
        # to a task on another node Docker's would have to go over the overlay; this one need not, by a route no one has
        run("ip", "-n", hosts[2].host, "route", "replace", "10.0.0.11/32", "via", hosts[1].address)
        found["docker-proxy, past the overlay"] = proxy(ways, hosts[2], 8081, "10.0.0.11")
        link = names_of(hosts[2].host).host_link
        shown = run("ip", "-n", hosts[2].host, "-4", "-j", "address", "show", "dev", link).stdout
        sandbox = ipaddress.IPv4Address(json.loads(shown)[0]["addr_info"][0]["local"]) + 1
        run("ip", "-n", hosts[2].host, "route", "replace", "10.0.0.12/32", "via", str(sandbox))
        found["docker-proxy, over the overlay"] = proxy(ways, hosts[2], 8091, "10.0.0.12")
    return found


def proxy(ways: Ways, host: Host, port: int, address: str) -> tuple[str, str, int, int]:
    """Start docker-proxy on a host for the two ports of a task; return the way through it."""
    for published, target in ((port, 80), (port + 1, 5201)):
        # it reports to descriptor 3, which it must have
        words = ("-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", str(published), "-container-ip", address)
        command = ["sh", "-c", 'exec "$0" "$@" 3>/dev/null', os.environ["DOCKER_PROXY"], *words]
        ways.spawn(host.path, *command, "-container-port", str(target))
    return ways.hosts[3].path, host.address, port, port + 1


def ratios(rows: list[tuple[float, ...]], others: list[tuple[float, ...]]) -> str:
    """Return the medians of the rounds' ratios: of requests a second, of throughput, of the processor's time."""
    kept, fresh, stream = (
        statistics.median(row[column] / other[column] for row, other in zip(rows, others, strict=True))
        for column in (0, 4, 8)
    )
    costs = (
        statistics.median(other[column] / row[column] for row, other in zip(rows, others, strict=True))
        for column in (3, 7)
    )
    requests = f"{kept:.2f} keep-alive, {fresh:.2f} new connections, {stream:.2f} throughput"
    return f"{requests}; by the processor's time a request: {next(costs):.2f}, {next(costs):.2f}"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS
    chosen = sys.argv[3] if len(sys.argv) > 3 else ""
    hosts = Hosts(3)
    ways = Ways(hosts, seconds)
    try:
        found = {name: way for name, way in build(hosts, ways).items() if re.search(chosen, name)}
        time.sleep(1.0)
        results: dict[str, list[tuple[float, ...]]] = {name: [] for name in found}
        for _ in range(rounds):
            for name, (namespace, address, port, stream_port) in found.items():
                kept = ways.load(namespace, address, port, keep=True)
                fresh = ways.load(namespace, address, port, keep=False)
                results[name].append((*kept, *fresh, ways.throughput(namespace, address, stream_port)))
        print(
            f"{'medians of ' + str(rounds):32} {'keep-alive':>28} {'us':>5} {'new connections':>28} {'us':>5} "
            f"{'Gbit/s':>7}"
        )
        for name, rows in results.items():
            rate, median, late, cost, fresh, fresh_median, fresh_late, fresh_cost, stream = map(
                statistics.median, zip(*rows, strict=True)
            )
            kept_text = f"{rate:8.0f}/s {median:5.2f} {late:6.2f} ms"
            fresh_text = f"{fresh:8.0f}/s {fresh_median:5.2f} {fresh_late:6.2f} ms"
            print(f"{name:32} {kept_text:>28} {cost:5.1f} {fresh_text:>28} {fresh_cost:5.0f} {stream:7.2f}")
        for name, other in PAIRS:
            if {name, other} <= results.keys():
                print(f"{name} to {other}: {ratios(results[name], results[other])}")
    finally:
        ways.close()
        for host in hosts.hosts:
            with contextlib.suppress(Exception):
                host.driver.call("close", True)
        hosts.close()


if __name__ == "__main__":
    main()
