"""Three hosts on one wire, a client on it and one behind a router, each a network namespace, with a daemon in small on
every host."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.system.network.place import HERE, Driver, Place, run

NEAR_CLIENT, FAR_CLIENT = "10.98.0.100", "203.0.113.7"
NEAR_CLIENT_6 = "fd98::100"
ROUTER, FAR_ROUTER = "10.98.0.1", "203.0.113.1"
NUMBERS = (1, 2, 3)


def address_of(number):
    return f"10.98.0.{10 + number}"


def address_6_of(number):
    return f"fd98::{10 + number}"


class Host:
    """What Driver asks of a place: the namespace, the exec root and the log of one host."""

    def __init__(self, number, name, root):
        self.number, self.host, self.path = number, name, f"/run/netns/{name}"
        self.address = address_of(number)
        self.exec_root = root / f"exec-{number}"
        self.log_path = root / f"driver-{number}.log"
        self.log = self.log_path.open("w")

    @property
    def sandbox(self):
        return next((self.exec_root / "netns").glob("ingress-*"))


class ThreeHosts(Place):
    """The namespaces; servers and clients run in any of them by path."""

    def __init__(self):
        mark = f"{os.getpid()}{os.urandom(2).hex()}"
        self.root = Path(tempfile.mkdtemp(prefix="shoal-mesh-"))
        self.children, self.drivers, self.names = [], [], []
        self.wire = self._namespace(f"shoal-w-{mark}")
        run("ip", "-n", self.wire, "link", "add", "br0", "type", "bridge")
        self._in(self.wire, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0", "net.ipv4.ip_forward=1")
        run("ip", "-n", self.wire, "addr", "add", f"{ROUTER}/24", "dev", "br0")
        run("ip", "-n", self.wire, "link", "set", "br0", "up")
        self.hosts = {number: Host(number, self._namespace(f"shoal-{number}-{mark}"), self.root) for number in NUMBERS}
        for number, host in self.hosts.items():
            self._plug(host.host, f"h{number}", host.address, ROUTER, on_bridge=True)
            self._add_6(host.host, address_6_of(number))
        near, far = self._namespace(f"shoal-n-{mark}"), self._namespace(f"shoal-f-{mark}")
        self._plug(near, "near", NEAR_CLIENT, ROUTER, on_bridge=True)
        self._add_6(near, NEAR_CLIENT_6)
        self._plug(far, "far", FAR_CLIENT, FAR_ROUTER, on_bridge=False)
        run("ip", "-n", self.wire, "addr", "add", f"{FAR_ROUTER}/24", "dev", "far")
        self.near, self.far = f"/run/netns/{near}", f"/run/netns/{far}"

    def _namespace(self, name):
        run("ip", "netns", "add", name)
        self.names.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def _in(self, name, *command):
        return run("nsenter", f"--net=/run/netns/{name}", *command)

    def _plug(self, name, port, address, router, on_bridge):
        run(
            "ip", "link", "add", "name", "eth0", "netns", name, "type", "veth", "peer", "name", port, "netns", self.wire
        )
        if on_bridge:
            run("ip", "-n", self.wire, "link", "set", port, "master", "br0")
        run("ip", "-n", self.wire, "link", "set", port, "up")
        run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        run("ip", "-n", name, "route", "add", "default", "via", router)

    def _add_6(self, name, address):
        run("ip", "-n", name, "addr", "add", f"{address}/64", "dev", "eth0", "nodad")

    def drive(self, number, settings="{}"):
        driver = Driver(self.hosts[number], daemon_id=f"daemon-{number}", settings=settings)
        self.drivers.append(driver)
        return driver

    def command(self, namespace, *arguments):
        """Run peer.py to its end; return the lines it wrote."""
        done = run("nsenter", f"--net={namespace}", sys.executable, str(HERE / "peer.py"), *map(str, arguments))
        return done.stdout.splitlines()

    def close(self):
        for child in list(self.children):
            self.stop(child)
        for driver in self.drivers:
            driver.kill()
        for host in self.hosts.values():
            for bound in sorted((host.exec_root / "netns").glob("*")):
                run("umount", "-l", str(bound), check=False)
            host.log.close()
            # the proxy ends when it finds nothing to do
            (host.exec_root / "network" / "proxy.json").unlink(missing_ok=True)
        for name in self.names:
            run("ip", "netns", "del", name, check=False)
        shutil.rmtree(self.root)
