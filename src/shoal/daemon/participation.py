"""This node's part in a swarm, from entering it to leaving: certificate, agent, and a manager while its role is one.

What the swarm says of the node (its role, where the managers are, which roots to trust) comes over the agent's session
and is carried out here. Knows nothing of Docker's API.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import structlog
from aiohttp import web

from shoal.agent.agent import Agent
from shoal.agent.database import TaskDatabase
from shoal.agent.images import ImageSource
from shoal.agent.runner import NodeParts, OwnNetworks
from shoal.agent.streams import StreamServer
from shoal.agent.worker import Worker
from shoal.ca.root import CertificateRequest
from shoal.ca.tokens import parse_unlock_key
from shoal.daemon.addresses import data_path_host, split_address
from shoal.daemon.credentials import Credentials
from shoal.daemon.layout import Layout, SwarmMembership
from shoal.daemon.manager import Manager
from shoal.daemon.node_port import JOIN_PATH, RENEW_PATH, SESSION_PATH, STREAM_PATH, make_node_port
from shoal.daemon.raft import new_raft_id, open_raft
from shoal.engine.engine import RuncEngine
from shoal.errors import Forbidden, Locked, ShoalError, Unavailable
from shoal.lib.backoff import Backoff
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait, supervise
from shoal.model.base import Struct, replace
from shoal.model.messages import Assignments, EndSession, NodeChanged
from shoal.model.node_port import (
    CertificateAnswer,
    CertificateCall,
    JoinGroupAnswer,
    JoinGroupCall,
    ManagerAddress,
    MemberHello,
)
from shoal.model.objects import NodeDescription
from shoal.model.states import Role
from shoal.network.node import NodeNetwork
from shoal.raft.driver import RaftDriver, Transport
from shoal.rpc.dialer import Dialer
from shoal.rpc.link import Frames, Link, make_frame_pair, make_pair
from shoal.rpc.port import NodePort
from shoal.rpc.relay import FRAMES_QUEUED_MOST
from shoal.store.store import Store

_log = structlog.get_logger(__name__)

T = TypeVar("T")
A = TypeVar("A", bound=Struct)
PREFER_OFFLINE_VARIABLE = "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"
JOIN_RETRY_SECONDS = 5.0
BARRIER_RETRY_SECONDS = 1.0
MANAGER_PATIENCE_SECONDS = 3.0
# of so many managers none may fail
MANAGERS_NONE_TO_SPARE = 2


class Wires:
    """How a node reaches others and is reached: by sockets. A simulation of the cluster puts its own in their place."""

    def __init__(self) -> None:
        # spreads the elections of this node's manager
        self.random_int: Callable[[int], int] = random.SystemRandom().randrange

    def dialer(self, credentials: Credentials) -> Dialer:
        """Return who dials managers with this node's certificate."""
        return Dialer(credentials.client_context(), credentials.files.certificate)

    def port(self, manager: Manager, cluster_id: str, api: Callable[[], web.Application]) -> NodePort:
        """Return the node port of a manager that has not started yet."""
        return make_node_port(manager, cluster_id, api())


class Machinery:
    """What a node has whether it is in a swarm or not.

    Args:
        layout: its roots.
        engine, network: its containers and their network.
        own_networks: networks that it makes for itself.
        clock, ids: time and chance.
        describe: what it is like now, given what it is to say of a swarm's trust.
        forwarded_api: makes Docker's API as other managers forward it to this one.
        wires: to other nodes.
        session_began: called whenever a manager tells this node of itself, first thing in a session.
    """

    def __init__(
        self,
        layout: Layout,
        engine: RuncEngine,
        network: NodeNetwork,
        own_networks: OwnNetworks,
        clock: Clock,
        ids: Ids,
        describe: Callable[[NodeDescription], NodeDescription],
        forwarded_api: Callable[[], web.Application],
        wires: Wires | None = None,
        session_began: Callable[[], None] = lambda: None,
    ) -> None:
        self.layout = layout
        self.engine = engine
        self.network = network
        self.own_networks = own_networks
        self.clock = clock
        self.ids = ids
        self.describe = describe
        self.forwarded_api = forwarded_api
        self.wires = wires or Wires()
        self.session_began = session_began


