"""Ports of the host that nobody listens on, for ports that are published on this node."""

from __future__ import annotations

import socket


def find_free_port(protocol: str) -> int:
    """Return a port that nobody on this node listens on now."""
    with _probe(protocol) as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port


def is_port_free(protocol: str, port: int) -> bool:
    """Tell whether nobody on this node listens on a port now."""
    with _probe(protocol) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _probe(protocol: str) -> socket.socket:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    probe = socket.socket(socket.AF_INET, kind)
    if kind == socket.SOCK_STREAM:
        # connections that linger after an earlier listener are no listener
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe
