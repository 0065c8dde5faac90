"""The leader orders new keys of encrypted networks when they are due, and not before."""

from __future__ import annotations

import asyncio

from shoal.core.network_keys import ROTATION_PERIOD_NS
from shoal.lib.clock import ManualClock
from shoal.lib.supervise import cancel_and_wait
from shoal.manager.loops import network_keys
from shoal.model.actions import Create
from shoal.model.objects import Cluster, Network
from shoal.model.specs import NetworkSpec
from tests.doubles.consensus import make_store


async def rounds_until_quiet(clock: ManualClock, *names: str) -> Cluster:
    """Let the loop of a swarm with these encrypted networks run until it waits; return the cluster."""
    store = make_store()
    secret = [Network(id=name, spec=NetworkSpec(name=name, options={"encrypted": ""})) for name in names]
    await store.update(lambda _view: [Create(object=each) for each in (Cluster(id="c"), *secret)])
    running = asyncio.create_task(network_keys(store, clock).run())
    try:
        for _ in range(50):
            await asyncio.sleep(0)
        found = store.view.cluster()
        assert found is not None
        return found
    finally:
        await cancel_and_wait(running)


def test_new_keys_are_ordered_once_when_they_are_due() -> None:
    async def main() -> None:
        # the store's own clock stands there: the network is made then
        since = ManualClock().now_ns()
        early = await rounds_until_quiet(ManualClock(since + ROTATION_PERIOD_NS - 1), "secret")
        assert early.network_key_generation == 0
        clock = ManualClock(since + ROTATION_PERIOD_NS)
        due = await rounds_until_quiet(clock, "secret")
        assert (due.network_key_generation, due.network_keys_ordered_at_ns) == (1, clock.now_ns())
        assert (await rounds_until_quiet(ManualClock(1 << 62))).network_key_generation == 0, "no network is encrypted"

    asyncio.run(main())
