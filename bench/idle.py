"""TCP connections that say nothing for a long time, through a virtual address and through the mesh: do they answer?

Run as root: python bench/idle.py [minutes], 20 unless said otherwise. A lab of two nodes, a task of a service on each;
connections of no keep-alive wait on every way there is, then each sends a line and awaits it back. Leaves nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.system.daemon import wait_for
from tests.system.lab import node_id, running_lab
from tests.system.swarm import get, running

from shoal.lab.lab import Lab

PER_WAY = 8
PORT = 8090
USUAL_MINUTES = 20.0

SERVER = """
import socket, threading
listener = socket.create_server(("0.0.0.0", 80), backlog=64)
print("ready", flush=True)
def serve(channel):
    while data := channel.recv(4096):
        channel.sendall(data)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
HOLDER = """
import socket, sys
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
held = [socket.create_connection((address, port), 5) for _ in range(count)]
for channel in held:
    channel.sendall(b"first\\n")
    assert channel.recv(64) == b"first\\n"
print("held", flush=True)
sys.stdin.readline()
answered = 0
for channel in held:
    try:
        channel.sendall(b"later\\n")
        answered += channel.recv(64) == b"later\\n"
    except OSError as error:
        print(error, file=sys.stderr)
print(answered, flush=True)
"""


def start(namespace: str, program: str, *words: str) -> subprocess.Popen[str]:
    """Run a program in a network namespace and wait for its first line."""
    command = ["nsenter", f"--net={namespace}", sys.executable, "-c", program, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"{words} did not begin")
    return process


def tasks_of(lab: Lab, name: str) -> dict[str, str]:
    """Return the namespaces of a service's tasks by the names of their nodes."""
    by_id = {node_id(node): node.name for node in lab.nodes}
    manager = lab.node("m1")
    tasks = running(manager, get(manager, f"/services/{name}")["ID"])
    return {by_id[task["NodeID"]]: f"/proc/{task['Status']['ContainerStatus']['PID']}/ns/net" for task in tasks}


def measure(lab: Lab, minutes: float, stack: contextlib.ExitStack) -> None:
    manager, worker = lab.node("m1"), lab.node("w1")
    manager.docker("network", "create", "-d", "overlay", "net")
    words = ("--no-resolve-image", "-d", "--mode", "global", "--network", "net")
    manager.docker("service", "create", *words, "--name", "web", "-p", f"{PORT}:80", "busybox", "sleep", "100000")
    manager.docker("service", "create", *words, "--name", "client", "busybox", "sleep", "100000")
    wait_for(lambda: len(tasks_of(lab, "web")) == len(tasks_of(lab, "client")) == 2, "the tasks run", 60)
    held: dict[str, subprocess.Popen[str]] = {}

    def run(namespace: str, program: str, *words: str) -> subprocess.Popen[str]:
        process = start(namespace, program, *words)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    for namespace in tasks_of(lab, "web").values():
        run(namespace, SERVER)
    endpoint = get(manager, "/services/web")["Endpoint"]["VirtualIPs"]
    network_id = get(manager, "/networks/net")["Id"]
    virtual_ip = next(each["Addr"] for each in endpoint if each["NetworkID"] == network_id).partition("/")[0]
    clients = tasks_of(lab, "client")
    ways = {
        "virtual address, from a container": (clients["m1"], virtual_ip, 80),
        "mesh, by another host": (worker.namespace, manager.address, PORT),
        "mesh, by the host itself": (manager.namespace, manager.address, PORT),
        "mesh, by 127.0.0.1": (manager.namespace, "127.0.0.1", PORT),
    }
    for name, (namespace, address, port) in ways.items():
        held[name] = run(str(namespace), HOLDER, address, str(port), str(PER_WAY))
    begin = time.monotonic()
    time.sleep(60 * minutes)
    print(f"after {(time.monotonic() - begin) / 60:.1f} minutes of silence, half of each to a task on another node:")
    for name, holder in held.items():
        answered = holder.communicate("\n")[0].strip()
        print(f"{name:36} {answered} of {PER_WAY} answer")


def main() -> None:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else USUAL_MINUTES
    with running_lab(managers=1, workers=1) as lab, contextlib.ExitStack() as stack:
        measure(lab, minutes, stack)


if __name__ == "__main__":
    main()
