"""Tables with their indexes: what is where, by id and by what loops and lists ask for.

Knows nothing of the log, of preconditions or of events. All indexes hold ids in insertion order, so that every member
iterates alike.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from shoal.model.objects import (
    Cluster,
    Config,
    Network,
    Node,
    Revision,
    Secret,
    Service,
    StoreObject,
    Task,
    revision_id,
)
from shoal.model.specs import PortConfig
from shoal.model.states import TaskState

T = TypeVar("T", bound=StoreObject)
Key = Callable[[T], tuple[str, ...]]

KINDS: dict[str, type[StoreObject]] = {
    "cluster": Cluster,
    "node": Node,
    "service": Service,
    "revision": Revision,
    "task": Task,
    "network": Network,
    "secret": Secret,
    "config": Config,
}
KIND_BY_TYPE: dict[type, str] = {type_: kind for kind, type_ in KINDS.items()}


def kind_of(value: StoreObject) -> str:
    """Return the name of the table an object belongs to."""
    return KIND_BY_TYPE[type(value)]


def name_of(value: StoreObject) -> str:
    """Return the name an object was given, empty for kinds without names."""
    if isinstance(value, Service | Network | Secret | Config):
        return value.spec.name
    return ""


def port_key(protocol: str, published_port: int, mode: str) -> str:
    """Return the index key of a published port."""
    return f"{protocol or 'tcp'}/{published_port}/{mode or 'ingress'}"


def ports_of(service: Service) -> tuple[PortConfig, ...]:
    """Return the published ports a service claims: those it asks for by number and those it was given."""
    asked = service.spec.endpoint_spec.ports if service.spec.endpoint_spec else ()
    return tuple(port for port in (*asked, *service.endpoint.ports) if port.published_port)


def _port_keys(service: Service) -> tuple[str, ...]:
    ports = ports_of(service)
    return tuple({port_key(port.protocol, port.published_port, port.publish_mode): None for port in ports})


def address_key(network_id: str, address: str) -> str:
    """Return the index key of an address (its mask, if any, cut off)."""
    return f"{network_id}/{address.partition('/')[0]}"


def task_addresses(task: Task) -> tuple[str, ...]:
    """Return the index keys of the addresses a task claims; one that has ended still names them, but claims none."""
    if task.status.state > TaskState.RUNNING:
        return ()
    return tuple(address_key(a.network_id, address) for a in task.attachments for address in a.addresses)


def _service_addresses(service: Service) -> tuple[str, ...]:
    return tuple(address_key(vip.network_id, vip.address) for vip in service.endpoint.virtual_ips)


def service_networks(service: Service) -> tuple[str, ...]:
    """Return the ids of the networks a service is on: those it asks for, and those it has an address of."""
    asked = (attachment.target for attachment in service.spec.task_template.networks)
    given = (virtual_ip.network_id for virtual_ip in service.endpoint.virtual_ips)
    return tuple(dict.fromkeys((*asked, *given)))


def task_networks(task: Task) -> tuple[str, ...]:
    """Return the ids of the networks a task is on; one that has ended is on none."""
    if task.status.state > TaskState.RUNNING:
        return ()
    return tuple(attachment.network_id for attachment in task.attachments)


def _lower_name(value: Service | Network | Secret | Config) -> tuple[str, ...]:
    return (value.spec.name.lower(),) if value.spec.name else ()


class Table(Generic[T]):
    """Objects of one kind by id, with secondary indexes that follow every write."""

    def __init__(self, keys: dict[str, Key[T]]) -> None:
        self.rows: dict[str, T] = {}
        self._sorted_ids: list[str] = []
        self._keys = keys
        self._indexes: dict[str, dict[str, dict[str, None]]] = {name: {} for name in keys}

    def put(self, value: T) -> T | None:
        """Set an object; returns the one it replaces."""
        old = self.rows.get(value.id)
        if old is None:
            insort(self._sorted_ids, value.id)
        self.rows[value.id] = value
        for name, key in self._keys.items():
            after = key(value)
            before = key(old) if old is not None else ()
            if after != before:
                self._drop(name, before, value.id)
                for one in after:
                    self._indexes[name].setdefault(one, {})[value.id] = None
        return old

    def delete(self, id_: str) -> T | None:
        """Take an object out; returns it, None if there was none."""
        old = self.rows.pop(id_, None)
        if old is not None:
            del self._sorted_ids[bisect_left(self._sorted_ids, id_)]
            for name, key in self._keys.items():
                self._drop(name, key(old), id_)
        return old

    def _drop(self, name: str, keys: tuple[str, ...], id_: str) -> None:
        index = self._indexes[name]
        for one in keys:
            ids = index.get(one)
            if ids is not None:
                ids.pop(id_, None)
                if not ids:
                    del index[one]

    def lookup(self, index: str, key: str) -> tuple[T, ...]:
        """Return the objects under a key of an index."""
        return tuple(self.rows[id_] for id_ in self._indexes[index].get(key, ()))

    def count(self, index: str, key: str) -> int:
        """Return how many objects stand under a key of an index."""
        return len(self._indexes[index].get(key, ()))

    def keys(self, index: str, prefix: str) -> Iterator[str]:
        """Iterate over the keys of an index that start with `prefix`."""
        return (key for key in self._indexes[index] if key.startswith(prefix))

    def with_prefix(self, prefix: str, limit: int = 1000) -> tuple[T, ...]:
        """Return the objects whose id starts with `prefix`, in order of id, at most `limit`."""
        found: list[T] = []
        for position in range(bisect_left(self._sorted_ids, prefix), len(self._sorted_ids)):
            id_ = self._sorted_ids[position]
            if not id_.startswith(prefix) or len(found) >= limit:
                break
            found.append(self.rows[id_])
        return tuple(found)


class Tables:
    """All tables of the store."""

    def __init__(self) -> None:
        self.clusters: Table[Cluster] = Table({})
        self.nodes: Table[Node] = Table({})
        self.services: Table[Service] = Table(
            {"name": _lower_name, "port": _port_keys, "address": _service_addresses, "network": service_networks},
        )
        self.revisions: Table[Revision] = Table({"service": lambda r: (r.service_id,)})
        self.tasks: Table[Task] = Table(
            {
                "service": lambda t: (t.service_id,),
                "node": lambda t: (t.node_id,) if t.node_id else (),
                "revision": lambda t: (revision_id(t.service_id, t.spec_version),),
                "address": task_addresses,
                "network": task_networks,
                "unassigned": lambda t: (t.status.state.word,) if t.status.state < TaskState.ASSIGNED else (),
            }
        )
        self.networks: Table[Network] = Table({"name": _lower_name})
        self.secrets: Table[Secret] = Table({"name": _lower_name})
        self.configs: Table[Config] = Table({"name": _lower_name})
        self._by_kind: dict[str, Table[StoreObject]] = cast(
            "dict[str, Table[StoreObject]]",
            {
                "cluster": self.clusters,
                "node": self.nodes,
                "service": self.services,
                "revision": self.revisions,
                "task": self.tasks,
                "network": self.networks,
                "secret": self.secrets,
                "config": self.configs,
            },
        )

    def table(self, kind: str) -> Table[StoreObject]:
        """Return the table of a kind by its name."""
        return self._by_kind[kind]

    def of_type(self, type_: type[T]) -> Table[T]:
        """Return the table of a kind by its class."""
        return cast("Table[T]", self._by_kind[KIND_BY_TYPE[type_]])

    def everything(self) -> Iterator[StoreObject]:
        """Iterate over all objects, kind by kind."""
        for table in self._by_kind.values():
            yield from table.rows.values()
