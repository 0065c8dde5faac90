"""The network of the swarm as nodes are to know it, worked out once for all sessions of a leader from the store's feed.

Knows no sessions: `session_feed.py` tells them. Only what a batch of changes concerns is looked at again.
"""

from __future__ import annotations

from collections.abc import Iterator

from shoal.core.ingress import Published, is_placed, publish
from shoal.core.network_keys import is_encrypted
from shoal.core.networks import OVERLAY_DRIVER, is_overlay
from shoal.core.overlay import data_path, overlay_of, overlay_service
from shoal.manager.loops import ingress_network
from shoal.model.base import Struct
from shoal.model.netstate import DataPath, IngressState, OverlayService, OverlayUpdate
from shoal.model.objects import Network, Node, Service, Task
from shoal.store.feed import Batch
from shoal.store.store import Store
from shoal.store.view import View


class NetworkNews(Struct):
    """What a batch has changed: for all nodes, and on each network which services."""

    everywhere: bool = False
    services: dict[str, frozenset[str]] = {}


class NetworkFeed:
    """What all nodes' networks should hold, as of `version`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._published: dict[str, Published] = {}
        self._overlays: dict[str, dict[str, OverlayService]] = {}
        self._networks_of_service: dict[str, frozenset[str]] = {}
        self.version = 0
        self.mesh = IngressState()
        self.data_path = DataPath()

    def networks_of_node(self, node_id: str) -> frozenset[str]:
        """Return the overlay networks that a node takes part in: those of its tasks that have not ended."""
        return frozenset(
            attachment.network_id
            for task in self._store.view.tasks_of_node(node_id)
            if is_placed(task)
            for attachment in task.attachments
            if attachment.driver == OVERLAY_DRIVER
        )

    def nodes_on(self, network_id: str) -> frozenset[int]:
        """Return the numbers of the nodes that take part in an overlay network."""
        services = self._overlays.get(network_id, {}).values()
        return frozenset(endpoint.node_number for service in services for endpoint in service.endpoints)

    def whole(self, network_id: str) -> OverlayUpdate | None:
        """Return all of an overlay network, None if it is gone."""
        network = self._store.view.get(Network, network_id)
        if network is None:
            return None
        services = self._overlays.get(network_id, {})
        return OverlayUpdate(
            overlay=overlay_of(network), complete=True, services=tuple(services[id_] for id_ in sorted(services))
        )

    def difference(self, network_id: str, service_ids: frozenset[str]) -> OverlayUpdate | None:
        """Return what these services have on an overlay network now, None if it is gone."""
        network = self._store.view.get(Network, network_id)
        if network is None:
            return None
        services = self._overlays.get(network_id, {})
        ordered = sorted(service_ids)
        return OverlayUpdate(
            overlay=overlay_of(network),
            services=tuple(services[id_] for id_ in ordered if id_ in services),
            removed_service_ids=tuple(id_ for id_ in ordered if id_ not in services),
        )

    def look(self, batch: Batch) -> NetworkNews:
        """Work out anew what `batch` concerns; return what differs."""
        view = self._store.view
        self.version = self._store.consensus.applied_index
        if batch.gap:
            self._published.clear()
            self._overlays.clear()
            self._networks_of_service.clear()
            tasks = (task.service_id for task in view.find(Task))
            concerned = dict.fromkeys((*(service.id for service in view.find(Service)), *tasks))
        else:
            concerned = dict.fromkeys(_services_of(view, batch))
        network = ingress_network(view)
        encrypted = network is not None and is_encrypted(network)
        mesh_differs = self._look_at_mesh(view, network, concerned) or batch.gap or encrypted != self.mesh.encrypted
        if mesh_differs:
            self._set_mesh(encrypted)
        differing: dict[str, set[str]] = {}
        for service_id in concerned:
            for network_id in self._look_at_overlays(view, service_id):
                differing.setdefault(network_id, set()).add(service_id)
        peers_differ = self._look_at_peers(view, batch)
        return NetworkNews(
            everywhere=mesh_differs or peers_differ,
            services={network_id: frozenset(ids) for network_id, ids in differing.items()},
        )

    def _look_at_mesh(self, view: View, network: Network | None, concerned: dict[str, None]) -> bool:
        differs = False
        for service_id in concerned:
            service = view.get(Service, service_id)
            before = self._published.get(service_id, Published())
            published = Published()
            has_ports = service is not None and bool(service.endpoint.ports)
            if network is not None and (has_ports or before != published):
                tasks = view.tasks_of_service(service_id)
                published = publish(service, tasks, lambda id_: view.get(Node, id_), network.id)
            if published == before:
                continue
            differs = True
            if published == Published():
                del self._published[service_id]
            else:
                self._published[service_id] = published
        return differs

    def _set_mesh(self, encrypted: bool) -> None:
        ports = (port for published in self._published.values() for port in published.ports)
        endpoints = (endpoint for published in self._published.values() for endpoint in published.endpoints)
        self.mesh = IngressState(
            version=self.version,
            ports=tuple(sorted(ports, key=lambda port: (port.protocol, port.published_port))),
            endpoints=tuple(sorted(endpoints, key=lambda endpoint: endpoint.task_id)),
            encrypted=encrypted,
        )

    def _look_at_overlays(self, view: View, service_id: str) -> Iterator[str]:
        """Yield the networks on which a service has changed."""
        before = self._networks_of_service.get(service_id, frozenset())
        service = view.get(Service, service_id)
        targets = [each.target for each in service.spec.task_template.networks] if service is not None else []
        # what is nobody's service may be a plain container on a network
        if not before and not targets and service is not None:
            return
        tasks = view.tasks_of_service(service_id)
        attached = (each.network_id for task in tasks for each in task.attachments if each.driver == OVERLAY_DRIVER)
        now: set[str] = set()
        for network_id in dict.fromkeys((*before, *targets, *attached)):
            network = view.get(Network, network_id)
            found = None
            if network is not None and is_overlay(network):
                found = overlay_service(network_id, service_id, service, tasks, lambda id_: view.get(Node, id_))
            services = self._overlays.setdefault(network_id, {})
            if found is not None:
                now.add(network_id)
            if found == services.get(service_id):
                continue
            if found is None:
                del services[service_id]
            else:
                services[service_id] = found
            yield network_id
        if now:
            self._networks_of_service[service_id] = frozenset(now)
        else:
            self._networks_of_service.pop(service_id, None)

    def _look_at_peers(self, view: View, batch: Batch) -> bool:
        concerned = batch.gap or any(change.kind in ("node", "cluster") for change in batch.changes)
        if not concerned:
            return False
        found = data_path(view.find(Node), view.cluster())
        differs = found != self.data_path
        self.data_path = found
        return differs


def _services_of(view: View, batch: Batch) -> Iterator[str]:
    """Yield the services whose place in the network a batch of changes can concern."""
    for change in batch.changes:
        value = change.new or change.old
        if isinstance(value, Task):
            yield value.service_id
        elif isinstance(value, Service):
            yield value.id
        elif isinstance(value, Node) and (change.old is None or change.new is None):
            # what else changes about a node does not move its tasks
            yield from (task.service_id for task in view.tasks_of_node(value.id))
