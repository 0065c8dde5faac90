"""One WireGuard link: by the kernel where it can, else by the program wireguard-go, which outlives the daemon.

Either is set up by `wg`. Knows no nodes. Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

import structlog

from shoal.errors import Unavailable
from shoal.network import rtnetlink
from shoal.network.features import has_kernel_wireguard
from shoal.network.netlink import Socket
from shoal.network.settings import NetworkSettings

_log = structlog.get_logger(__name__)

KERNEL, PROGRAM = "kernel", "program"
CONTROL_DIRECTORY = Path("/var/run/wireguard")
TUN_DEVICE = Path("/dev/net/tun")
DISCARD_PORT = 9
COMMAND_SECONDS = 20.0
END_SECONDS = 5.0
# would keep wireguard-go in the foreground, or our pipes in its hands
_FOREIGN_VARIABLES = ("WG_PROCESS_FOREGROUND", "LOG_LEVEL", "WG_TUN_FD", "WG_UAPI_FD")
NEEDS = (
    "install wireguard-tools, and a kernel with WireGuard or the package wireguard-go (with /dev/net/tun), on every "
    "node, or make the network without --opt encrypted"
)


def find_way(settings: NetworkSettings) -> str:
    """Return by what a link can be made here.

    Raises:
        Unavailable: by nothing; the text says what to do.
    """
    if shutil.which(settings.wireguard_tool) is None:
        raise Unavailable(f"this node cannot encrypt: the program {settings.wireguard_tool} is missing: {NEEDS}")
    if settings.has_kernel_wireguard and has_kernel_wireguard():
        return KERNEL
    if shutil.which(settings.wireguard_program) is None or not TUN_DEVICE.exists():
        raise Unavailable(f"this node cannot encrypt: neither the kernel nor a program does WireGuard: {NEEDS}")
    return PROGRAM


def make(channel: Socket, name: str, way: str, settings: NetworkSettings, mtu_bytes: int) -> int:
    """Make a link in the calling thread's namespace and return its index.

    Raises:
        Unavailable: the program refuses.
        OSError: the kernel does.
    """
    if way == KERNEL:
        channel.talk([rtnetlink.add_wireguard(name, mtu_bytes)])
    else:
        environment = {key: value for key, value in os.environ.items() if key not in _FOREIGN_VARIABLES}
        # it puts itself into the background once the link is there; a session of its own: signals to ours miss it
        _run([settings.wireguard_program, name], environment=environment, new_session=True)
    index = rtnetlink.link_index(channel, name)
    if not index:
        raise Unavailable(f"the WireGuard link {name} is gone as soon as it was made")
    return index


def set_up(settings: NetworkSettings, name: str, configuration: str) -> None:
    """Give a link its key, port and peers; what is so already stays undisturbed.

    Raises:
        Unavailable: wg refuses, as when the port is taken or the program that carries the link has ended.
    """
    # by its standard input: a key on a command line could be read by anybody
    _run([settings.wireguard_tool, "syncconf", name, "/dev/stdin"], text=configuration)


def greet(addresses: Iterable[str]) -> None:
    """Send a packet to each address of the mesh, which has WireGuard agree on keys with that node now.

    Whichever of two nodes learns of a new key last begins so, and is understood: else the first to speak would try too
    early and again only after five seconds.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        for address in addresses:
            # not reached: what tasks send will begin it
            with contextlib.suppress(OSError):
                sender.sendto(b"", (address, DISCARD_PORT))


def end(channel: Socket, name: str) -> None:
    """Take a link away and wait until the program that carried it, if one did, has ended."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(END_SECONDS)
        try:
            line.connect(str(control_socket(name)))
            is_program = True
        except OSError:
            is_program = False
        channel.talk([rtnetlink.delete_link(name)])
        if is_program:
            try:
                while line.recv(4096):
                    pass
            except OSError as error:
                _log.warning("the program of a WireGuard link does not end", link=name, reason=str(error))
    # of a program that was killed
    control_socket(name).unlink(missing_ok=True)


def control_socket(name: str) -> Path:
    """Return where wireguard-go listens for `wg`: one place for all namespaces, so names must differ."""
    return CONTROL_DIRECTORY / f"{name}.sock"


def _run(
    command: list[str], text: str = "", environment: dict[str, str] | None = None, new_session: bool = False
) -> None:
    try:
        done = subprocess.run(
            command,
            input=text,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
            env=environment,
            start_new_session=new_session,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]} could not be run: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"exit status {done.returncode}"]
        raise Unavailable(f"{command[0]} refuses: {lines[-1]}")
