"""Reading the store: a consistent view, for as long as nobody awaits.

Everything runs on one thread and objects are frozen, so a plain function that reads a view sees one state. Do not keep
a view across an `await`; keep the objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from shoal.model.events import Event
from shoal.model.objects import Cluster, Revision, Service, StoreObject, Task, revision_id
from shoal.model.states import TaskState
from shoal.store.events import EventRing
from shoal.store.tables import KIND_BY_TYPE, Tables, address_key, port_key

T = TypeVar("T", bound=StoreObject)


class View:
    """What a plan, a list or an inspection reads."""

    def __init__(self, tables: Tables, events: EventRing) -> None:
        self._tables = tables
        self._events = events

    def get(self, kind: type[T], id_: str) -> T | None:
        """Return the object of that exact id, None if there is none."""
        return self._tables.of_type(kind).rows.get(id_)

    def find(self, kind: type[T]) -> Iterator[T]:
        """Iterate over all objects of a kind."""
        return iter(self._tables.of_type(kind).rows.values())

    def all(self, kind: type[T]) -> tuple[T, ...]:
        """Return all objects of a kind."""
        return tuple(self._tables.of_type(kind).rows.values())

    def count(self, kind: type[T]) -> int:
        """Return how many objects of a kind there are."""
        return len(self._tables.of_type(kind).rows)

    def by_name(self, kind: type[T], name: str) -> T | None:
        """Return the service, network, secret or config of that name, whatever the case of its letters."""
        if KIND_BY_TYPE[kind] not in {"service", "network", "secret", "config"}:
            raise TypeError(f"{KIND_BY_TYPE[kind]} objects are not indexed by name")
        found = self._tables.of_type(kind).lookup("name", name.lower())
        return found[0] if found else None

    def by_prefix(self, kind: type[T], prefix: str) -> tuple[T, ...]:
        """Return the objects whose id starts with `prefix`."""
        return self._tables.of_type(kind).with_prefix(prefix)

    def cluster(self) -> Cluster | None:
        """Return the swarm itself; None before it is initialised."""
        return next(iter(self._tables.clusters.rows.values()), None)

    def tasks_of_service(self, service_id: str) -> tuple[Task, ...]:
        """Return the tasks of a service, also of one that is gone."""
        return self._tables.tasks.lookup("service", service_id)

    def tasks_of_node(self, node_id: str) -> tuple[Task, ...]:
        """Return the tasks that a node was given."""
        return self._tables.tasks.lookup("node", node_id)

    def unassigned_tasks(self, state: TaskState) -> tuple[Task, ...]:
        """Return the tasks that are NEW or PENDING: what allocator and scheduler have to do."""
        return self._tables.tasks.lookup("unassigned", state.word)

    def revision(self, service_id: str, spec_version: int) -> Revision | None:
        """Return a spec of a service as it stood."""
        return self._tables.revisions.rows.get(revision_id(service_id, spec_version))

    def revision_of(self, task: Task) -> Revision:
        """Return the revision a task was made from: it lives as long as the task."""
        return self._tables.revisions.rows[revision_id(task.service_id, task.spec_version)]

    def revisions_of(self, service_id: str) -> tuple[Revision, ...]:
        """Return the kept revisions of a service, oldest first."""
        found = self._tables.revisions.lookup("service", service_id)
        return tuple(sorted(found, key=lambda revision: revision.spec_version))

    def port_user(self, protocol: str, published_port: int, mode: str = "ingress") -> Service | None:
        """Return a service that claims a published port."""
        found = self._tables.services.lookup("port", port_key(protocol, published_port, mode))
        return found[0] if found else None

    def addresses_in_use(self, network_id: str) -> frozenset[str]:
        """Return the addresses (without masks) of live tasks and services on a network."""
        prefix = address_key(network_id, "")
        used = [*self._tables.tasks.keys("address", prefix), *self._tables.services.keys("address", prefix)]
        return frozenset(key[len(prefix) :] for key in used)

    def services_on(self, network_id: str) -> tuple[Service, ...]:
        """Return the services that are on a network."""
        return self._tables.services.lookup("network", network_id)

    def tasks_on(self, network_id: str) -> tuple[Task, ...]:
        """Return the live tasks that are on a network."""
        return self._tables.tasks.lookup("network", network_id)

    def events(self) -> tuple[Event, ...]:
        """Return the events kept, oldest first."""
        return self._events.all()
