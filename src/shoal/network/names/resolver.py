"""The resolver: tables of all networks, a server for each container, and the socket over which the daemon says what is.

One process, one thread. Everything it knows is in memory and under EXEC/resolver, so it needs no daemon to go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from pathlib import Path

import msgspec
import structlog

from shoal.network import namespace
from shoal.network.names import codec, messages, opening, upstream
from shoal.network.names.answers import Answers
from shoal.network.names.codec import Question
from shoal.network.names.memory import Memory
from shoal.network.names.messages import Answer, ContainerRecord, Request, ServedContainer
from shoal.network.names.serving import ContainerServer
from shoal.network.names.table import NetworkTable

_log = structlog.get_logger(__name__)

# how often it looks whether the namespaces it serves, and its own socket, are still there
SWEEP_SECONDS = 2.0


class Resolver:
    """See the module.

    Args:
        exec_root: socket and records lie there.
        host_resolver_file: the host's resolv.conf.
    """

    def __init__(self, exec_root: Path, host_resolver_file: Path) -> None:
        self._socket_path = exec_root / messages.SOCKET_FILE
        self._identity = messages.identity(str(host_resolver_file))
        self._home = namespace.open_own()
        self._memory = Memory(exec_root / messages.STATE_DIRECTORY)
        self._host_servers = upstream.HostServers(host_resolver_file)
        self._tables: dict[str, NetworkTable] = {}
        self._containers: dict[str, tuple[ServedContainer, ContainerServer]] = {}
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Take up what the last resolver served, and serve until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._take_up()
        self._socket_path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._converse, self._socket_path)
        finally:
            os.umask(before)
        own_inode = self._socket_path.stat().st_ino
        _log.info("the resolver serves", networks=len(self._tables), containers=len(self._containers))
        try:
            while not self._stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SWEEP_SECONDS):
                        await self._stop.wait()
                self._sweep()
                if not self._is_own_socket(own_inode):
                    _log.info("the resolver's exec root is gone: it ends")
                    return
        finally:
            server.close()
            if self._is_own_socket(own_inode):
                self._memory.flush()
                self._socket_path.unlink()
            for _, each in self._containers.values():
                each.close()

    def _is_own_socket(self, inode: int) -> bool:
        try:
            return self._socket_path.stat().st_ino == inode
        except OSError:
            return False

    def _take_up(self) -> None:
        for update in self._memory.read_networks():
            table = self._tables[update.overlay.network_id] = NetworkTable(update.overlay)
            table.update(update)
        for record in self._memory.read_containers():
            container = record.container
            try:
                self._serve(container, (record.udp_port, record.tcp_port))
            except OSError as error:
                _log.info("a container is served no more", task=container.task_id, reason=str(error))
                self._memory.forget_container(container.task_id)

    def _sweep(self) -> None:
        """Let go of namespaces that are gone: an open socket would keep them alive."""
        for task_id, (container, server) in list(self._containers.items()):
            if opening.inode_of(container.namespace) != server.inode:
                self._remove_container(task_id)

    # -- containers

    def _serve(self, container: ServedContainer, ports: tuple[int, int] = (0, 0)) -> None:
        opened = opening.open_in(container.namespace, self._home, ports)
        answers = Answers(container.network_ids, self._tables)

        async def forward(query: bytes, question: Question, is_stream: bool) -> bytes:
            return await self._ask(container, query, question, is_stream)

        server = ContainerServer(opened, answers, forward)
        self._containers[container.task_id] = (container, server)
        udp_port, tcp_port = server.ports
        self._memory.keep_container(ContainerRecord(container=container, udp_port=udp_port, tcp_port=tcp_port))

    async def _ask(self, container: ServedContainer, query: bytes, question: Question, is_stream: bool) -> bytes:
        def make_inside(family: int, kind: int) -> socket.socket:
            return opening.socket_in(container.namespace, self._home, family, kind)

        def make_at_home(family: int, kind: int) -> socket.socket:
            return socket.socket(family, kind | socket.SOCK_NONBLOCK)

        if container.name_servers:
            return await upstream.ask(query, question, container.name_servers, make_inside, is_stream)
        if container.asks_host:
            return await upstream.ask(query, question, self._host_servers.servers(), make_at_home, is_stream)
        return codec.respond(query, question, codec.SERVER_FAILURE, (), codec.LEAST_UDP_BYTES)

    def _add_container(self, container: ServedContainer) -> None:
        known = self._containers.get(container.task_id)
        ports = (0, 0)
        if known is not None:
            before, server = known
            same_namespace = opening.inode_of(container.namespace) == server.inode
            if before == container and same_namespace:
                return
            ports = server.ports if same_namespace else ports
            server.close()
            del self._containers[container.task_id]
        self._serve(container, ports)

    def _remove_container(self, task_id: str) -> None:
        known = self._containers.pop(task_id, None)
        self._memory.forget_container(task_id)
        if known is None:
            return
        container, server = known
        with contextlib.suppress(OSError):
            if opening.inode_of(container.namespace) == server.inode:
                opening.remove_rules(container.namespace, self._home)
        server.close()

    # -- networks

    def _table_changed(self, network_id: str) -> None:
        for container, server in self._containers.values():
            if network_id in container.network_ids:
                server.answers.forget()

    def _update_network(self, request: messages.UpdateNetwork) -> None:
        overlay = request.update.overlay
        table = self._tables.get(overlay.network_id)
        if table is None:
            table = self._tables[overlay.network_id] = NetworkTable(overlay)
        table.update(request.update)
        self._table_changed(overlay.network_id)
        self._memory.keep_network(table)

    def _remove_network(self, network_id: str) -> None:
        self._memory.forget_network(network_id)
        if self._tables.pop(network_id, None) is not None:
            self._table_changed(network_id)

    def _end(self, forgets: bool) -> None:
        if forgets:
            for network_id in list(self._tables):
                self._remove_network(network_id)
            for task_id in list(self._containers):
                self._remove_container(task_id)
        self._stop.set()

    # -- the daemon's requests

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = messages.body_length(await reader.readexactly(messages.HEADER_BYTES))
                answer = self._obey(await reader.readexactly(length))
                writer.write(messages.encode(answer))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            pass  # the daemon has gone, or this process ends
        finally:
            writer.close()

    def _obey(self, body: bytes) -> Answer:
        try:
            return self._carry_out(messages.decode_request(body))
        except (OSError, msgspec.MsgspecError) as error:
            return Answer(error=str(error) or type(error).__name__)
        except Exception as error:
            # what one request breaks must not end the answers for all
            _log.exception("a request failed")
            return Answer(error=f"{type(error).__name__}: {error}")

    def _carry_out(self, request: Request) -> Answer:
        match request:
            case messages.UpdateNetwork():
                self._update_network(request)
            case messages.RemoveNetwork():
                self._remove_network(request.network_id)
            case messages.AddContainer():
                self._add_container(request.container)
            case messages.RemoveContainer():
                self._remove_container(request.task_id)
            case messages.Stop():
                self._end(request.forgets)
            case messages.Look():
                return Answer(
                    identity=self._identity,
                    pid=os.getpid(),
                    network_ids=tuple(self._tables),
                    containers=tuple(container for container, _ in self._containers.values()),
                )
        return Answer()
