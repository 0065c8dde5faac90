"""Lines of a container's output on their way to syslog or journald, besides the log on disk.

A line is one datagram that is never waited for: what nobody takes is dropped, as by Docker with a full buffer. Which
receiver, and how a line is written, was worked out by the engine (log_forward.py); here is nothing to be refused.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from datetime import datetime, timezone
from typing import Any

_FAMILIES = {"unix": socket.AF_UNIX, "inet": socket.AF_INET, "inet6": socket.AF_INET6}


class Forwarder:
    """Sends the lines of one container on. `settings` say where to, and how."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        address = settings["address"]
        self._address = address if isinstance(address, str) else tuple(address)
        self._socket = socket.socket(_FAMILIES[settings["family"]], socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, pieces: list[bytes], stream: str, at_ns: int) -> None:
        """Send lines that arrived at one time."""
        write = journal_entry if self._settings["kind"] == "journald" else syslog_line
        for piece in pieces:
            with contextlib.suppress(OSError):
                self._socket.sendto(write(self._settings, piece.rstrip(b"\n"), stream, at_ns), self._address)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def syslog_line(settings: dict[str, Any], line: bytes, stream: str, at_ns: int) -> bytes:
    """Write a line in one of the formats of syslog; the process that says it is this one, as it is dockerd there."""
    seconds, fraction = divmod(at_ns, 1_000_000_000)
    at = datetime.fromtimestamp(seconds, timezone.utc)  # noqa: UP017 - `UTC` costs an import of a newer name
    priority, tag, pid = settings["priority"][stream], settings["tag"], os.getpid()
    stamp = f"{at:%b} {at.day:2d} {at:%H:%M:%S}"
    if settings["format"].startswith("rfc5424"):
        digits = f".{fraction // 1000:06d}" if settings["format"] == "rfc5424micro" else ""
        head = f"<{priority}>1 {at:%Y-%m-%dT%H:%M:%S}{digits}Z {settings['hostname']} {tag} {pid} {tag} - "
    elif settings["format"] == "rfc3164":
        head = f"<{priority}>{stamp} {settings['hostname']} {tag}[{pid}]: "
    else:
        head = f"<{priority}>{stamp} {tag}[{pid}]: "
    return head.encode() + line


def journal_entry(settings: dict[str, Any], line: bytes, stream: str, _at_ns: int) -> bytes:
    """Write a line as the journal's own protocol has it: a field with its length, as it may hold anything."""
    fields = {**settings["fields"], "PRIORITY": str(settings["priority"][stream])}
    parts = [f"{name}={value}\n".encode() for name, value in fields.items() if "\n" not in value]
    return b"".join([*parts, b"MESSAGE\n", struct.pack("<Q", len(line)), line, b"\n"])
