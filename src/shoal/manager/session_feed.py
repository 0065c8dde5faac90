"""What sessions must look at after a change: one reader of the store's feed tells each session only what concerns it.

So a changed task costs the same whether ten nodes are in session or ten thousand. What the network should be is worked
out once for all nodes (`network_feed.py`), and which tasks may be told to stop, too (`removals.py`).
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from shoal.core.ingress import is_serving
from shoal.core.networks import OVERLAY_DRIVER
from shoal.manager.network_feed import NetworkFeed, NetworkNews
from shoal.manager.removals import Removals
from shoal.model.base import Struct, replace
from shoal.model.objects import Node, Task
from shoal.model.states import NodeState, TaskState
from shoal.store.apply import Change
from shoal.store.feed import Batch
from shoal.store.store import Store

_log = structlog.get_logger(__name__)


class News(Struct):
    """What a session is to look at again. `everything`: as at its beginning. `services`: by overlay network."""

    everything: bool = False
    tasks: frozenset[str] = frozenset()
    node: bool = False
    services: dict[str, frozenset[str]] = {}


class Subscription:
    """One session's place: what has come up for it since it looked."""

    def __init__(self) -> None:
        self.everything = True
        self.tasks: set[str] = set()
        self.node = False
        # the overlay networks that its node was told of: the session keeps it
        self.networks: frozenset[str] = frozenset()
        self._services: dict[str, set[str]] = {}
        self._wake = asyncio.Event()
        self._wake.set()
        self._concerned = asyncio.Event()
        self._concerned.set()

    def wake(self) -> None:
        """There is something to look at."""
        self._wake.set()
        if self.everything or self.node or self.tasks:
            self._concerned.set()

    def note_services(self, network_id: str, service_ids: frozenset[str]) -> None:
        """Services have changed on an overlay network that the node knows."""
        self._services.setdefault(network_id, set()).update(service_ids)
        self._wake.set()

    async def wait(self) -> None:
        """Return when there is something to look at."""
        await self._wake.wait()

    async def wait_for_tasks(self, seconds: float) -> None:
        """Return when the node itself or a task of it is concerned, after `seconds` at the latest."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._concerned.wait()

    def take(self) -> News:
        """Return what has come up, and begin anew."""
        services = {network_id: frozenset(ids) for network_id, ids in self._services.items()}
        news = News(everything=self.everything, tasks=frozenset(self.tasks), node=self.node, services=services)
        self.everything = self.node = False
        self.tasks.clear()
        self._services.clear()
        self._wake.clear()
        self._concerned.clear()
        return news


class SessionFeed:
    """Reads the store's feed for all sessions of a leader."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._follower = store.follow("task", "service", "node", "cluster", "network")
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._network = NetworkFeed(store)
        self._removals = Removals()
        self._began = asyncio.Event()
        self._read(Batch(changes=(), gap=True))

    def subscribe(self, node_id: str) -> Subscription:
        """Return a place for a session of this node; it begins with everything."""
        subscription = Subscription()
        self._subscriptions.setdefault(node_id, set()).add(subscription)
        return subscription

    def unsubscribe(self, node_id: str, subscription: Subscription) -> None:
        """Give a place up."""
        places = self._subscriptions.get(node_id, set())
        places.discard(subscription)
        if not places:
            self._subscriptions.pop(node_id, None)

    def network(self) -> NetworkFeed:
        """Return what networks should be as of all that was read."""
        self._read(self._follower.take())
        return self._network

    def as_told(self, task: Task) -> Task:
        """Return a task as its node is to know it: one that nodes still balance to is not to stop yet."""
        if not task.is_wanted and self._removals.is_held(task.id):
            return replace(task, desired_state=TaskState.RUNNING)
        return task

    def note_of(self, task_id: str) -> str:
        """Return what is to be said about a task's end besides what its node says."""
        return self._removals.note_of(task_id)

    def acknowledge(self, node_id: str, version: int) -> None:
        """A node's kernel and names hold everything up to `version`."""
        self._tell_tasks(self._removals.acknowledge(node_id, version))

    async def run(self) -> None:
        """Read until cancelled."""
        expiring = asyncio.create_task(self._expire_removals(), name="removals")
        try:
            while True:
                self._read(await self._follower.wait())
        finally:
            expiring.cancel()

    async def _expire_removals(self) -> None:
        """Let go of nodes that do not acknowledge in time."""
        loop = asyncio.get_running_loop()
        while True:
            deadline = self._removals.next_deadline()
            if deadline is None:
                self._began.clear()
                await self._began.wait()
                continue
            await asyncio.sleep(max(0.0, deadline - loop.time()))
            for task_id, silent in self._removals.expire(loop.time()):
                names = ", ".join(map(self._name_of_node, silent))
                _log.warning("a task stops though nodes may still balance to it", task=task_id, nodes=names)
                self._removals.note(task_id, f"stopped without the acknowledgement of {names}")
                self._tell_tasks((task_id,))

    def _name_of_node(self, node_id: str) -> str:
        node = self._store.view.get(Node, node_id)
        return f"node {node.description.hostname or node_id}" if node is not None else f"node {node_id}"

    def _read(self, batch: Batch) -> None:
        network_news = self._network.look(batch)
        self._look_at_removals(batch)
        if batch.gap:
            self._tell_all(everything=True)
            return
        for change in batch.changes:
            if change.kind == "task":
                for value in (change.old, change.new):
                    if isinstance(value, Task):
                        for node_id in {value.node_id, value.pull_node_id} - {""}:
                            self._tell_task(node_id, change.id)
            elif change.kind == "node":
                self._tell_node(change.id)
                if _managers_differ(change.old, change.new):
                    self._tell_all(node=True)
            elif change.kind == "cluster":
                self._tell_all(node=True)
        self._tell_network(network_news)

    def _tell_network(self, news: NetworkNews) -> None:
        if news.everywhere:
            self._tell_all()
        if not news.services:
            return
        for places in self._subscriptions.values():
            for place in places:
                for network_id in place.networks & news.services.keys():
                    place.note_services(network_id, news.services[network_id])

    def _tell_tasks(self, task_ids: tuple[str, ...]) -> None:
        for task_id in task_ids:
            task = self._store.view.get(Task, task_id)
            if task is not None:
                self._tell_task(task.node_id, task_id)

    def _tell_task(self, node_id: str, task_id: str) -> None:
        for place in self._subscriptions.get(node_id, ()):
            place.tasks.add(task_id)
            place.wake()

    def _tell_node(self, node_id: str) -> None:
        for place in self._subscriptions.get(node_id, ()):
            place.node = True
            place.wake()

    def _tell_all(self, *, everything: bool = False, node: bool = False) -> None:
        """Wake all sessions: each looks at the mesh, and at what is named."""
        for places in self._subscriptions.values():
            for place in places:
                place.everything |= everything
                place.node |= node
                place.wake()

    # -- ordered removal

    def _look_at_removals(self, batch: Batch) -> None:
        if batch.gap:
            for task in self._store.view.find(Task):
                self._look_at_removal(task)
        for change in batch.changes:
            if change.kind == "task":
                self._look_at_task(change)
            elif isinstance(change.old, Node) and not _is_awaited(change.new):
                self._tell_tasks(self._removals.forget_node(change.id))

    def _look_at_task(self, change: Change) -> None:
        new = change.new
        if not isinstance(new, Task) or new.status.state > TaskState.RUNNING:
            self._removals.forget_task(change.id)
        elif not isinstance(change.old, Task) or is_serving(change.old):
            self._look_at_removal(new)

    def _look_at_removal(self, task: Task) -> None:
        """Hold a task that runs and is to stop, if any node balances to it."""
        if task.status.state != TaskState.RUNNING or task.is_wanted:
            return
        awaited = self._nodes_that_balance_to(task)
        if awaited:
            self._removals.begin(task.id, self._network.version, awaited, asyncio.get_running_loop().time())
            self._began.set()

    def _nodes_that_balance_to(self, task: Task) -> list[str]:
        balanced = [each for each in task.attachments if each.addresses]
        if not balanced:
            return []
        nodes = [node for node in self._store.view.find(Node) if _is_awaited(node)]
        if any(each.driver != OVERLAY_DRIVER for each in balanced):
            return [node.id for node in nodes]
        numbers = frozenset[int]().union(*(self._network.nodes_on(each.network_id) for each in balanced))
        return [node.id for node in nodes if node.number in numbers]


def _is_awaited(node: object) -> bool:
    """Whether a node's acknowledgement is worth waiting for; a new leader knows of none yet that it is there."""
    return isinstance(node, Node) and node.status.state in (NodeState.READY, NodeState.UNKNOWN)


def _managers_differ(old: object, new: object) -> bool:
    before = old.manager_status if isinstance(old, Node) else None
    after = new.manager_status if isinstance(new, Node) else None
    return before != after
