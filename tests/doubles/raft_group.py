"""Several raft drivers in one process: real files, a network in memory that can drop, delay and cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from shoal.raft.core.messages import Message
from shoal.raft.driver import DriverSettings, RaftDriver

DEADLINE_SECONDS = 30.0
TICK_SECONDS = 0.02


class Journal:
    """A state machine that remembers what it was given, and refuses what begins with `refused`."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, bytes]] = []
        self.restored = 0

    def apply(self, index: int, data: bytes) -> object:
        if data.startswith(b"refused"):
            return ValueError("refused")
        self.entries.append((index, data))
        return index

    def snapshot(self) -> Iterator[bytes]:
        entries = list(self.entries)
        return (f"{index} ".encode() + data for index, data in entries)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.entries = []
        self.restored += 1
        for chunk in chunks:
            index, _, data = chunk.partition(b" ")
            self.entries.append((int(index), data))

    @property
    def data(self) -> list[bytes]:
        return [data for _, data in self.entries]


class Network:
    """Carries messages between drivers, encoded and decoded on the way.

    Attributes:
        cut: members that hear nobody and are heard by nobody.
        cut_ways: pairs (sender, receiver) that are cut one way.
        loss: the part of messages that is lost.
        delay_seconds: the most a message is late.
        filter: a message for which it returns False is lost.
        snapshots_sent: (receiver, index) of each.
        snapshot_fault: called with each chunk; may raise.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.drivers: dict[int, RaftDriver] = {}
        self.cut: set[int] = set()
        self.cut_ways: set[tuple[int, int]] = set()
        self.loss = 0.0
        self.delay_seconds = 0.0
        self.filter: Callable[[Message], bool] = lambda _message: True
        self.snapshots_sent: list[tuple[int, int]] = []
        self.snapshot_fault: Callable[[bytes], None] = lambda _chunk: None
        self.sent: list[Message] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def passes(self, sender: int, to: int) -> bool:
        return not {sender, to} & self.cut and (sender, to) not in self.cut_ways and self.random.random() >= self.loss

    def transport(self, raft_id: int) -> MemoryTransport:
        return MemoryTransport(self, raft_id)

    def deliver(self, message: Message) -> None:
        driver = self.drivers.get(message.to)
        if driver is not None:
            driver.receive(message)

    def spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class MemoryTransport:
    def __init__(self, network: Network, raft_id: int) -> None:
        self._network = network
        self._raft_id = raft_id

    def send(self, messages: Iterable[Message]) -> None:
        network = self._network
        loop = asyncio.get_running_loop()
        for message in messages:
            assert message.sender == self._raft_id
            if message.to not in network.drivers:
                own = network.drivers.get(self._raft_id)
                if own is not None:
                    own.report_unreachable(message.to)
                continue
            if not network.filter(message) or not network.passes(self._raft_id, message.to):
                continue
            copy = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Message)
            assert copy == message
            if network.delay_seconds:
                loop.call_later(network.random.uniform(0, network.delay_seconds), network.deliver, copy)
            else:
                loop.call_soon(network.deliver, copy)

    def send_snapshot(self, message: Message, chunks: Iterator[bytes]) -> None:
        self._network.spawn(self._send_snapshot(message, chunks))

    async def _send_snapshot(self, message: Message, chunks: Iterator[bytes]) -> None:
        network = self._network
        assert message.snapshot is not None
        network.snapshots_sent.append((message.to, message.snapshot.index))
        ok = False
        try:
            target = network.drivers.get(message.to)
            if target is None or not network.passes(self._raft_id, message.to):
                return
            opened = await asyncio.to_thread(list, chunks)

            async def stream() -> AsyncIterator[bytes]:
                for chunk in opened:
                    network.snapshot_fault(chunk)
                    yield chunk

            await target.receive_snapshot(message, stream())
            ok = True
        except (OSError, ConnectionError):
            pass
        finally:
            sender = network.drivers.get(self._raft_id)
            if sender is not None:
                sender.report_snapshot(message.to, ok)


class Group:
    """Members with their disks; `async with` ends all."""

    def __init__(self, folder: Path, seed: int = 0, **settings: int) -> None:
        self._folder = folder
        self._settings = settings
        self.network = Network(seed)
        self.journals: dict[int, Journal] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for raft_id in tuple(self.drivers):
            await self.kill(raft_id)
        await self.network.close()

    @property
    def drivers(self) -> dict[int, RaftDriver]:
        return self.network.drivers

    async def start(self, raft_id: int, founds: bool = False, **changes: Any) -> RaftDriver:
        self.journals[raft_id] = Journal()
        settings = DriverSettings(
            raft_id=raft_id,
            cluster_id="c",
            folder=self.folder(raft_id),
            random_int=self.network.random.randrange,
            founds=founds,
            tick_seconds=TICK_SECONDS,
            **{**self._settings, **changes},
        )
        driver = await RaftDriver.start(settings, self.journals[raft_id], self.network.transport(raft_id))
        self.drivers[raft_id] = driver
        return driver

    def folder(self, raft_id: int) -> Path:
        return self._folder / f"raft-{raft_id}"

    async def found(self, size: int) -> RaftDriver:
        """Start members 1 to `size`, all voters; 1 leads."""
        leader = await self.start(1, founds=True)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await leader.wait_for_leadership(True)
        for raft_id in range(2, size + 1):
            await self.join(raft_id)
        return leader

    async def join(self, raft_id: int) -> RaftDriver:
        driver = await self.start(raft_id)
        leader = await self.leader()
        await leader.add_learner(raft_id, b"learner %d" % raft_id)
        await leader.promote(raft_id, b"voter %d" % raft_id)
        return driver

    async def kill(self, raft_id: int) -> None:
        """End a member as abruptly as can be in one process: nothing leaves it any more, nothing more is written."""
        driver = self.drivers.pop(raft_id)
        await driver.stop()

    async def leader(self, *among: int) -> RaftDriver:
        """Return the leader, as soon as there is one (of the newest term)."""
        found: list[RaftDriver] = []

        def holds() -> bool:
            members = [driver for id_, driver in self.drivers.items() if not among or id_ in among]
            found[:] = [driver for driver in members if driver.is_leader]
            return len(found) == 1 and found[0].term == max(driver.term for driver in members)

        await self.until(holds, "a leader")
        return found[0]

    async def until(self, holds: Callable[[], bool], what: str = "a condition") -> None:
        """Wait until `holds`; it is looked at whenever some member did something, at each tick at the latest."""
        running = next(driver for driver in self.drivers.values() if not driver.failure.done())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await running.wait_until(holds)
        except TimeoutError:
            raise AssertionError(f"waited too long for {what}") from None

    async def until_alike(self, *members: int) -> list[bytes]:
        """Wait until the journals of the members (all that run) are alike and hold all that is committed."""
        ids = members or tuple(self.drivers)

        def holds() -> bool:
            journals = [self.journals[raft_id].entries for raft_id in ids]
            applied = {self.drivers[raft_id].applied_index for raft_id in ids}
            return len(applied) == 1 and all(entries == journals[0] for entries in journals)

        await self.until(holds, "members that applied the same")
        return self.journals[ids[0]].data
