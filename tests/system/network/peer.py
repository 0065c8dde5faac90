"""A server and a client of few words, run inside a namespace by the tests. Standard library only.

serve NAME TCP_PORT UDP_PORT   answers `NAME CLIENT_ADDRESS` to every line (TCP) and datagram (UDP)
tcp|udp ADDRESS PORT COUNT     COUNT exchanges, a fresh socket each; prints one answer a line, or the error's name
hold tcp|udp ADDRESS PORT      one socket; an exchange for every line of stdin
whole ADDRESS PORT BYTES       one IPv4 packet of this length, not to be cut up; prints how much data it carried
listen6 PORT                   holds a TCP port on every IPv6 address
capture LINK                   for a line of stdin a line: JSON of every packet since, as [protocol, ports, data]
collide tcp|udp OWN_PORT PORT ADDRESS…   sockets of one own port, all open at once, an exchange each
"""

import json
import select
import socket
import socketserver
import sys
import threading

TIMEOUT_SECONDS = 3.0


def serve(name, tcp_port, udp_port):
    class Stream(socketserver.StreamRequestHandler):
        def handle(self):
            for _ in self.rfile:
                self.wfile.write(f"{name} {self.client_address[0].removeprefix('::ffff:')}\n".encode())

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self):
            self.request[1].sendto(
                f"{name} {self.client_address[0].removeprefix('::ffff:')}\n".encode(), self.client_address
            )

    class Threading(socketserver.ThreadingTCPServer):
        address_family = socket.AF_INET6
        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 128

    class Datagrams(socketserver.UDPServer):
        address_family = socket.AF_INET6

    # both families at once
    stream = Threading(("::", int(tcp_port)), Stream)
    datagram = Datagrams(("::", int(udp_port)), Datagram)
    threading.Thread(target=stream.serve_forever, daemon=True).start()
    print("ready", flush=True)
    datagram.serve_forever()


def connect(kind, address, port, own_port=0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.settimeout(TIMEOUT_SECONDS)
    if own_port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("0.0.0.0", own_port))
    made.connect((address, int(port)))
    return made


def exchange(made):
    made.send(b"?\n")
    return made.recv(200).decode().strip()


def ask(kind, address, port, count):
    for _ in range(int(count)):
        try:
            with connect(kind, address, port) as made:
                print(exchange(made), flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)


def whole(address, port, packet_bytes):
    header_bytes, ip_mtu_discover, do = 28, 10, 2
    with connect("udp", address, port) as made:
        made.setsockopt(socket.IPPROTO_IP, ip_mtu_discover, do)
        try:
            sent = made.send(bytes(int(packet_bytes) - header_bytes))
            made.recv(200)
            print(sent, flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)


def collide(kind, own_port, port, *addresses):
    opened = [connect(kind, address, port, int(own_port)) for address in addresses]
    for made in opened:
        try:
            print(exchange(made), flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)


def listen6(port):
    with socket.create_server(("::", int(port)), family=socket.AF_INET6):
        print("ready", flush=True)
        sys.stdin.read()


def capture(link):
    """All packets on a link, from here and to here; of IPv4 alone, the rest is the link's own noise."""
    ipv4, everything, quiet_seconds = 0x0800, 0x0003, 0.3
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(everything)) as made:
        made.bind((link, everything))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        print("ready", flush=True)
        for _ in sys.stdin:
            found = []
            while select.select([made], [], [], quiet_seconds)[0]:
                packet, (_, kind, *_) = made.recvfrom(65536)
                if kind == ipv4:
                    start = (packet[0] & 15) * 4
                    ports = [int.from_bytes(packet[at : at + 2], "big") for at in (start, start + 2)]
                    found.append([packet[9], ports, packet.hex()])
            print(json.dumps(found), flush=True)


def hold(kind, address, port):
    made = connect(kind, address, port)
    for _ in sys.stdin:
        try:
            print(exchange(made), flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command in ("tcp", "udp"):
        ask(command, *arguments)
    else:
        {"serve": serve, "hold": hold, "collide": collide, "listen6": listen6, "whole": whole, "capture": capture}[
            command
        ](*arguments)
