"""Several shoalds, each a host of its own: network namespaces on one bridge, with addresses 192.168.77.N."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from tests.system.daemon import RunningDaemon, running_daemon

NETWORK = "192.168.77"


class Host:
    """A daemon and its address on the common bridge."""

    def __init__(self, daemon: RunningDaemon, number: int, bridge: str) -> None:
        self.daemon = daemon
        self.address = f"{NETWORK}.{number}"
        self._bridge = bridge
        self._port = f"h{number}"

    def plug_in(self) -> None:
        """Connect it to the bridge."""
        pair = ("link", "add", self._port, "netns", self._bridge, "type", "veth", "peer", "eth0", "netns")
        ip(*pair, self.daemon.netns)
        ip("-n", self.daemon.netns, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.daemon.netns, "link", "set", "eth0", "up")
        ip("-n", self._bridge, "link", "set", self._port, "master", "br0", "up")

    def cut(self) -> None:
        """Let nothing through, in either direction; the link stays up on its side."""
        ip("-n", self._bridge, "link", "set", self._port, "nomaster")

    def heal(self) -> None:
        """Connect it again."""
        ip("-n", self._bridge, "link", "set", self._port, "master", "br0")


def ip(*arguments: str) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def running_hosts(count: int) -> Iterator[list[Host]]:
    """Run `count` daemons that can reach each other; none is in a swarm."""
    with contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(running_daemon()) for _ in range(count)]
        bridge = f"{daemons[0].netns}-br"
        ip("netns", "add", bridge)
        stack.callback(ip, "netns", "del", bridge)
        ip("-n", bridge, "link", "add", "br0", "type", "bridge")
        ip("-n", bridge, "link", "set", "br0", "up")
        hosts = [Host(daemon, number, bridge) for number, daemon in enumerate(daemons, 1)]
        for host in hosts:
            host.plug_in()
        yield hosts
