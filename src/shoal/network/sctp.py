"""Whether this host's kernel has SCTP, which ports of the mesh may ask for. Knows nothing of the mesh."""

from __future__ import annotations

import socket

from shoal.errors import Unavailable


def sctp_is_supported() -> bool:
    """Ask the kernel, which loads the module if it has one."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def require_sctp() -> None:
    """Raise Unavailable, with the remedy, where the kernel has no SCTP."""
    if not sctp_is_supported():
        raise Unavailable(
            "this host's kernel has no SCTP: no task here can use an sctp port (load the module sctp, in a kernel that "
            "has it: `modprobe sctp`), or publish the port as tcp or udp"
        )
