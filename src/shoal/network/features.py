"""Which of the kernel's features a node's network needs are there: each is tried, in a namespace that ends at once.

Knows no node and no daemon. Blocking; the namespace belongs to a thread of its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import threading
from collections.abc import Callable

from shoal.core.diagnosis import BRIDGE, EGRESS_HOOK, NAMESPACES, NFTABLES, TUN, VETH, VXLAN, WIREGUARD
from shoal.errors import ShoalError
from shoal.network import namespace, nft_process, rtnetlink, vxlan
from shoal.network.netlink import ROUTE, Socket

TUNSETIFF, IFF_TUN_NO_PI = 0x400454CA, 0x1001
FSOPEN = 430
BALANCING = (
    "table ip try {\nchain c {\ntype nat hook prerouting priority -100;\n"
    "fib daddr type local tcp dport 1 dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }\n}\n}\n"
)
EGRESS = 'table netdev try {\nchain c {\ntype filter hook egress device "lo" priority 0;\n}\n}\n'
_MTU_BYTES = 1450


def try_features(nft_command: str | None = "nft") -> dict[str, str]:
    """Return the features with what the kernel said against each, empty: it works.

    Args:
        nft_command: None: what needs it is left out.
    """
    found: dict[str, str] = {}
    thread = threading.Thread(target=_try_all, args=(found, nft_command), name="features")
    thread.start()
    thread.join()
    return found


def refusal_of(attempt: Callable[[], object]) -> str:
    """Make an attempt and return why it failed, empty if it did not."""
    try:
        attempt()
    except (OSError, ShoalError) as error:
        return error.strerror or str(error) if isinstance(error, OSError) else error.message
    return ""


def _try_all(found: dict[str, str], nft_command: str | None) -> None:
    found[NAMESPACES] = refusal_of(namespace.enter_new)
    if found[NAMESPACES]:
        return
    links = Socket(ROUTE)
    own = namespace.open_own()
    try:
        found[VETH] = refusal_of(lambda: links.talk([rtnetlink.add_veth("try0", "try1", own, _MTU_BYTES)]))
        found[BRIDGE] = refusal_of(lambda: links.talk([rtnetlink.add_bridge("try2", b"\x02\x42\0\0\0\1")]))
        found[VXLAN] = refusal_of(lambda: links.talk([vxlan.add_vxlan("try3", 1, 4789, own, _MTU_BYTES)]))
        found[WIREGUARD] = refusal_of(lambda: links.talk([rtnetlink.add_wireguard("try4", _MTU_BYTES)]))
        found[TUN] = refusal_of(_open_tun)
        if nft_command is not None:
            found[NFTABLES] = refusal_of(lambda: nft_process.load(nft_command, BALANCING))
            found[EGRESS_HOOK] = refusal_of(lambda: nft_process.load(nft_command, EGRESS))
    finally:
        os.close(own)
        links.close()


def has_kernel_wireguard() -> bool:
    """Whether the kernel makes WireGuard links."""
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(refusal_of(_make_wireguard)), name="features")
    thread.start()
    thread.join()
    return found == [""]


def _make_wireguard() -> None:
    namespace.enter_new()
    links = Socket(ROUTE)
    try:
        links.talk([rtnetlink.add_wireguard("try4", _MTU_BYTES)])
    finally:
        links.close()


def _open_tun() -> None:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"try5", IFF_TUN_NO_PI))
    finally:
        os.close(descriptor)


def try_filesystem(name: str) -> str:
    """Return why the kernel has no such filesystem (its module is loaded for that), empty if it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(FSOPEN, name.encode(), 0)
    if descriptor < 0:
        return os.strerror(ctypes.get_errno())
    os.close(descriptor)
    return ""
