"""A consensus engine of one member without a disk: for tests of what stands above it."""

from __future__ import annotations

import asyncio

from shoal.lib.clock import Clock, ManualClock
from shoal.store.consensus import StateMachine
from shoal.store.store import Store


class MemoryConsensus:
    """Commits at once, in order; forgets all when it goes."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self.applied_index = 0
        self.is_leader = True
        self.leader_id = 1
        self.entries: list[bytes] = []

    async def propose(self, data: bytes) -> object:
        self.applied_index += 1
        self.entries.append(data)
        result = self._machine.apply(self.applied_index, data)
        await asyncio.sleep(0)
        return result

    async def read_barrier(self) -> int:
        return self.applied_index


def make_store(clock: Clock | None = None) -> Store:
    store = Store(clock or ManualClock())
    store.attach(MemoryConsensus(store))
    return store
