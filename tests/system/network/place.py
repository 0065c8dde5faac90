"""A host and a client outside it, each a network namespace, with a daemon in small on the host."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
SOURCE = HERE.parents[2] / "src"
HOST_ADDRESS, CLIENT_ADDRESS = "10.98.0.11", "203.0.113.7"
ANSWER_SECONDS = 20


def run(*command, check=True, **keywords):
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60, **keywords)


class Driver:
    """The process of driver.py in the host's namespace. `nsenter`, not `ip netns exec`: mounts must outlive it."""

    def __init__(self, place, daemon_id="test-daemon", settings="{}"):
        self.log_path = place.log.name
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{place.host}", sys.executable, str(HERE / "driver.py"),
             str(place.exec_root), daemon_id, settings],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=place.log, text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )  # fmt: skip
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        assert line, f"the driver ended:\n{Path(self.log_path).read_text()}"
        answer = json.loads(line)
        assert "error" not in answer, answer
        return answer["ok"]

    def call(self, name, argument=None):
        self.process.stdin.write(json.dumps([name, argument]) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def attach(self, task_id, ingress_address=None, host_ports=()):
        request = {"task_id": task_id, "ingress_address": ingress_address, "host_ports": list(host_ports)}
        return self.call("attach", request)

    def set_ingress(self, version, *ports):
        return self.call("set_ingress", {"version": version, "ports": ports})

    def kill(self):
        self.process.kill()
        self.end()

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(ANSWER_SECONDS)
        self.process.stdout.close()


def port(protocol, published, target, *addresses):
    backends = [{"task_id": f"task-{address}", "address": address, "node_number": 1} for address in addresses]
    return {"protocol": protocol, "published_port": published, "target_port": target, "service_id": "s",
            "backends": backends}  # fmt: skip


def host_port(protocol, published, target):
    return {"protocol": protocol, "published_port": published, "target_port": target}


class Place:
    """Namespaces `host` and `client`, linked; servers and clients run in any namespace by path."""

    def __init__(self):
        mark = f"{os.getpid()}{os.urandom(2).hex()}"
        self.host, self.client = f"shoal-h-{mark}", f"shoal-c-{mark}"
        self.root = Path(tempfile.mkdtemp(prefix="shoal-network-"))
        self.exec_root = self.root / "exec"
        self.log = (self.root / "driver.log").open("w+")
        self.children = []
        self.drivers = []
        for name in (self.host, self.client):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "name", "eth0", "netns", self.host, "type", "veth", "peer", "name", "eth0",
            "netns", self.client)  # fmt: skip
        for name, address in ((self.host, HOST_ADDRESS), (self.client, CLIENT_ADDRESS)):
            run("ip", "-n", name, "addr", "add", f"{address}/32", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", self.host, "route", "add", "default", "dev", "eth0")
        run("ip", "-n", self.client, "route", "add", f"{HOST_ADDRESS}/32", "dev", "eth0")
        self.host_path, self.client_path = f"/run/netns/{self.host}", f"/run/netns/{self.client}"

    def drive(self, **keywords):
        driver = Driver(self, **keywords)
        self.drivers.append(driver)
        return driver

    def start(self, namespace, *arguments, **keywords):
        child = subprocess.Popen(
            ["nsenter", f"--net={namespace}", sys.executable, str(HERE / "peer.py"), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **keywords,
        )  # fmt: skip
        self.children.append(child)
        return child

    def serve(self, namespace, name, tcp_port=80, udp_port=53):
        child = self.start(namespace, "serve", name, tcp_port, udp_port)
        assert child.stdout.readline() == "ready\n"
        return child

    def stop(self, child):
        child.kill()
        child.wait(ANSWER_SECONDS)
        child.stdin.close()
        child.stdout.close()
        self.children.remove(child)

    def ask(self, namespace, kind, address, port_number, count=1):
        """Return how often each answer came."""
        done = run("nsenter", f"--net={namespace}", sys.executable, str(HERE / "peer.py"), kind, address,
                   str(port_number), str(count))  # fmt: skip
        return Counter(done.stdout.splitlines())

    def hold(self, namespace, kind, address, port_number):
        """Return a function that makes one exchange over one socket."""
        child = self.start(namespace, "hold", kind, address, port_number)

        def exchange():
            child.stdin.write("?\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        return exchange

    def ruleset(self, namespace):
        return run("nsenter", f"--net={namespace}", "nft", "list", "ruleset").stdout

    def links(self, namespace):
        return {item["ifname"] for item in json.loads(run("nsenter", f"--net={namespace}", "ip", "-j", "link").stdout)}

    def close(self):
        for child in list(self.children):
            self.stop(child)
        for driver in self.drivers:
            driver.kill()
        for bound in sorted((self.exec_root / "netns").glob("*")):
            run("umount", "-l", str(bound), check=False)
        for name in (self.host, self.client):
            run("ip", "netns", "del", name, check=False)
        self.log.close()
        shutil.rmtree(self.root)
