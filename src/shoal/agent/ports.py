"""Ports of the host that nobody listens on, for ports that are published on this node."""

from __future__ import annotations

import errno
import socket

ALLOCATED = "port is already allocated"


def find_free_port(protocol: str) -> int:
    """Return a port that nobody on this node listens on now."""
    with _probe(protocol) as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port


def why_taken(protocol: str, port: int, address: str = "") -> str:
    """Return why a port of the node, on one of its addresses or all, cannot be listened on now; empty: it can."""
    with _probe(protocol) as probe:
        try:
            probe.bind((address, port))
        except OSError as error:
            return "cannot assign requested address" if error.errno == errno.EADDRNOTAVAIL else ALLOCATED
    return ""


def _probe(protocol: str) -> socket.socket:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    probe = socket.socket(socket.AF_INET, kind)
    if kind == socket.SOCK_STREAM:
        # connections that linger after an earlier listener are no listener
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe
