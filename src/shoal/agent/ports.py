"""A free port of the host, for a port published in mode `host` without a number."""

from __future__ import annotations

import socket


def find_free_port(protocol: str) -> int:
    """Return a port that nobody on this node listens on now."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port
