"""Finding what a user means: exact id, else exact name, else the one id that starts so (docker-swarm.md 1.0)."""

from __future__ import annotations

from typing import TypeVar

from shoal.errors import InvalidArgument, NotFound
from shoal.model.objects import Config, Network, Node, Secret, Service, Task
from shoal.store.view import View

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
    """Return a swarm network by id, name or unique beginning of its id. Raises NotFound, InvalidArgument."""
    return find_object(view, Network, "network", reference)
