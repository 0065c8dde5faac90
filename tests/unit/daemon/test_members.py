"""Whom a manager's node port still lets in when its own knowledge is old: found by the simulation of the cluster."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from shoal.daemon.manager import Manager
from shoal.daemon.node_port import check_member
from shoal.errors import Forbidden
from shoal.model.actions import Action, Create, Replace
from shoal.model.node_port import Identity
from shoal.model.objects import Node
from shoal.model.specs import NodeSpec
from shoal.model.states import Role
from shoal.rpc.port import Admits
from shoal.store.store import Store
from tests.doubles.consensus import make_store


def manager_that_lags(store: Store, *late: Action) -> Manager:
    """Its barrier brings what it has not applied yet."""

    async def read_barrier() -> int:
        if late:
            store.apply(store.consensus.applied_index + 1, store.encode(late))
        return store.consensus.applied_index + 1

    cast("Any", store.consensus).read_barrier = read_barrier
    return cast("Manager", SimpleNamespace(is_current=True, store=store))


def worker(id_: str, role: Role = Role.WORKER) -> Node:
    return Node(id=id_, spec=NodeSpec(role=role))


def identity(role: Role = Role.WORKER) -> Identity:
    return Identity(node_id="n1", role=role, cluster_id="c")


def test_a_node_that_has_just_joined_is_not_told_that_it_was_removed() -> None:
    manager = manager_that_lags(make_store(), Create(object=worker("n1")))
    asyncio.run(check_member(manager, identity(), Admits.NODES))


def test_a_node_that_has_just_been_promoted_is_a_manager() -> None:
    store = make_store()
    asyncio.run(store.update(lambda _view: [Create(object=worker("n1"))]))
    manager = manager_that_lags(store, Replace(object=worker("n1", Role.MANAGER)))
    asyncio.run(check_member(manager, identity(Role.MANAGER), Admits.MANAGERS))


def test_a_node_that_was_removed_is_refused() -> None:
    with pytest.raises(Forbidden, match="not part of this swarm any more"):
        asyncio.run(check_member(manager_that_lags(make_store()), identity(), Admits.NODES))
