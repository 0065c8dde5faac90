"""What stands between the real code and the simulated network: a dialler and a node port without sockets or TLS.

They answer as `rpc.dialer` and `daemon.node_port` do: the same paths, the same admission, the same errors.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import msgspec

from shoal.daemon.manager import HEALTH_PATH, Manager
from shoal.daemon.node_port import (
    CERTIFICATE_PATH,
    JOIN_PATH,
    RENEW_PATH,
    SESSION_PATH,
    check_member,
)
from shoal.daemon.participation import Wires
from shoal.errors import Forbidden, NotFound, NotLeader, ShoalError, Unauthenticated, Unavailable
from shoal.manager.raft_transport import RAFT_PATH, SNAPSHOT_PATH
from shoal.model.messages import Message
from shoal.model.node_port import Acknowledged, CertificateCall, Identity, JoinGroupCall
from shoal.model.states import Role
from shoal.rpc.dialer import CALL_TIMEOUT_SECONDS, REDIRECTS_MOST, Dialer
from shoal.rpc.link import LinkClosed
from shoal.rpc.port import Admits
from shoal.rpc.websocket import WATCH_PERIOD_SECONDS
from tests.sim.cluster_network import Connection, Listener, Machine, Network, Serve
from tests.sim.virtual_loop import Process

API_PATH = "/docker"
END = b""

_message_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

# What Docker's API would have done: called with the request on the leader, returns the answer.
AnswerApi = Callable[[Manager, object], Awaitable[object]]


class Answer(msgspec.Struct):
    """What comes back of a call: an encoded answer, or an error of that class."""

    content: bytes = b""
    error: str = ""
    message: str = ""
    leader_address: str = ""


ERRORS: dict[str, type[ShoalError]] = {}


def _collect(kind: type[ShoalError]) -> None:
    ERRORS[kind.__name__] = kind
    for child in kind.__subclasses__():
        _collect(child)


_collect(ShoalError)


class MessageLink:
    """As `rpc.websocket.WebSocketLink`, over a simulated connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def send(self, message: Message) -> None:
        await self._connection.send(_message_encoder.encode(message))

    async def receive(self) -> Message:
        return _message_decoder.decode(await self._connection.receive())

    def close(self) -> None:
        self._connection.close()


class SimulatedDialer(Dialer):
    """Dials over the simulated network with the identity in the node's certificate."""

    def __init__(self, network: Network, machine: Machine, identity: Callable[[], Identity]) -> None:
        self._network = network
        self._machine = machine
        self._read_identity = identity
        self._identity = identity()

    def renew(self, context: object) -> None:
        self._identity = self._read_identity()

    async def close(self) -> None:
        pass

    async def call(self, address: str, path: str, body: Any, answer: Any, timeout_seconds: float = 0) -> Any:
        data = msgspec.msgpack.encode(body)
        tried = set()
        while True:
            tried.add(address)
            try:
                content = await self._post(address, path, data, timeout_seconds or CALL_TIMEOUT_SECONDS)
                return msgspec.msgpack.decode(content, type=answer)
            except NotLeader as error:
                if not error.leader_address or error.leader_address in tried or len(tried) > REDIRECTS_MOST:
                    raise
                address = error.leader_address

    async def ask_api(self, address: str, request: object) -> object:
        """Hand a request of Docker's API on. Raises Refused: nothing was sent; else what it was refused with."""
        connection = await self._network.connect(self._machine, self._identity, address, API_PATH)
        try:
            # the network is one process: what has no wire form is handed over as it is
            connection.peer.handed_over = request
            await connection.send(b"request")
            raw = await connection.receive()
        except LinkClosed as error:
            raise Unavailable("the leading manager went away before it answered") from error
        finally:
            connection.close()
        return msgspec.msgpack.decode(_opened(raw))

    async def post_stream(self, address: str, path: str, chunks: AsyncIterable[bytes], timeout_seconds: float) -> None:
        await self._post(address, path, chunks, timeout_seconds)

    async def _post(self, address: str, path: str, data: Any, timeout_seconds: float) -> bytes:
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = await self._network.connect(self._machine, self._identity, address, path)
                try:
                    if isinstance(data, bytes):
                        await connection.send(data)
                    else:
                        async for chunk in data:
                            await connection.send(chunk)
                        await connection.send(END)
                    return _opened(await connection.receive())
                finally:
                    connection.close()
        except TimeoutError:
            raise Unavailable(f"the manager at {address} does not answer within its time") from None
        except LinkClosed as error:
            raise Unavailable(f"the manager at {address} ended the connection: {error}") from error

    async def open_link(self, address: str, path: str, patience: Callable[[], float] | None = None) -> Any:
        connection = await self._network.connect(self._machine, self._identity, address, path)
        if patience is not None:
            asyncio.get_running_loop().create_task(watch(connection, patience), name="link watch")
        return MessageLink(connection)

    async def open_frames(self, address: str, path: str) -> Any:
        return await self._network.connect(self._machine, self._identity, address, path)


async def watch(connection: Connection, patience: Callable[[], float]) -> None:
    """End a connection whose other side is there but says nothing, not even a pong, for longer than `patience`."""
    loop = asyncio.get_running_loop()
    heard_at = loop.time()
    while connection.ended is None:
        await asyncio.sleep(WATCH_PERIOD_SECONDS)
        if not connection.peer.process.is_stopped:
            heard_at = loop.time()
        elif loop.time() - heard_at > patience():
            connection.abort()


def _opened(raw: bytes) -> bytes:
    answer = msgspec.msgpack.decode(raw, type=Answer)
    if not answer.error:
        return answer.content
    kind = ERRORS[answer.error]
    if kind is NotLeader:
        raise NotLeader(answer.message, answer.leader_address)
    raise made(kind, answer.message)


