"""DNS as a client speaks it, for tests and benches: builds queries, reads answers. Standard library only."""

import ipaddress
import socket
import struct
from typing import NamedTuple

TYPES = {"A": 1, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "OPT": 41, "ANY": 255}


class Response(NamedTuple):
    number: int
    code: int
    truncated: bool
    question: str
    records: list
    options: bool


def query(name, kind="A", number=0x1234, udp_bytes=0, class_=1):
    labels = [label.encode() for label in name.rstrip(".").split(".") if label]
    question = b"".join(bytes([len(label)]) + label for label in labels) + struct.pack(">BHH", 0, TYPES[kind], class_)
    options = struct.pack(">BHHIH", 0, TYPES["OPT"], udp_bytes, 0, 0) if udp_bytes else b""
    return struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 1 if options else 0) + question + options


def read_name(data, offset):
    labels = []
    while True:
        length = data[offset]
        if length >= 0xC0:
            pointed, _ = read_name(data, struct.unpack_from(">H", data, offset)[0] & 0x3FFF)
            return ".".join([*labels, pointed]), offset + 2
        offset += 1
        if not length:
            return ".".join(labels), offset
        labels.append(data[offset : offset + length].decode())
        offset += length


def read(data):
    """Raises if the message is not whole and exact."""
    number, flags, questions, answers, authorities, additional = struct.unpack_from(">HHHHHH", data)
    assert flags & 0x8080 == 0x8080, "an answer, from one who asks others"
    assert authorities == 0
    offset, question, records, options = 12, "", [], False
    for _ in range(questions):
        question, offset = read_name(data, offset)
        offset += 4
    for _ in range(answers + additional):
        name, offset = read_name(data, offset)
        kind, class_, seconds, length = struct.unpack_from(">HHIH", data, offset)
        offset += 10
        value = data[offset : offset + length]
        assert len(value) == length
        if kind == TYPES["OPT"]:
            options = True
        else:
            assert (name, class_) == (question, 1)
            assert 0 < seconds <= 5
            text = read_name(data, offset)[0] if kind == TYPES["PTR"] else str(ipaddress.ip_address(value))
            records.append(text)
        offset += length
    assert offset == len(data)
    return Response(number, flags & 15, bool(flags & 0x0200), question, records, options)


def ask(name, kind="A", udp_bytes=0, is_stream=False, server=("127.0.0.11", 53), seconds=3.0):
    """Ask once, over a socket of its own."""
    asked = query(name, kind, udp_bytes=udp_bytes)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if is_stream else socket.SOCK_DGRAM) as channel:
        channel.settimeout(seconds)
        channel.connect(server)
        if is_stream:
            channel.sendall(struct.pack(">H", len(asked)) + asked)
            with channel.makefile("rb") as file:
                return read(file.read(struct.unpack(">H", file.read(2))[0]))
        channel.send(asked)
        return read(channel.recv(65535))
