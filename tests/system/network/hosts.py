"""Several hosts on one wire, each a network namespace with a daemon in small, and what they are told of a network."""

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from shoal.network.settings import names_of
from shoal.network.wireguard import control_socket
from tests.system.network.place import HERE, Driver, Place, run


class Host:
    """One host: number N has the address 10.98.0.N. Has what Driver asks of a place."""

    def __init__(self, hosts, number):
        self.number = number
        self.address = f"10.98.0.{number}"
        self.host = f"shoal-h{number}-{hosts.mark}"
        self.path = f"/run/netns/{self.host}"
        self.root = hosts.root / str(number)
        self.root.mkdir()
        self.exec_root = self.root / "exec"
        self.log = (self.root / "driver.log").open("w+")
        self.driver = None
        run("ip", "netns", "add", self.host)
        run("ip", "-n", self.host, "link", "set", "lo", "up")
        run("ip", "link", "add", "name", "eth0", "netns", self.host, "type", "veth", "peer", "name", f"h{number}",
            "netns", hosts.wire)  # fmt: skip
        run("ip", "-n", hosts.wire, "link", "set", f"h{number}", "master", "br0", "up")
        run("ip", "-n", self.host, "addr", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.host, "link", "set", "eth0", "up")

    def drive(self, node_number=None, settings="{}"):
        # names that wireguard-go sees are the machine's, not the namespace's
        self.driver = Driver(self, daemon_id=self.host, settings=settings)
        self.driver.call("set_node_number", self.number if node_number is None else node_number)
        return self.driver

    def attach(self, task_id, *links, ingress_address=None, outside=True):
        overlays = [{"network_id": network_id, "addresses": addresses} for network_id, *addresses in links]
        request = {"task_id": task_id, "overlays": overlays, "outside": outside, "ingress_address": ingress_address}
        return self.driver.call("attach", request)["path"]

    def logged(self):
        return Path(self.log.name).read_text()

    def close(self):
        if self.driver is not None:
            self.driver.kill()
        link = names_of(self.host).secret_link
        run("ip", "-n", self.host, "link", "del", link, check=False)
        control_socket(link).unlink(missing_ok=True)
        for bound in sorted((self.exec_root / "netns").glob("*")):
            run("umount", "-l", str(bound), check=False)
        run("ip", "netns", "del", self.host, check=False)
        self.log.close()


class Hosts(Place):
    """Hosts 1 to `count`; servers and clients run in any namespace by path."""

    def __init__(self, count):
        self.mark = f"{os.getpid()}{os.urandom(2).hex()}"
        self.wire = f"shoal-w-{self.mark}"
        self.root = Path(tempfile.mkdtemp(prefix="shoal-network-"))
        self.children = []
        self.hosts = []
        run("ip", "netns", "add", self.wire)
        # a wire: what crosses it passes no hooks
        run("ip", "netns", "exec", self.wire, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
        run("ip", "-n", self.wire, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.wire, "link", "set", "br0", "up")
        try:
            for number in range(1, count + 1):
                self.hosts.append(Host(self, number))
        except BaseException:
            self.close()
            raise

    def __getitem__(self, number):
        return self.hosts[number - 1]

    def data_path(self, port=4789):
        """Every node with its address and the key it announces."""
        keys = {host.number: host.driver.call("wireguard_key") if host.driver else "" for host in self.hosts}
        return {"port": port, "peers": [{"node_number": host.number, "address": host.address,
                                         "wireguard_key": keys[host.number]} for host in self.hosts]}  # fmt: skip

    def tell(self, version, *updates, **others):
        """Give every host the same change."""
        change = {"version": version, "data_path": self.data_path(), "overlays": updates, **others}
        for host in self.hosts:
            host.driver.call("change", change)

    def ask_whole(self, namespace, address, packet_bytes):
        """Send a UDP packet of this length that must not be cut up; return the length of what arrived."""
        done = run("nsenter", f"--net={namespace}", sys.executable, str(HERE / "peer.py"), "whole", address, "53",
                   str(packet_bytes))  # fmt: skip
        return done.stdout.strip()

    def close(self):
        for child in list(self.children):
            self.stop(child)
        for host in self.hosts:
            with contextlib.suppress(OSError):
                host.close()
        run("ip", "netns", "del", self.wire, check=False)
        shutil.rmtree(self.root)


def overlay(network_id, number, **others):
    """A network: number N has the subnet 10.0.N.0/24 and the VXLAN identifier 4096 + N."""
    return {"network_id": network_id, "name": network_id, "vni": 4096 + number, "subnets": [f"10.0.{number}.0/24"],
            "gateways": [f"10.0.{number}.1"], **others}  # fmt: skip


def update(of, *services, complete=True, removed=()):
    return {"overlay": of, "complete": complete, "services": services, "removed_service_ids": removed}


def endpoint(task_id, node_number, *addresses, serving=True):
    return {"task_id": task_id, "name": task_id, "addresses": addresses, "node_number": node_number,
            "serving": serving}  # fmt: skip


def service(service_id, virtual_ips, *endpoints, affinity="random"):
    return {"service_id": service_id, "names": [service_id], "virtual_ips": virtual_ips, "affinity": affinity,
            "endpoints": endpoints}  # fmt: skip
