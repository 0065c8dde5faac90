"""Finding what a user means: exact id, else exact name, else the one id that starts so (docker-swarm.md 1.0)."""

from __future__ import annotations

from typing import TypeVar

from shoal.core.container import task_name
from shoal.core.networks import PREDEFINED, PREDEFINED_BY_NAME
from shoal.errors import InvalidArgument, NotFound, Unavailable
from shoal.model.objects import Cluster, Config, Network, Node, Secret, Service, Task
from shoal.model.states import TaskState
from shoal.store.view import View

_HEXADECIMAL = frozenset("0123456789abcdef")

T = TypeVar("T", Config, Network, Node, Secret, Service, Task)


def find_object(view: View, kind: type[T], word: str, reference: str) -> T:
    """Return the object that `reference` names.

    Args:
        view: where to look.
        kind: class of the object.
        word: what the texts call it: `service`, `node`, …
        reference: an id, a name (of a node: its hostname), or the beginning of an id.

    Raises:
        NotFound: none.
        InvalidArgument: several.
    """
    found = view.get(kind, reference) if reference else None
    if found is not None:
        return found
    named = _by_name(view, kind, reference)
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise InvalidArgument(f"{word} {reference} is ambiguous ({len(named)} matches found)")
    started = view.by_prefix(kind, reference) if reference else ()
    if not started:
        raise NotFound(f"{word} {reference} not found")
    if len(started) > 1:
        raise InvalidArgument(f"{word} {reference} is ambiguous ({len(started)} matches found)")
    return started[0]


def _by_name(view: View, kind: type[T], name: str) -> tuple[T, ...]:
    if not name:
        return ()
    if issubclass(kind, Node):
        return tuple(node for node in view.find(kind) if node.description.hostname == name)
    if issubclass(kind, Task):
        return ()
    found = view.by_name(kind, name)
    # the index takes any case, a reference does not
    return (found,) if found is not None and found.spec.name == name else ()


def find_service(view: View, reference: str) -> Service:
    """Return a service by id, name or unique beginning of its id. Raises NotFound, InvalidArgument."""
    return find_object(view, Service, "service", reference)


def find_node(view: View, reference: str) -> Node:
    """Return a node by id, hostname or unique beginning of its id. Raises NotFound, InvalidArgument."""
    return find_object(view, Node, "node", reference)


def find_task(view: View, reference: str) -> Task:
    """Return a task by id or unique beginning of its id. Raises NotFound, InvalidArgument."""
    return find_object(view, Task, "task", reference)


def find_secret(view: View, reference: str) -> Secret:
    """Return a secret by id, name or unique beginning of its id. Raises NotFound, InvalidArgument."""
    return find_object(view, Secret, "secret", reference)


def find_config(view: View, reference: str) -> Config:
    """Return a config by id, name or unique beginning of its id. Raises NotFound, InvalidArgument."""
    return find_object(view, Config, "config", reference)


def find_network(view: View, reference: str) -> Network:
    """Return a swarm network, or one that every node has. Raises NotFound, InvalidArgument."""
    predefined = PREDEFINED_BY_NAME.get(reference) or PREDEFINED.get(reference)
    return predefined or find_object(view, Network, "network", reference)


def find_container(view: View, reference: str) -> Task:
    """Return the task whose container `reference` means, on whatever node it is.

    Args:
        view: where to look.
        reference: a task's id, its name (`web.1.ID`, which is its container's name, or `web.1`: the newest of the
            slot, one that runs before one that does not), its container's id, or the beginning of either id.

    Raises:
        NotFound: none.
        InvalidArgument: several.
    """
    reference = reference.removeprefix("/")
    exact = view.get(Task, reference) or _by_container_name(view, reference)
    if exact is not None:
        return exact
    found = {task.id: task for task in view.by_prefix(Task, reference)} if reference else {}
    if reference and set(reference) <= _HEXADECIMAL:
        for task in view.find(Task):
            container = task.status.container
            if container is not None and container.container_id.startswith(reference):
                found[task.id] = task
    if not found:
        raise NotFound(f"No such container: {reference}")
    if len(found) > 1:
        raise InvalidArgument(f"multiple IDs found with provided prefix: {reference}")
    return next(iter(found.values()))


def _by_container_name(view: View, name: str) -> Task | None:
    rest, _, last = name.rpartition(".")
    task = view.get(Task, last)
    if task is not None:
        named = view.get(Service, task.service_id)
        return task if named is not None and task_name(named.spec.name, task) == name else None
    service = view.by_name(Service, rest) if rest else None
    if service is None or service.spec.name != rest:
        return None
    of_slot = [
        each
        for each in view.tasks_of_service(service.id)
        if each.node_id and last == (str(each.slot) if each.slot else each.node_id)
    ]
    return max(of_slot, key=_preference, default=None)


def _preference(task: Task) -> tuple[bool, int]:
    return task.status.state == TaskState.RUNNING, task.meta.created_version


def require_cluster(view: View) -> Cluster:
    """Return the swarm's own object. Raises Unavailable: this manager has not read it yet."""
    cluster = view.cluster()
    if cluster is None:
        raise Unavailable("the swarm is not initialised yet; try again in a moment")
    return cluster
