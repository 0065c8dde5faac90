"""What speaks DNS inside a namespace, run by the tests. Standard library and tests.dns only.

ask                      a query for every JSON line of stdin (keywords of dns.ask); prints the answer or the error
upstream ADDRESS RESULT  a name server: every A is RESULT, but for names of fail, refuse, missing, silent and long
flood NAME               queries as fast as it can; prints a line when it has begun
bind                     takes port 53 of UDP and TCP on every address
"""

import json
import select
import socket
import struct
import sys

from tests import dns

CODES = {"fail": 2, "missing": 3, "refuse": 5}


def ask():
    for line in sys.stdin:
        try:
            answer = dns.ask(**json.loads(line))._asdict()
        except OSError as error:
            answer = {"error": type(error).__name__}
        print(json.dumps(answer), flush=True)


def answer_of(query, result, is_stream):
    name, end = dns.read_name(query, 12)
    kind = name.split(".")[0]
    if kind == "silent":
        return None
    question = query[12 : end + 4]
    code = CODES.get(kind, 0)
    truncated = 0x0200 if kind == "long" and not is_stream else 0
    record = b"" if code or truncated else struct.pack(">HHHIH", 0xC00C, 1, 1, 3, 4) + socket.inet_aton(result)
    header = query[:2] + struct.pack(">HHHHH", 0x8180 | truncated | code, 1, 1 if record else 0, 0, 0)
    return header + question + record


def upstream(address, result):
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, 53))
    streams = socket.create_server((address, 53))
    print("ready", flush=True)
    while True:
        for ready in select.select([datagrams, streams], [], [])[0]:
            if ready is datagrams:
                query, asker = datagrams.recvfrom(4096)
                response = answer_of(query, result, False)
                if response:
                    datagrams.sendto(response, asker)
            else:
                connection, _ = streams.accept()
                with connection, connection.makefile("rb") as file:
                    query = file.read(struct.unpack(">H", file.read(2))[0])
                    response = answer_of(query, result, True)
                    if response:
                        connection.sendall(struct.pack(">H", len(response)) + response)


def flood(name):
    query = dns.query(name)
    channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    channel.connect(("127.0.0.11", 53))
    for count in range(1 << 40):
        channel.send(query)
        if count == 10_000:
            print("ready", flush=True)


def bind():
    taken = [socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    for each in taken:
        each.bind(("0.0.0.0", 53))
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"ask": ask, "upstream": upstream, "flood": flood, "bind": bind}[command](*arguments)