class Participation:
    """A node within a swarm.

    Args:
        machinery: of the node.
        membership: what it remembers of the swarm.
        failed: called when the manager can go on only after a restart of the daemon.
        unlock_key: opens what this manager keeps on disk, empty if that is not encrypted.
    """

    def __init__(
        self,
        machinery: Machinery,
        membership: SwarmMembership,
        failed: Callable[[BaseException], None],
        unlock_key: str = "",
    ) -> None:
        self.unlock_key = unlock_key
        self._machinery = machinery
        self._failed = failed
        self.membership = membership
        self.credentials = Credentials(machinery.layout.certificate_files, machinery.clock)
        self.error = ""
        self._is_removed = False
        self._in_session = asyncio.Event()
        self._dialer: Dialer | None = None
        self._manager: Manager | None = None
        self._port: NodePort | None = None
        self._worker: Worker | None = None
        self._database: TaskDatabase | None = None
        self._agent: Agent | None = None
        self._locking: asyncio.Task[None] | None = None
        self._leader_hint = ""
        # of the manager that serves the session; empty: it is this node's own
        self._session_address = ""
        self._tasks: list[asyncio.Task[None]] = []
        self._changes: asyncio.Queue[NodeChanged] = asyncio.Queue()
        self._role_changed = asyncio.Event()

    # -- life

    @property
    def manager(self) -> Manager | None:
        """The manager that runs here."""
        return self._manager

    async def start(self, founds: bool = False, forgets_others: bool = False) -> None:
        """Take part.

        Args:
            founds: this node's manager begins the swarm.
            forgets_others: it goes on alone (force-new-cluster).

        Raises:
            InvalidArgument: the node port cannot be listened on.
            Locked, WrongUnlockKey: the manager's data is encrypted, and the unlock key does not open it.
        """
        self.credentials.repair()
        if self.credentials.is_locked():
            if not self.unlock_key:
                raise Locked
            self.credentials.unlock(self.unlock_key)
        self._dialer = self._machinery.wires.dialer(self.credentials)
        await self._machinery.network.set_node_number(self.membership.node_number)
        if self.credentials.identity().role == Role.MANAGER:
            await self._start_manager(founds, forgets_others)

    def start_agent(self) -> None:
        """Run the tasks that the swarm gives this node, and keep its certificate fresh."""
        machinery, node_id = self._machinery, self.membership.node_id
        prefer_local = os.environ.get(PREFER_OFFLINE_VARIABLE, "") in ("1", "true")
        parts = NodeParts(
            node_id,
            self.describe,
            machinery.engine,
            machinery.network,
            ImageSource(machinery.engine, prefer_local),
            machinery.clock,
            machinery.own_networks,
        )
        self._database = TaskDatabase(machinery.layout.worker_database)
        self._worker = Worker(parts, self._database)
        streams = StreamServer(machinery.engine, node_id)
        self._agent = Agent(node_id, self.describe, self, self._worker, machinery.network, streams)
        self._worker.start()
        self._tasks = [
            asyncio.create_task(supervise("agent", self._agent.run), name="agent"),
            asyncio.create_task(supervise("task database", self._database.run), name="task database"),
            asyncio.create_task(supervise("role", self._follow_role), name="role"),
            asyncio.create_task(supervise("certificate", self._keep_certificate), name="certificate"),
            asyncio.create_task(supervise("node changes", self._follow_changes), name="node changes"),
        ]

    async def wait_for_session(self) -> None:
        """Return when a manager serves this node."""
        await self._in_session.wait()

    async def say_goodbye(self, for_good: bool) -> None:
        """Tell the manager that this node goes for good, so that it is down at once, or for a while; best effort."""
        if self._agent is not None:
            await self._agent.say_goodbye(for_good)

    async def stop(self) -> None:
        """Stop; containers go on."""
        await cancel_and_wait(*self._tasks)
        self._tasks = []
        if self._worker is not None:
            await self._worker.stop()
            self._worker = None
        await self._stop_manager()
        if self._database is not None:
            self._database.close()
            self._database = None
        if self._dialer is not None:
            await self._dialer.close()
            self._dialer = None

    def describe(self) -> NodeDescription:
        """Return what this node says of itself to the swarm."""
        membership = self.membership
        address = data_path_host(membership.data_path_address, membership.advertise_address)
        return replace(self._machinery.describe(self.credentials.describe()), data_path_address=address)

    @property
    def dialer(self) -> Dialer:
        """Reaches managers."""
        if self._dialer is None:
            raise Unavailable("this node takes no part in a swarm at the moment")
        return self._dialer

    # -- the manager

    async def _start_manager(self, founds: bool = False, forgets_others: bool = False) -> None:
        machinery = self._machinery
        if not founds and not (machinery.layout.raft / "log.sqlite").exists():
            # A member's id stands for what it has promised: one without its log is another member.
            self._remember(raft_id=new_raft_id(machinery.ids))
        membership = self.membership
        hello = MemberHello(
            raft_id=membership.raft_id, node_id=membership.node_id, address=membership.advertise_address
        )

        unlock_key = parse_unlock_key(self.unlock_key) if self.unlock_key else None

        async def open_member(store: Store, transport: Transport) -> RaftDriver:
            return await open_raft(
                machinery.layout,
                membership,
                store,
                transport=transport,
                founds=founds,
                forgets_others=forgets_others,
                unlock_key=unlock_key,
                random_int=machinery.wires.random_int,
            )

        manager = Manager(
            machinery.clock,
            machinery.ids,
            open_member,
            self.dialer,
            hello,
            membership.managers,
            self.credentials.external_context,
        )
        port = machinery.wires.port(manager, membership.cluster_id, machinery.forwarded_api)
        host, number = split_address(membership.listen_address)
        try:
            await manager.start()
            await port.start(host, number, self.credentials.server_context())
        except BaseException:
            await port.stop()
            await manager.stop()
            raise
        manager.raft.failure.add_done_callback(self._manager_failed)
        self._manager, self._port = manager, port
        self._locking = asyncio.create_task(
            supervise("autolock", partial(self._follow_unlock_key, manager)), name="autolock"
        )

    async def _follow_unlock_key(self, manager: Manager) -> None:
        """Keep what lies on this manager's disk encrypted by the swarm's unlock key, or plain if there is none."""
        follower = manager.store.follow("cluster")
        while True:
            # What a manager reads while it catches up may be of long ago: only what it reads now counts.
            with contextlib.suppress(ShoalError):
                await manager.store.barrier()
                await self._protect(manager)
                await follower.wait()
                continue
            await asyncio.sleep(BARRIER_RETRY_SECONDS)

    async def _protect(self, manager: Manager) -> None:
        cluster = manager.store.view.cluster()
        wanted = cluster.unlock_key if cluster is not None else self.unlock_key
        if wanted == self.unlock_key and self.credentials.is_locked() == bool(wanted):
            return
        key_file = manager.raft.key_file
        if wanted:
            await asyncio.to_thread(key_file.wrap, parse_unlock_key(wanted))
        else:
            await asyncio.to_thread(key_file.unwrap)
        await asyncio.to_thread(self.credentials.protect, wanted or None)
        self.unlock_key = wanted
        _log.info("what lies on disk is encrypted by the unlock key" if wanted else "what lies on disk is plain")

    def _manager_failed(self, failure: asyncio.Future[BaseException]) -> None:
        if not failure.cancelled():
            self.error = f"the manager has failed: {failure.result()}"
            self._failed(failure.result())

    async def _stop_manager(self) -> None:
        await cancel_and_wait(self._locking)
        self._locking = None
        manager, self._manager = self._manager, None
        if manager is not None:
            await manager.stop()
        port, self._port = self._port, None
        if port is not None:
            await port.stop()

    async def join_group(self) -> None:
        """Ask the leader to make this node's manager a member, unless it is one; tried until it is or need not be."""
        backoff = Backoff(0.2, JOIN_RETRY_SECONDS)
        while True:
            manager = self._manager
            if manager is None or any(m.raft_id == self.membership.raft_id for m in manager.raft.members()):
                return
            if self.credentials.identity().role != Role.MANAGER:
                return
            try:
                await self._ask_to_join()
                return
            except ShoalError as error:
                self.error = f"this manager is no member yet: {error.message}"
                _log.warning("this manager is no member yet", reason=error.message)
            await asyncio.sleep(backoff.next_delay_seconds())

    async def _ask_to_join(self) -> None:
        call = JoinGroupCall(raft_id=self.membership.raft_id, address=self.membership.advertise_address)
        answer = await self._ask_in_turn(lambda address: self.dialer.call(address, JOIN_PATH, call, JoinGroupAnswer))
        self._remember(advertise_address=answer.address, managers=answer.members)
        self.error = ""

    async def ask_leader(self, path: str, call: Struct, answer: type[A], here: Callable[[Manager], Awaitable[A]]) -> A:
        """Ask whoever leads. `here` answers if that is this node's manager. Raises Unavailable, and what it refuses."""
        manager = self._manager
        if manager is not None and manager.is_leader:
            return await here(manager)
        last = Unavailable("no manager of the swarm is known")
        for address in self._managers_to_try():
            try:
                return await self.dialer.call(address, path, call, answer)
            except Unavailable as error:
                last = error
        raise last

    async def _ask_in_turn(self, ask: Callable[[str], Awaitable[T]]) -> T:
        """Return the first answer of a manager. Raises what the last one refused it with."""
        last: ShoalError = Unavailable("no manager of the swarm is known")
        for address in self._managers_to_try():
            try:
                return await ask(address)
            except ShoalError as error:
                last = error
        raise last

    # -- what the agent asks and tells (agent.NodeKeeper)

    async def dial(self) -> Link:
        """Open a link to whoever serves sessions, as far as that is known."""
        identity = self.credentials.identity()
        manager = self._manager
        if manager is not None and manager.is_leader:
            ours, theirs = make_pair()
            manager.accept(theirs, identity, split_address(self.membership.advertise_address)[0])
            self._session_address = ""
            return ours
        last: ShoalError = Unavailable("no manager of the swarm is known")
        for address in self._managers_to_try():
            try:
                link = await self.dialer.open_link(address, SESSION_PATH, self._patience)
                self._session_address = address
                return link
            except Forbidden as error:
                self._note_removal(error.message)
                raise
            except ShoalError as error:
                last = error
        self.error = last.message
        raise last

    def _patience(self) -> float:
        """How long a manager may be silent: one that is stopped or stalled has lost the lead to another by then.

        Where no other can lead, leaving it would only make this node look dead when it goes on.
        """
        return MANAGER_PATIENCE_SECONDS if len(self.membership.managers) > MANAGERS_NONE_TO_SPARE else math.inf

    async def dial_stream(self, stream_id: str) -> Frames:
        """Open a stream to the manager of the session under way, who asked for it."""
        if self._session_address:
            path = STREAM_PATH.format(id=stream_id)
            return await self.dialer.open_frames(self._session_address, path, is_patient=True)
        if self._manager is None:
            raise Unavailable("the manager of this node has stopped")
        ours, theirs = make_frame_pair(FRAMES_QUEUED_MOST)
        self._manager.streams_of(self.membership.node_id).take(stream_id, theirs)
        return ours

    def _managers_to_try(self) -> list[str]:
        """Return addresses of managers: who leads, if that is known, then the others in any order.

        The one that served the last session comes last: if its host is dead, finding that out takes seconds.
        """
        manager = self._manager
        leader = manager.leader_address if manager is not None else ""
        hint, self._leader_hint = self._leader_hint, ""
        others = [m.address for m in self.membership.managers if m.node_id != self.membership.node_id]
        random.shuffle(others)
        others.sort(key=lambda address: address == self._session_address)
        ordered = dict.fromkeys(address for address in (leader, hint, *others) if address)
        ordered.pop(self.membership.advertise_address, None)
        return list(ordered)

    def session_refused(self, ended: EndSession) -> None:
        """A manager serves no session: another leads, or this node is no longer of the swarm."""
        self._leader_hint = ended.leader_address
        if ended.removed:
            self._note_removal(ended.reason)

    def _note_removal(self, reason: str) -> None:
        """This node is no longer of the swarm: what it ran for it runs elsewhere by now, and is stopped here."""
        self.error = f"{reason}: leave the swarm (docker swarm leave) and join again"
        if not self._is_removed:
            self._is_removed = True
            _log.warning("this node was removed from its swarm", reason=reason)
            if self._worker is not None:
                self._worker.take(Assignments(sequence=0, complete=True))

    def take_node(self, changed: NodeChanged) -> None:
        """The swarm says what this node is to be, where the managers are, and which roots to trust."""
        self.error = ""
        self._in_session.set()
        self._machinery.session_began()
        self._changes.put_nowait(changed)

    async def _follow_changes(self) -> None:
        while True:
            changed = await self._changes.get()
            if changed.managers and changed.managers != self.membership.managers:
                self._remember(managers=changed.managers)
            if changed.node.number != self.membership.node_number:
                self._remember(node_number=changed.node.number)
                await self._machinery.network.set_node_number(changed.node.number)
            if changed.roots and changed.roots != self.credentials.roots:
                self.credentials.store_roots(changed.roots)
                await self._renew_contexts()
            if changed.certificate_wanted:
                self.credentials.renew_soon()

    # -- certificate and role

    async def _keep_certificate(self) -> None:
        await self.credentials.keep_fresh(self._renew)

    async def _renew(self, request: CertificateRequest) -> None:
        call = CertificateCall(request=request.request)
        manager = self._manager
        if manager is not None and manager.is_leader:
            answer = await manager.authority.renew(call, self.credentials.identity())
        else:
            answer = await self._ask_in_turn(
                lambda address: self.dialer.call(address, RENEW_PATH, call, CertificateAnswer)
            )
        old = self.credentials.identity().role
        self.credentials.store(request.key, answer.certificate, answer.root)
        self._remember(managers=answer.managers)
        _log.info("certificate renewed", role=answer.role.value)
        await self._renew_contexts()
        if answer.role != old:
            self._role_changed.set()

    async def _renew_contexts(self) -> None:
        self.dialer.renew(self.credentials.client_context())
        if self._port is not None:
            await self._port.renew(self.credentials.server_context())
        if self._agent is not None:
            # its session says by which certificate it was opened
            self._agent.reconnect("this node has a new certificate")

    async def _follow_role(self) -> None:
        """Settle the role whenever it changes; certificates go on meanwhile, as joining may take for ever."""
        while True:
            self._role_changed.clear()
            await self._settle_role()
            await self._role_changed.wait()

    async def _settle_role(self) -> None:
        """Run a manager here if, and only if, the certificate says that this node is one."""
        if self.credentials.identity().role == Role.MANAGER:
            if self._manager is None:
                await self._start_manager()
                _log.info("this node is a manager now")
            await self.join_group()
        elif self._manager is not None or self.membership.raft_id:
            await self._stop_manager()
            # a worker's key is plain: autolock is for managers
            await asyncio.to_thread(self.credentials.protect, None)
            self.unlock_key = ""
            self._remember(raft_id=0)
            await asyncio.to_thread(self._machinery.layout.erase_raft)
            _log.info("this node is a worker now")

    def _remember(
        self,
        raft_id: int | None = None,
        advertise_address: str | None = None,
        managers: tuple[ManagerAddress, ...] | None = None,
        node_number: int | None = None,
    ) -> None:
        old = self.membership
        self.membership = replace(
            old,
            raft_id=old.raft_id if raft_id is None else raft_id,
            advertise_address=advertise_address or old.advertise_address,
            managers=old.managers if managers is None else managers,
            node_number=old.node_number if node_number is None else node_number,
        )
        if self.membership != old:
            self._machinery.layout.write_membership(self.membership)
