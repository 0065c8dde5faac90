"""Asks other nodes over the mesh between nodes, as their kernels answer: whether, with long packets, and their time.

A raw ICMP socket in the ingress sandbox: what it sends goes through VXLAN, and so does the answer. Blocking, for any
thread: the socket stays in its namespace.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Mapping

from shoal.model.base import Struct

ECHO_REPLY, ECHO, TIMESTAMP, TIMESTAMP_REPLY = 0, 8, 13, 14
IP_MTU_DISCOVER, ALWAYS_WHOLE = 10, 3
IP_BYTES, ICMP_BYTES = 20, 8
SHORT, WHOLE, CLOCK = 1, 2, 3
SECONDS_MOST = 1.5
REPEAT_SECONDS = 0.25
DAY_MS = 86_400_000


class PeerAnswer(Struct):
    """What came back from a node; `skew_ms`: how far its clock is ahead, None if it did not say."""

    answers: bool = False
    carries_whole: bool = False
    skew_ms: int | None = None


def open_socket(link: str) -> socket.socket:
    """Open a socket that sends by a link of the calling thread's namespace."""
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode() + b"\0")
    made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, ALWAYS_WHOLE)
    made.setblocking(False)
    return made


def ask(channel: socket.socket, peers: Mapping[int, str], mtu_bytes: int) -> dict[int, PeerAnswer]:
    """Ask all at once, again and again for what does not come, and close the socket.

    Args:
        channel: of `open_socket`.
        peers: addresses in the mesh by node number.
        mtu_bytes: the length of the long packets.
    """
    asking = _Asking(peers, mtu_bytes)
    deadline = time.monotonic() + SECONDS_MOST
    with channel:
        while asking.missing and time.monotonic() < deadline:
            asking.send(channel)
            until = min(time.monotonic() + REPEAT_SECONDS, deadline)
            while asking.missing and (left := until - time.monotonic()) > 0:
                if select.select([channel], [], [], left)[0]:
                    packet, sender = channel.recvfrom(65536)
                    asking.take(packet, sender[0])
    return asking.answers()


class _Asking:
    def __init__(self, peers: Mapping[int, str], mtu_bytes: int) -> None:
        self._addresses = {address: number for number, address in peers.items()}
        self._identity = int.from_bytes(os.urandom(2), "big")
        self._whole_data = bytes(max(mtu_bytes - IP_BYTES - ICMP_BYTES, 0))
        self._skews: dict[int, int] = {}
        self.missing = {(address, kind) for address in self._addresses for kind in (SHORT, WHOLE, CLOCK)}

    def send(self, channel: socket.socket) -> None:
        for address, kind in sorted(self.missing):
            packet = _icmp(TIMESTAMP if kind == CLOCK else ECHO, self._identity, kind, self._body(kind))
            try:
                channel.sendto(packet, (address, 0))
            except OSError:
                # a path known to be too short, or no neighbour: it counts as no answer
                continue

    def _body(self, kind: int) -> bytes:
        if kind == CLOCK:
            return struct.pack(">III", _now_ms(), 0, 0)
        return self._whole_data if kind == WHOLE else b""

    def take(self, packet: bytes, sender: str) -> None:
        icmp = packet[(packet[0] & 0x0F) * 4 :]
        if len(icmp) < ICMP_BYTES or sender not in self._addresses:
            return
        kind, _, _, identity, sequence = struct.unpack_from(">BBHHH", icmp)
        if identity != self._identity:
            return
        if kind == ECHO_REPLY and sequence in (SHORT, WHOLE):
            self.missing.discard((sender, sequence))
        elif kind == TIMESTAMP_REPLY and len(icmp) >= ICMP_BYTES + 12:
            sent, received, _ = struct.unpack_from(">III", icmp, ICMP_BYTES)
            self.missing.discard((sender, CLOCK))
            # a high bit: not the milliseconds of the day
            if received < DAY_MS:
                self._skews[self._addresses[sender]] = skew_ms(sent, received, _now_ms())

    def answers(self) -> dict[int, PeerAnswer]:
        return {
            number: PeerAnswer(
                answers=(address, SHORT) not in self.missing,
                carries_whole=(address, WHOLE) not in self.missing,
                skew_ms=self._skews.get(number),
            )
            for address, number in self._addresses.items()
        }


def skew_ms(sent: int, received: int, now: int) -> int:
    """Return how far the other clock is ahead; all are milliseconds of the day, whose end may lie between them."""
    middle = sent + ((now - sent) % DAY_MS) // 2
    return (received - middle + DAY_MS // 2) % DAY_MS - DAY_MS // 2


def _now_ms() -> int:
    return time.time_ns() // 1_000_000 % DAY_MS


def _icmp(kind: int, identity: int, sequence: int, body: bytes) -> bytes:
    header = struct.pack(">BBHHH", kind, 0, 0, identity, sequence)
    return struct.pack(">BBHHH", kind, 0, _checksum(header + body), identity, sequence) + body


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
