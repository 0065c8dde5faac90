"""What runs on the leader, and only there: the loops and the dispatcher, from gaining the lead to losing it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shoal.errors import NotLeader
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.lib.supervise import cancel_and_wait, supervise
from shoal.manager import loops
from shoal.manager.cron import cron
from shoal.manager.dispatcher import Dispatcher
from shoal.manager.loop import LeaderLoop
from shoal.manager.membership import Membership
from shoal.manager.rebalancing import rebalancer
from shoal.manager.root_change import RotationLoop
from shoal.store.store import Store


class Leader:
    """The loops of a leader; made anew each time this member gains the lead."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        membership: Membership | None = None,
        rotation: RotationLoop | None = None,
        is_linked: Callable[[int], bool] | None = None,
    ) -> None:
        self.membership = membership
        self._rotation = rotation
        self.dispatcher = Dispatcher(store, ids, is_linked)
        self._loops: dict[str, LeaderLoop] = {
            "orchestrator": loops.orchestrator(store, clock, ids.new),
            "allocator": loops.allocator(store, clock),
            "scheduler": loops.scheduler(store, clock),
            "reaper": loops.reaper(store, clock),
            "network keys": loops.network_keys(store, clock),
            "cron": cron(store, clock),
            "rebalancer": rebalancer(store, clock, ids.new),
        }
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the loops, and expect the nodes."""
        self._tasks = [
            asyncio.create_task(_run(name, loop.run), name=f"leader loop {name}") for name, loop in self._loops.items()
        ]
        self._tasks.append(asyncio.create_task(_run("nodes", self.dispatcher.expect_nodes), name="expected nodes"))
        if self._rotation is not None:
            self._tasks.append(asyncio.create_task(_run("root", self._rotation.run), name="leader loop root"))
        if self.membership is not None:
            self._tasks.append(asyncio.create_task(_run("members", self.membership.run), name="leader loop members"))

    async def stop(self) -> None:
        """Stop the loops: the lead is lost, or the daemon stops."""
        await cancel_and_wait(*self._tasks)
        self._tasks = []
        await self.dispatcher.stop()


async def _run(name: str, run: Callable[[], Awaitable[None]]) -> None:
    async def once() -> None:
        try:
            await run()
        except NotLeader:
            # Whoever leads now plans from the same store; this member's loops end here.
            return

    await supervise(f"leader loop {name}", once)
