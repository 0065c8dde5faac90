"""What a lab has in the kernel besides processes: namespaces, the bridge, its cuts, mounts, cgroups. Blocking.

Every making is complete or repeated: a function that is called again after a crash makes what is missing. Every taking
away accepts that nothing is there. Must not know of swarms.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from shoal.errors import ShoalError
from shoal.lab.plan import PREFIX, Cut, cut_rules, hardware_address, namespace_of

NAMESPACES = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")
BRIDGE = "br0"
BRIDGE_PART = "bridge"
NODE_LINK = "eth0"
PREFIX_LENGTH = 24
COMMAND_SECONDS = 30.0


def run(*command: str, text: str | None = None, check: bool = True) -> str:
    """Run a program and return its output.

    Args:
        command: the program and its arguments.
        text: its standard input.
        check: whether its failure is an error.

    Raises:
        ShoalError: it is not installed, or it fails; with its last words.
    """
    try:
        done = subprocess.run(
            command, input=text or "", capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS
        )
    except FileNotFoundError:
        raise ShoalError(f"shoal lab needs {command[0]}: install iproute2, nftables and util-linux") from None
    if check and done.returncode:
        raise ShoalError(f"this failed: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def namespace_path(lab: str, part: str) -> Path:
    """Return where the network namespace of a node is mounted."""
    return NAMESPACES / namespace_of(lab, part)


def make_bridge(lab: str) -> None:
    """Make the namespace with the bridge that joins the nodes."""
    name = namespace_of(lab, BRIDGE_PART)
    if not namespace_path(lab, BRIDGE_PART).exists():
        run("ip", "netns", "add", name)
    links = [link["ifname"] for link in json.loads(run("ip", "-n", name, "-json", "link", "show"))]
    if BRIDGE not in links:
        run("ip", "-n", name, "-batch", "-", text=f"link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n")


def make_host(lab: str, node: str, address: str, uts: Path) -> None:
    """Make a node's network namespace, its plugged-in link, and a uts namespace in which it has its name.

    Args:
        lab: name of the lab.
        node: name of the node and of its host.
        address: its address on the bridge.
        uts: file at which the uts namespace is mounted.
    """
    bridge, name = namespace_of(lab, BRIDGE_PART), namespace_of(lab, node)
    if not namespace_path(lab, node).exists():
        run("ip", "netns", "add", name)
    links = [link["ifname"] for link in json.loads(run("ip", "-n", name, "-json", "link", "show"))]
    if NODE_LINK not in links:
        hardware = hardware_address(address)
        run("ip", "-n", bridge, "link", "del", node, check=False)
        peer = f"type veth peer name {NODE_LINK} address {hardware} netns {name}"
        run("ip", "-n", bridge, "-batch", "-", text=f"link add {node} {peer}\nlink set {node} master {BRIDGE} up\n")
    lines = ["link set lo up", f"addr replace {address}/{PREFIX_LENGTH} dev {NODE_LINK}", f"link set {NODE_LINK} up"]
    run("ip", "-n", name, "-batch", "-", text="".join(f"{line}\n" for line in lines))
    if not is_mounted(uts):
        uts.touch()
        run("unshare", f"--uts={uts}", "hostname", node)


def unplug(lab: str, node: str) -> None:
    """Take a node's cable away: from here on nothing it sends is heard."""
    run("ip", "-n", namespace_of(lab, BRIDGE_PART), "link", "del", node, check=False)


def disconnect(lab: str) -> None:
    """Switch the bridge off: no node hears another."""
    run("ip", "-n", namespace_of(lab, BRIDGE_PART), "link", "set", BRIDGE, "down", check=False)


def remove_host(lab: str, node: str, uts: Path) -> None:
    """Take a node's namespaces away; what is in them ends with them."""
    unplug(lab, node)
    if namespace_path(lab, node).exists():
        run("ip", "netns", "del", namespace_of(lab, node))
    if uts.exists():
        unmount_under(uts)
        uts.unlink()


def remove_namespaces(lab: str) -> None:
    """Take all network namespaces away that carry the lab's name, also of nodes that nobody remembers."""
    if NAMESPACES.exists():
        for path in NAMESPACES.glob(f"{PREFIX}-{lab}-*"):
            run("ip", "netns", "del", path.name)


def apply_cuts(lab: str, cuts: tuple[Cut, ...]) -> None:
    """Have the bridge drop what these cuts say, and nothing else."""
    run(*enter(lab, BRIDGE_PART), "nft", "-f", "-", text=cut_rules(cuts))


def enter(lab: str, part: str, uts: Path | None = None) -> list[str]:
    """Return the command line that goes before a command to run it on a node.

    Not `ip netns exec`: its mount namespace would keep a daemon's mounts from everybody else.
    """
    host_name = [f"--uts={uts}"] if uts is not None else []
    return ["nsenter", f"--net={namespace_path(lab, part)}", *host_name, "--"]


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at a path (which `Path.is_mount` tells of directories only)."""
    return os.path.ismount(path)


def unmount_under(root: Path) -> None:
    """Unmount a path and all below it, the innermost first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    below = [point for point in points if point == str(root) or point.startswith(f"{root}/")]
    for point in sorted(below, key=len, reverse=True):
        run("umount", "-l", point, check=False)


def cgroups_of(daemon_id: str) -> list[Path]:
    """Return the cgroups that a daemon has made, in every hierarchy: of its containers, keeper and resolver."""
    names = (f"shoal-{daemon_id}", f"shoal-keeper-{daemon_id}", f"shoal-resolver-{daemon_id}")
    return [path for name in names for path in (*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}"))]


def remove_cgroups(daemon_id: str) -> None:
    """Remove a daemon's cgroups; the processes in them have ended."""
    for cgroup in cgroups_of(daemon_id):
        # files of a cgroup cannot be unlinked, and need not be
        shutil.rmtree(cgroup, ignore_errors=True)


def networks_in_use() -> list[str]:
    """Return the networks that this machine has addresses in, in CIDR form."""
    found = []
    for link in json.loads(run("ip", "-json", "-4", "addr", "show")):
        found += [f"{entry['local']}/{entry['prefixlen']}" for entry in link.get("addr_info", ())]
    return found
