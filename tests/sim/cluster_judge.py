"""What must hold in the simulated cluster at every moment; the first thing that does not is remembered and ends it.

All managers' entries are applied once more to a store of the judge's own, in the order of the log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from shoal.daemon.manager import Manager
from shoal.model.objects import Service, Task
from shoal.model.states import TaskState
from shoal.raft.core.messages import MessageType
from shoal.store.store import Store
from tests.sim.cluster_host import Host, VirtualClock
from tests.sim.virtual_loop import VirtualLoop

LEADERS_MESSAGES = {MessageType.APPEND, MessageType.HEARTBEAT, MessageType.SNAPSHOT}
# a node that came back is told to stop what runs elsewhere, and stopping takes its time
SETTLED_SECONDS = 6.0


class Judge:
    """Watches all managers and all engines."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.store = Store(VirtualClock(loop))
        self._feed = self.store.follow()
        self.entries: dict[int, bytes] = {}
        self.applied = 0
        self.leaders: dict[int, int] = {}
        self.broken: asyncio.Future[str] = loop.create_future()
        self.seen: Counter[str] = Counter()
        self._in_session: dict[tuple[int, str], float] = {}

    def break_off(self, what: str) -> None:
        if not self.broken.done():
            self.broken.set_result(f"at {self._loop.now:.3f} s: {what}")

    # -- the log

    def watch(self, host: Host, manager: Manager) -> None:
        """Look at all that a manager applies and sends."""
        apply, send = manager.store.apply, manager.transport.send

        def applied(index: int, data: bytes) -> object:
            self._note_entry(host, index, data)
            return apply(index, data)

        def sent(messages: Any) -> None:
            batch = list(messages)
            for message in batch:
                if message.type in LEADERS_MESSAGES:
                    self._note_leader(message.term, message.sender)
            send(batch)

        manager.store.apply = applied
        manager.transport.send = sent

    def _note_leader(self, term: int, raft_id: int) -> None:
        if self.leaders.setdefault(term, raft_id) != raft_id:
            self.break_off(f"two leaders of term {term}: {self.leaders[term]:x} and {raft_id:x}")

    def _note_entry(self, host: Host, index: int, data: bytes) -> None:
        known = self.entries.get(index)
        if known is not None:
            if known != data:
                self.break_off(f"{host.name} applies another entry {index} than others did")
            return
        if index <= self.applied:
            self.break_off(f"{host.name} applies an entry {index} that others did not, who are at {self.applied}")
            return
        self.entries[index] = data
        self.applied = index
        result = self.store.apply(index, data)
        self.seen["entries refused" if isinstance(result, Exception) else "entries"] += 1
        for change in self._feed.take().changes:
            if isinstance(change.new, Task):
                self._judge_task(change.old, change.new)
        if self.seen["entries"] % 10 == 0:
            self.judge_claims()

    def _judge_task(self, old: Any, new: Task) -> None:
        if not isinstance(old, Task):
            return
        if new.status.state < old.status.state:
            self.break_off(f"task {new.id} goes back from {old.status.state.word} to {new.status.state.word}")
        if new.desired_state < old.desired_state:
            self.break_off(f"task {new.id} is wanted again: {old.desired_state.word}, {new.desired_state.word}")
        if old.node_id and new.node_id != old.node_id:
            self.break_off(f"task {new.id} moves from {old.node_id} to {new.node_id}")
        self.seen[f"tasks {new.status.state.word}"] += new.status.state != old.status.state

    def judge_claims(self) -> None:
        """Addresses and ports belong to one."""
        addresses: dict[str, str] = {}
        ports: dict[tuple[str, int], str] = {}
        for service in self.store.view.find(Service):
            for virtual in service.endpoint.virtual_ips:
                self._claim(addresses, f"{virtual.network_id} {virtual.address.partition('/')[0]}", service.id)
            for port in service.endpoint.ports:
                if port.publish_mode != "host":
                    self._claim(ports, (port.protocol, port.published_port), service.id)
        for task in self.store.view.find(Task):
            if not task.status.state.is_terminal:
                for attachment in task.attachments:
                    for address in attachment.addresses:
                        self._claim(addresses, f"{attachment.network_id} {address.partition('/')[0]}", task.id)

    def _claim(self, claims: dict[Any, str], what: Any, who: str) -> None:
        if claims.setdefault(what, who) != who:
            self.break_off(f"{what} belongs to {claims[what]} and to {who}")

    # -- what runs

    def slot_of(self, task_id: str) -> tuple[str, Any] | None:
        task = self.store.view.get(Task, task_id)
        if task is None or task.desired_state >= TaskState.REMOVE:
            # its service is gone or was scaled down: whoever has the slot by now need not wait for it
            return None
        return task.service_id, task.slot or task.node_id

    def judge_running(self, hosts: list[Host]) -> None:
        """No slot runs twice on nodes that have had a session with the leader for a while."""
        leader = leader_among(hosts)
        if leader is None:
            return
        now = self._loop.now
        sessions = leader.manager._leader.dispatcher._sessions if leader.manager._leader else {}
        connected = {}
        for host in hosts:
            part, process = host.part, host.process
            agent = part._agent if part is not None else None
            session = sessions.get(part.membership.node_id) if part is not None else None
            well = process is not None and not process.is_stopped and not process.slow_seconds
            if agent is not None and session is not None and session.id == agent.session_id and well:
                key = (host.number, session.id)
                connected[key] = self._in_session.get(key, now)
        self._in_session = connected
        settled = {number for (number, _), since in connected.items() if now - since >= SETTLED_SECONDS}
        slots: dict[Any, str] = {}
        for host in hosts:
            if host.number not in settled:
                continue
            for container in host.engine.running():
                task_id = container.config.labels["com.docker.swarm.task.id"]
                slot = self.slot_of(task_id)
                if slot is None:
                    continue
                if slot in slots and slots[slot] != task_id:
                    self.break_off(f"slot {slot} runs twice: {slots[slot]} and {task_id} on {host.name}")
                slots[slot] = task_id

    def states_equal(self, manager: Manager) -> str:
        """Say how a manager's store differs from the judge's, empty if it does not."""
        ours = {(type(o).__name__, o.id): o for o in self.store._tables.everything()}
        theirs = {(type(o).__name__, o.id): o for o in manager.store._tables.everything()}
        if ours == theirs:
            return ""
        different = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        return f"{different[:3]}: {[ours.get(k) for k in different[:1]]} {[theirs.get(k) for k in different[:1]]}"

    def wanted(self) -> dict[str, list[TaskState]]:
        view = self.store.view
        return {s.id: [t.desired_state for t in view.tasks_of_service(s.id)] for s in view.find(Service)}


def leader_among(hosts: list[Host]) -> Host | None:
    """The host whose manager leads in the newest term."""
    leading = [h for h in hosts if h.manager is not None and h.manager.is_leader]
    return max(leading, key=lambda host: host.manager.raft.term, default=None)
