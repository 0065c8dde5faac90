"""Whom every route of the node port lets in, and what a node that is refused is told (issue of many nodes, point 2)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector, web

from shoal.ca.root import Subject, create_root, make_request, sign_request
from shoal.daemon.manager import Manager
from shoal.daemon.node_port import make_node_port
from shoal.errors import NotFound, ShoalError, Unavailable
from shoal.lib.clock import SystemClock
from shoal.lib.ids import Ids
from shoal.model.actions import Create
from shoal.model.messages import OpenSession, OpenStream, SessionOpened
from shoal.model.node_port import Acknowledged, CertificateCall, MemberHello
from shoal.model.objects import Cluster, JoinTokens, ManagerStatus, Node, NodeDescription, RootCA
from shoal.model.relay import Failed, InspectExec
from shoal.model.specs import NodeSpec
from shoal.model.states import Role
from shoal.raft.driver import DriverSettings, RaftDriver
from shoal.rpc.dialer import Dialer, fetch_root
from shoal.rpc.link import LinkClosed
from shoal.rpc.relay import ManagerEnd, NodeEnd
from shoal.rpc.tls import CertificateFiles, client_context, joining_context, server_context
from shoal.rpc.websocket import FrameSocket

HOUR_NS = 3_600_000_000_000
ROOT, OTHER_ROOT = create_root(time.time_ns()), create_root(time.time_ns())
CLUSTER = "cluster"


def make_files(
    folder: Path, root: RootCA, node_id: str, role: Role, cluster_id: str = CLUSTER, expiry_ns: int = HOUR_NS
) -> CertificateFiles:
    folder.mkdir(parents=True)
    made = make_request()
    files = CertificateFiles(roots=folder / "roots", certificate=folder / "certificate", key=folder / "key")
    subject = Subject(node_id=node_id, role=role, cluster_id=cluster_id)
    files.roots.write_text(ROOT.certificate)
    files.certificate.write_text(sign_request(root, made.request, subject, time.time_ns(), expiry_ns))
    files.key.write_text(made.key)
    return files


# who dials: certificate by which root, node id, role, swarm, life
CALLERS: dict[str, tuple[RootCA, str, Role, str, int]] = {
    "manager": (ROOT, "m", Role.MANAGER, CLUSTER, HOUR_NS),
    "worker": (ROOT, "w", Role.WORKER, CLUSTER, HOUR_NS),
    "demoted manager": (ROOT, "w", Role.MANAGER, CLUSTER, HOUR_NS),
    "removed node": (ROOT, "gone", Role.WORKER, CLUSTER, HOUR_NS),
    "removed manager": (ROOT, "gone", Role.MANAGER, CLUSTER, HOUR_NS),
    "expired": (ROOT, "m", Role.MANAGER, CLUSTER, -60_000_000_000),
    "another root": (OTHER_ROOT, "m", Role.MANAGER, CLUSTER, HOUR_NS),
    "another swarm": (ROOT, "m", Role.MANAGER, "other", HOUR_NS),
}
NO_HANDSHAKE = "no handshake"
# what each route answers: the status of a refusal, or 0 for "let in"
EVERYBODY = dict.fromkeys((*CALLERS, "nobody"), 0) | {"expired": NO_HANDSHAKE, "another root": NO_HANDSHAKE}
NODES = EVERYBODY | {"nobody": 401, "removed node": 403, "removed manager": 403, "another swarm": 403}
MANAGERS = NODES | {"worker": 403, "demoted manager": 403}
ROUTES: dict[tuple[str, str], dict[str, int | str]] = {
    ("POST", "/root"): EVERYBODY,
    ("POST", "/certificate"): EVERYBODY,
    ("POST", "/certificate/renew"): NODES,
    ("POST", "/attachments"): NODES,
    ("POST", "/attachments/release"): NODES,
    ("GET", "/session"): NODES,
    ("GET", "/streams/{id}"): NODES,
    ("GET", "/nodes/{id}/stream"): MANAGERS,
    ("POST", "/health"): MANAGERS,
    ("POST", "/raft/join"): MANAGERS,
    ("GET", "/raft"): MANAGERS,
    ("POST", "/raft/snapshot"): MANAGERS,
    ("GET", "/docker/version"): MANAGERS,
    ("POST", "/docker/v1.50/services/create"): MANAGERS,
}


@contextlib.asynccontextmanager
async def running_port(folder: Path) -> AsyncIterator[tuple[str, Manager]]:
    """A manager of one with a worker in its store, and its node port."""
    files = make_files(folder / "server", ROOT, "m", Role.MANAGER)
    dialer = Dialer(client_context(files), files.certificate)
    settings = DriverSettings(
        raft_id=1, cluster_id=CLUSTER, folder=folder / "raft", random_int=lambda _most: 0, founds=True
    )

    async def open_raft(store, transport):
        return await RaftDriver.start(settings, store, transport)

    hello = MemberHello(raft_id=1, node_id="m", address="127.0.0.1:1")
    manager = Manager(SystemClock(), Ids(), open_raft, dialer, hello)
    api = web.Application()

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="docker")

    api.router.add_route("*", "/{tail:.*}", answer)
    port = make_node_port(manager, CLUSTER, api)
    await manager.start()
    try:
        await manager.wait_until_leading()
        tokens = JoinTokens(worker="w", manager="m")
        members = (
            Node(
                id="m",
                spec=NodeSpec(role=Role.MANAGER),
                manager_status=ManagerStatus(raft_id=1, address="127.0.0.1:1"),
                number=1,
            ),
            Node(id="w", spec=NodeSpec(role=Role.WORKER), number=2),
        )
        cluster = Cluster(id=CLUSTER, root_ca=ROOT, join_tokens=tokens)
        await manager.store.update(lambda _view: [Create(object=value) for value in (cluster, *members)])
        await port.start("127.0.0.1", 0, server_context(files))
        yield f"127.0.0.1:{port.port}", manager
    finally:
        await manager.stop()
        await port.stop()
        await dialer.close()


async def try_route(address: str, context: ssl.SSLContext, method: str, path: str) -> int | str:
    """Return the status a route answers with, 0 if it lets the caller in."""
    try:
        async with ClientSession(connector=TCPConnector(force_close=True)) as session:
            url = f"https://{address}{path.replace('{id}', 'some')}"
            if method == "GET" and not path.startswith("/docker"):
                async with session.ws_connect(url, ssl=context, server_hostname="swarm-manager"):
                    return 0
            async with session.request(
                method, url, data=b"\x80", ssl=context, server_hostname="swarm-manager"
            ) as response:
                body = await response.read()
                refused = response.status in (401, 403)
                assert not refused or body, "a refusal says why"
                return response.status if refused else 0
    except ClientError as error:
        status = getattr(error, "status", 0)
        # 404: it is let in, and no such stream was asked for
        return (status if status in (401, 403) else 0) if status else NO_HANDSHAKE


def test_whom_each_route_lets_in(tmp_path):
    contexts = {
        name: client_context(make_files(tmp_path / name, root, node_id, role, cluster_id, life_ns))
        for name, (root, node_id, role, cluster_id, life_ns) in CALLERS.items()
    }
    contexts["nobody"] = joining_context(ROOT.certificate)

    async def scenario() -> None:
        async with running_port(tmp_path) as (address, _manager):
            for (method, path), wanted in ROUTES.items():
                for caller, expected in wanted.items():
                    found = await try_route(address, contexts[caller], method, path)
                    assert found == expected, f"{method} {path} to {caller}: {found}"

    asyncio.run(scenario())


def test_the_table_names_every_route(tmp_path):
    async def scenario() -> None:
        async with running_port(tmp_path) as (_address, manager):
            port = make_node_port(manager, CLUSTER, web.Application())
            served = {(method, path) for method, path in port.routes if method != "HEAD"}
            assert served == {key for key in ROUTES if not key[1].startswith("/docker")}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        ("expired", "certificate has expired at .* leave the swarm .* and join again"),
        ("removed manager", "not part of this swarm any more"),
        ("another swarm", "is of another swarm"),
        ("worker", "is a worker: this is for managers only"),
    ],
)
def test_a_refused_node_is_told_why(tmp_path, caller, words):
    root, node_id, role, cluster_id, life_ns = CALLERS[caller]
    files = make_files(tmp_path / "caller", root, node_id, role, cluster_id, life_ns)

    async def scenario() -> None:
        async with running_port(tmp_path) as (address, _manager):
            dialer = Dialer(client_context(files), files.certificate)
            try:
                with pytest.raises(ShoalError, match=words):
                    await dialer.call(address, "/health", Acknowledged(), Acknowledged)
            finally:
                await dialer.close()

    asyncio.run(scenario())


def test_a_manager_of_another_swarm_is_not_trusted(tmp_path):
    files = make_files(tmp_path / "caller", OTHER_ROOT, "x", Role.WORKER)
    files.roots.write_text(OTHER_ROOT.certificate)

    async def scenario() -> None:
        async with running_port(tmp_path) as (address, _manager):
            assert await fetch_root(address) == ROOT.certificate
            dialer = Dialer(client_context(files), files.certificate)
            try:
                with pytest.raises(Unavailable, match=r"a certificate this node does not trust .* join again"):
                    await dialer.call(address, "/certificate/renew", CertificateCall(request=""), Acknowledged)
            finally:
                await dialer.close()
        with pytest.raises(Unavailable, match="cannot reach the manager"):
            await fetch_root(address)

    asyncio.run(scenario())


def test_a_stream_is_opened_by_the_node_that_was_asked_and_by_no_other(tmp_path):
    async def scenario() -> None:
        async with running_port(tmp_path) as (address, manager), asyncio.timeout(20):
            dialers = []
            for node_id, role in (("w", Role.WORKER), ("m", Role.MANAGER)):
                files = make_files(tmp_path / f"dials as {node_id}", ROOT, node_id, role)
                dialers.append(Dialer(client_context(files), files.certificate))
            worker, other = dialers
            try:
                links = {dialer: await dialer.open_link(address, "/session") for dialer in dialers}
                for dialer, node_id in ((worker, "w"), (other, "m")):
                    opening = OpenSession(node_id=node_id, description=NodeDescription(), serves_streams=True)
                    await links[dialer].send(opening)
                    assert isinstance(await links[dialer].receive(), SessionOpened)
                for ask in (manager.open_stream("w"), other.open_frames(address, "/nodes/w/stream", is_patient=True)):
                    asking = asyncio.ensure_future(ask)
                    while not isinstance(asked := await links[worker].receive(), OpenStream):
                        pass
                    path = f"/streams/{asked.stream_id}"
                    with pytest.raises(NotFound, match="nobody waits for this stream"):
                        await other.open_frames(address, path)
                    frames = await worker.open_frames(address, path, is_patient=True)
                    end = await asking
                    if isinstance(end, FrameSocket):
                        end = ManagerEnd(end, "w")
                    await end.send(InspectExec(exec_id="x"))
                    assert await NodeEnd(frames).receive() == InspectExec(exec_id="x")
                    await NodeEnd(frames).send(Failed(status=404, message="No such exec instance: x"))
                    with pytest.raises(NotFound, match="No such exec instance: x"):
                        await end.receive()
                    # twice is once too often
                    with pytest.raises(NotFound):
                        await worker.open_frames(address, path)
                    end.close()
                    with pytest.raises(LinkClosed):
                        await NodeEnd(frames).receive()
                    await frames.wait_closed()
                with pytest.raises(Unavailable, match="node nobody is not part of the swarm any more"):
                    await manager.open_stream("nobody")
                for link in links.values():
                    await link.wait_closed()
            finally:
                for dialer in dialers:
                    await dialer.close()

    asyncio.run(scenario())