def made(kind: type[ShoalError], message: str) -> ShoalError:
    """An error of that class, whatever its constructor asks for."""
    error = kind.__new__(kind)
    ShoalError.__init__(error, message)
    return error


def sealed(error: ShoalError) -> bytes:
    address = error.leader_address if isinstance(error, NotLeader) else ""
    kind = type(error).__name__ if type(error).__name__ in ERRORS else "Unavailable"
    return msgspec.msgpack.encode(Answer(error=kind, message=error.message, leader_address=address))


class SimulatedPort:
    """The node port of one manager: as `daemon.node_port`, by connections of the simulation."""

    def __init__(self, machine: Machine, process: Process, manager: Manager, cluster_id: str, api: AnswerApi) -> None:
        self._machine = machine
        self._process = process
        self._manager = manager
        self._cluster_id = cluster_id
        self._api = api
        self._routes: dict[str, tuple[Admits, Callable[[Identity, Connection], Awaitable[None]]]] = {
            RENEW_PATH: (Admits.NODES, self._renew),
            SESSION_PATH: (Admits.NODES, self._session),
            HEALTH_PATH: (Admits.MANAGERS, self._health),
            JOIN_PATH: (Admits.MANAGERS, self._join),
            RAFT_PATH: (Admits.MANAGERS, self._raft),
            SNAPSHOT_PATH: (Admits.MANAGERS, self._snapshot),
            API_PATH: (Admits.MANAGERS, self._docker),
            CERTIFICATE_PATH: (Admits.ANYONE, self._renew),
        }

    async def start(self, _host: str, _port: int, _context: object) -> None:
        self._machine.listener = Listener(self._process, self._admit)

    async def renew(self, _context: object) -> None:
        pass

    async def stop(self) -> None:
        if self._machine.listener is not None and self._machine.listener.process is self._process:
            self._machine.listener = None
        for end in sorted(self._machine.ends, key=lambda end: end.number):
            if end.process is self._process and getattr(end, "is_served", False):
                end.close()

    def _admit(self, path: str, identity: Identity | None) -> Serve:
        if path not in self._routes:
            raise NotFound(path)
        admits, handler = self._routes[path]
        if identity is None:
            raise Unauthenticated("this needs the certificate of a node of the swarm: join it first")
        if identity.cluster_id != self._cluster_id:
            raise Forbidden(f"node {identity.node_id} is of another swarm ({identity.cluster_id})")
        if admits is Admits.MANAGERS and identity.role != Role.MANAGER:
            raise Forbidden(f"node {identity.node_id} is a {identity.role.value}: this is for managers only")
        return Serve(partial(check_member, self._manager, identity, admits), partial(self._serve, handler, identity))

    async def _serve(
        self, handler: Callable[[Identity, Connection], Awaitable[None]], identity: Identity, connection: Connection
    ) -> None:
        connection.is_served = True
        try:
            await handler(identity, connection)
        except LinkClosed:
            return
        except ShoalError as error:
            if connection.ended is None:
                await connection.send(sealed(error))

    async def _reply(self, connection: Connection, body: object) -> None:
        await connection.send(msgspec.msgpack.encode(Answer(content=msgspec.msgpack.encode(body))))

    async def _renew(self, identity: Identity, connection: Connection) -> None:
        call = msgspec.msgpack.decode(await connection.receive(), type=CertificateCall)
        self._manager.require_lead("signs certificates")
        await self._reply(connection, await self._manager.authority.renew(call, identity))

    async def _session(self, identity: Identity, connection: Connection) -> None:
        await self._manager.serve_session(MessageLink(connection), identity, connection.peer_machine.address)

    async def _health(self, _identity: Identity, connection: Connection) -> None:
        await connection.receive()
        await self._reply(connection, Acknowledged())

    async def _join(self, identity: Identity, connection: Connection) -> None:
        call = msgspec.msgpack.decode(await connection.receive(), type=JoinGroupCall)
        membership = self._manager.membership
        if membership is None:
            self._manager.require_lead("takes members in")
            raise Unavailable("this manager is about to lead: try again")
        await self._reply(connection, await membership.join(call, identity, connection.peer_machine.address))

    async def _raft(self, identity: Identity, connection: Connection) -> None:
        await self._manager.transport.serve(connection, identity)

    async def _snapshot(self, _identity: Identity, connection: Connection) -> None:
        await self._manager.transport.serve_snapshot(_pieces(connection))
        await self._reply(connection, Acknowledged())

    async def _docker(self, _identity: Identity, connection: Connection) -> None:
        await connection.receive()
        if not self._manager.is_leader:
            raise NotLeader("this manager leads no more: try again")
        await self._reply(connection, await self._api(self._manager, connection.handed_over))


async def _pieces(connection: Connection) -> AsyncIterator[bytes]:
    while piece := await connection.receive():
        yield piece


class SimulatedWires(Wires):
    """A node's wires in the simulation. `on_manager` sees each manager before it starts."""

    def __init__(
        self,
        network: Network,
        machine: Machine,
        process: Process,
        chance: random.Random,
        on_manager: Callable[[Manager], None],
        api: AnswerApi,
    ) -> None:
        super().__init__()
        self.random_int = chance.randrange
        self._network = network
        self._machine = machine
        self._process = process
        self._on_manager = on_manager
        self._api = api

    def dialer(self, credentials: Any) -> Dialer:
        return SimulatedDialer(self._network, self._machine, credentials.identity)

    def port(self, manager: Manager, cluster_id: str, api: object) -> Any:
        self._on_manager(manager)
        return SimulatedPort(self._machine, self._process, manager, cluster_id, self._api)
