"""How many nodes and tasks one leader holds: a real shoald, and nodes that speak the protocol over TLS but run nothing.

Run as root: python bench/scale.py [--nodes 1000] [--tasks 20000] [--services 1]. The nodes join by the token, open
sessions, beat, and report every task as running. What is printed of the leader is read from /proc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from engines import Engine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import msgspec
import uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from shoal.ca.root import make_request
from shoal.model.messages import (
    Assignments,
    EndSession,
    Heartbeat,
    Message,
    NetworkUpdate,
    OpenSession,
    ReportStatus,
    SessionOpened,
    TaskReport,
)
from shoal.model.node_port import CertificateAnswer, CertificateCall
from shoal.model.objects import NodeDescription, TaskStatus
from shoal.model.specs import Platform, Resources
from shoal.model.states import TaskState
from shoal.rpc.tls import CertificateFiles, client_context, joining_context

JOINING_AT_ONCE = 20
IDLE_SECONDS = 20.0
PATIENCE_SECONDS = 900.0
encoder = msgspec.msgpack.Encoder()
decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Node:
    """A node that runs nothing."""

    def __init__(self, session: ClientSession, address: str, folder: Path, number: int) -> None:
        self.session = session
        self.address = address
        self.folder = folder / str(number)
        self.number = number
        self.running = 0

    async def join(self, token: str, root: str) -> None:
        made = make_request()
        call = CertificateCall(request=made.request, token=token)
        async with self.session.post(
            f"https://{self.address}/certificate",
            data=encoder.encode(call),
            ssl=joining_context(root),
            server_hostname="swarm-manager",
        ) as response:
            answer = msgspec.msgpack.decode(await response.read(), type=CertificateAnswer)
        self.node_id = answer.node_id
        self.folder.mkdir()
        files = CertificateFiles(
            roots=self.folder / "roots", certificate=self.folder / "certificate", key=self.folder / "key"
        )
        files.roots.write_text(answer.root)
        files.certificate.write_text(answer.certificate)
        files.key.write_text(made.key)
        self.context = client_context(files)

    async def serve(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                await self._serve()
            await asyncio.sleep(1)

    async def _serve(self) -> None:
        async with self.session.ws_connect(
            f"https://{self.address}/session", ssl=self.context, server_hostname="swarm-manager", max_msg_size=1 << 26
        ) as link:
            description = NodeDescription(
                hostname=f"fake{self.number}",
                platform=Platform(architecture="x86_64", os="linux"),
                resources=Resources(nano_cpus=64_000_000_000, memory_bytes=1 << 40),
            )
            await link.send_bytes(encoder.encode(OpenSession(node_id=self.node_id, description=description)))
            beating: asyncio.Task[None] | None = None
            sequence = 0
            known: set[str] = set()
            try:
                async for frame in link:
                    match decoder.decode(frame.data):
                        case SessionOpened() as opened:
                            beating = asyncio.create_task(self._beat(link, opened))
                        case Assignments() as assignments:
                            fresh = [task for task in assignments.tasks if task.id not in known]
                            known.update(task.id for task in fresh)
                            known.difference_update(assignments.removed_task_ids)
                            self.running = len(known)
                            now = time.time_ns()
                            status = TaskStatus(state=TaskState.RUNNING, timestamp_ns=now, message="started")
                            if fresh:
                                sequence += 1
                                reports = tuple(TaskReport(task_id=task.id, status=status) for task in fresh)
                                await link.send_bytes(encoder.encode(ReportStatus(sequence=sequence, reports=reports)))
                        case NetworkUpdate() | EndSession():
                            continue
            finally:
                if beating is not None:
                    beating.cancel()

    async def _beat(self, link: Any, opened: SessionOpened) -> None:
        while True:
            await asyncio.sleep(opened.heartbeat_period_seconds)
            await link.send_bytes(encoder.encode(Heartbeat(session_id=opened.session_id)))


async def run_nodes(count: int, address: str, token: str, root: str) -> None:
    """Be the nodes, until killed; says when all have joined."""
    connector = TCPConnector(limit=0, force_close=True)
    with tempfile.TemporaryDirectory(prefix="shoal-scale-nodes-") as folder:
        async with ClientSession(connector=connector, timeout=ClientTimeout(total=None)) as session:
            nodes = [Node(session, address, Path(folder), number) for number in range(count)]
            turn = asyncio.Semaphore(JOINING_AT_ONCE)
            serving: list[asyncio.Task[None]] = []

            async def enter(node: Node) -> None:
                async with turn:
                    await node.join(token, root)
                    serving.append(asyncio.create_task(node.serve()))

            await asyncio.gather(*(enter(node) for node in nodes))
            print("joined", flush=True)
            await asyncio.gather(*serving)


def until(what: str, holds: Any, since: float) -> float:
    while not holds():
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise RuntimeError(f"not in {PATIENCE_SECONDS:.0f} s: {what}")
        time.sleep(0.25)
    return time.monotonic() - since


def measure(node_count: int, task_count: int, service_count: int) -> None:
    from shoal.lab.lab import Lab, take_down

    name = f"s{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="shoal-scale-") as scratch, contextlib.ExitStack() as stack:
        stack.callback(take_down, name)
        lab = Lab.up(managers=1, workers=0, name=name, scratch=Path(scratch))
        manager = lab.nodes[0]
        engine = Engine("leader", str(manager.host).removeprefix("unix://"), manager.pid)
        swarm = engine.call("GET", "/swarm")
        own = engine.call("GET", "/info")["Swarm"]
        environment = os.environ | {"ROOT": swarm["TLSInfo"]["TrustRoot"], "TOKEN": swarm["JoinTokens"]["Worker"]}
        address = own["RemoteManagers"][0]["Addr"]
        inner = [sys.executable, __file__, "--nodes", str(node_count), "--address", address]
        begun = time.monotonic()
        nodes = subprocess.Popen(manager.command_line(*inner), env=environment, stdout=subprocess.PIPE, text=True)
        stack.callback(nodes.kill)
        assert nodes.stdout is not None, "its output is a pipe"
        nodes.stdout.readline()

        def ready() -> int:
            return sum(node["Status"]["State"] == "ready" for node in engine.call("GET", "/nodes"))

        taken = until("all are ready", lambda: ready() == node_count + 1, begun)
        print(f"{node_count} nodes joined and ready               {taken:8.1f} s", flush=True)
        begun = time.monotonic()
        for number in range(service_count):
            spec = {
                "Name": f"many{number}",
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "busybox:latest"},
                    "Placement": {"Constraints": ["node.role==worker"]},
                },
                "Mode": {"Replicated": {"Replicas": task_count // service_count}},
            }
            engine.call("POST", "/services/create", spec)

        def running() -> int:
            found = engine.call("GET", "/services?status=true")
            return sum(int(service["ServiceStatus"]["RunningTasks"]) for service in found)

        taken = until("all run", lambda: running() == task_count, begun)
        print(
            f"{task_count} tasks of {service_count} services placed and reported running   {taken:8.1f} s", flush=True
        )
        before = engine.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        used = (engine.cpu_seconds() - before) / IDLE_SECONDS
        print(f"leader: {engine.memory_mb():.0f} MB resident, idle {used * 100:.1f} % of a core", flush=True)
        print(f"nodes ready at the end: {ready()} of {node_count + 1}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--address", help="be the nodes, and dial this manager")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.address:
        uvloop.install()
        asyncio.run(run_nodes(options.nodes, options.address, os.environ["TOKEN"], os.environ["ROOT"]))
    else:
        measure(options.nodes, options.tasks, options.services)


if __name__ == "__main__":
    main()
