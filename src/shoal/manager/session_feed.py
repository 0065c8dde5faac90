"""What sessions must look at after a change: one reader of the store's feed tells each session only what concerns it.

So a changed task costs the same whether ten nodes are in session or ten thousand. The mesh is the same for all nodes:
it is worked out here, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from shoal.core.ingress import published_ports
from shoal.manager.loops import ingress_network
from shoal.model.base import Struct
from shoal.model.netstate import IngressPort, IngressState
from shoal.model.objects import Node, Service, Task
from shoal.store.feed import Batch
from shoal.store.store import Store
from shoal.store.view import View


class News(Struct):
    """What a session is to look at again, besides the mesh. `everything`: as at its beginning."""

    everything: bool = False
    tasks: frozenset[str] = frozenset()
    node: bool = False


class Subscription:
    """One session's place: what has come up for it since it looked."""

    def __init__(self) -> None:
        self.everything = True
        self.tasks: set[str] = set()
        self.node = False
        self._wake = asyncio.Event()
        self._wake.set()

    def wake(self) -> None:
        """There is something to look at."""
        self._wake.set()

    async def wait(self) -> None:
        """Return when there is something to look at."""
        await self._wake.wait()

    def take(self) -> News:
        """Return what has come up, and begin anew."""
        news = News(everything=self.everything, tasks=frozenset(self.tasks), node=self.node)
        self.everything = self.node = False
        self.tasks.clear()
        self._wake.clear()
        return news


class SessionFeed:
    """Reads the store's feed for all sessions of a leader."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._follower = store.follow("task", "service", "node", "cluster")
        self._subscriptions: dict[str, set[Subscription]] = {}
        self._published: dict[str, tuple[IngressPort, ...]] = {}
        self._mesh = IngressState()
        self._look_at_mesh(Batch(changes=(), gap=True))

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

    def mesh(self) -> IngressState:
        """Return the mesh as of all that was read."""
        self._read(self._follower.take())
        return self._mesh

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            self._read(await self._follower.wait())

    def _read(self, batch: Batch) -> None:
        mesh_changed = self._look_at_mesh(batch)
        if batch.gap:
            self._tell_all(everything=True)
            return
        for change in batch.changes:
            if change.kind == "task":
                for value in (change.old, change.new):
                    if isinstance(value, Task) and value.node_id:
                        self._tell_task(value.node_id, change.id)
            elif change.kind == "node":
                self._tell_node(change.id)
                if _managers_differ(change.old, change.new):
                    self._tell_all(node=True)
            elif change.kind == "cluster":
                self._tell_all(node=True)
        if mesh_changed:
            self._tell_all()

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

    # -- the mesh

    def _look_at_mesh(self, batch: Batch) -> bool:
        """Work the mesh out anew after `batch`; only services that it concerns are looked at. Returns if it differs."""
        view = self._store.view
        network = ingress_network(view)
        if network is None:
            return False
        if batch.gap:
            self._published.clear()
            concerned = [service.id for service in view.find(Service)]
        else:
            concerned = list(dict.fromkeys(_services_of(view, batch)))
        differs = batch.gap
        for service_id in concerned:
            service = view.get(Service, service_id)
            ports = (
                published_ports((service,), view.tasks_of_service, lambda id_: view.get(Node, id_), network.id)
                if service is not None and service.endpoint.ports
                else ()
            )
            if ports == self._published.get(service_id, ()):
                continue
            differs = True
            if ports:
                self._published[service_id] = ports
            else:
                self._published.pop(service_id, None)
        if differs:
            every = (port for ports in self._published.values() for port in ports)
            ordered = tuple(sorted(every, key=lambda port: (port.protocol, port.published_port)))
            self._mesh = IngressState(version=self._store.consensus.applied_index, ports=ordered)
        return differs


def _managers_differ(old: object, new: object) -> bool:
    before = old.manager_status if isinstance(old, Node) else None
    after = new.manager_status if isinstance(new, Node) else None
    return before != after


def _services_of(view: View, batch: Batch) -> Iterator[str]:
    """Yield the services whose backends a batch of changes can concern."""
    for change in batch.changes:
        value = change.new or change.old
        if isinstance(value, Task):
            yield value.service_id
        elif isinstance(value, Service):
            yield value.id
        elif isinstance(value, Node) and (change.old is None or change.new is None):
            # what else changes about a node does not move its tasks
            yield from (task.service_id for task in view.tasks_of_node(value.id))
