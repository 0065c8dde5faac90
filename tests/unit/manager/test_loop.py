"""The shape of all leader loops: what cannot be written does not hold up the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import pytest

from shoal.errors import NotLeader, Unavailable
from shoal.lib.clock import ManualClock
from shoal.lib.supervise import cancel_and_wait
from shoal.manager.loop import LeaderLoop, Round
from shoal.model.actions import Create, Replace
from shoal.model.objects import Node, Service
from shoal.model.specs import NodeSpec, ServiceSpec
from shoal.store.apply import Change
from shoal.store.store import Store
from shoal.store.view import View
from tests.doubles.consensus import make_store

Plan = Callable[[View, Iterable[str], int], dict[str, Round]]


def make(store: Store, plan: Plan, *keys: str, clock: ManualClock | None = None) -> LeaderLoop:
    def keys_of_change(_view: View, change: Change) -> Iterable[str]:
        return (change.id,)

    return LeaderLoop("test", store, clock or ManualClock(), ("service",), keys_of_change, lambda _view: keys, plan)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the loop under test gives no event
            await asyncio.sleep(0)


def node_plan(refused: set[str]) -> Plan:
    """A plan that makes a node a key; for the keys in `refused` one that cannot be written."""

    def plan(view: View, keys: Iterable[str], _now_ns: int) -> dict[str, Round]:
        rounds = {}
        for key in keys:
            wanted = Node(id=key, spec=NodeSpec(name=key))
            if key in refused:
                rounds[key] = Round(actions=[Replace(object=wanted)])
            elif view.get(Node, key) is None:
                rounds[key] = Round(actions=[Create(object=wanted)])
        return rounds

    return plan


def test_a_key_that_cannot_be_written_does_not_hold_up_the_others_and_is_tried_again() -> None:
    async def main() -> None:
        store, refused = make_store(), {"b"}
        running = asyncio.create_task(make(store, node_plan(refused), "a", "b", "c").run())
        await until(lambda: store.view.count(Node) == 2)
        assert not running.done()
        refused.clear()
        await until(lambda: store.view.get(Node, "b") is not None)
        await cancel_and_wait(running)

    asyncio.run(main())


def test_a_change_is_planned_for() -> None:
    async def main() -> None:
        store = make_store()
        running = asyncio.create_task(make(store, node_plan(set())).run())
        await asyncio.sleep(0)
        await store.update(lambda _view: [Create(object=Service(id="s", spec=ServiceSpec(name="web"), spec_version=1))])
        await until(lambda: store.view.get(Node, "s") is not None)
        await cancel_and_wait(running)

    asyncio.run(main())


def test_a_lost_lead_ends_the_loop_and_a_lost_quorum_does_not() -> None:
    async def main() -> None:
        store = make_store()
        errors: list[Exception] = [Unavailable("no quorum")]
        consensus_propose = store.consensus.propose

        async def propose(data: bytes) -> object:
            if errors:
                raise errors.pop()
            return await consensus_propose(data)

        store.consensus.propose = propose  # type: ignore[method-assign]
        running = asyncio.create_task(make(store, node_plan(set()), "a", "b").run())
        await until(lambda: store.view.count(Node) == 2)
        assert not running.done()
        await cancel_and_wait(running)
        errors[:] = [NotLeader("another leads")]
        with pytest.raises(NotLeader):
            await make(store, node_plan(set()), "c").run()

    asyncio.run(main())
