"""Raft under lost, late, doubled and reordered messages, crashes that lose unsynced writes, and partitions.

Each seed is one schedule; a failing seed fails alike every time. What must hold at every moment: one leader a term,
logs that agree up to where they agree on a term, one entry applied per index on all members, nothing committed is lost,
and no read is served that is older than what was committed when it was asked for.
In the end, with the disturbances over, a leader is found and everybody applies the same.
"""

from __future__ import annotations

import random

import pytest

from shoal.raft.core.messages import ConfState, Entry, HardState, Message, SnapshotMeta
from shoal.raft.core.raft import ProposalDropped, RaftConfig, Role
from shoal.raft.core.rawnode import RawNode, Ready
from shoal.raft.core.storage import MemoryStorage

VOTERS = (1, 2, 3)
STEPS = 4000
CALM_TICKS = 200
STEPS_BETWEEN_CHECKS = 10


class Disk:
    """What survives a crash: synced writes. A write that is under way is lost with the crash."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.hard_state = HardState()

    def sync(self, entries: tuple[Entry, ...], hard_state: HardState) -> None:
        if entries:
            self.entries = self.entries[: entries[0].index - 1] + list(entries)
        self.hard_state = hard_state

    def load(self) -> MemoryStorage:
        storage = MemoryStorage()
        storage.apply_snapshot(SnapshotMeta(conf_state=ConfState(voters=VOTERS)))
        storage.append(self.entries)
        storage.hard_state = self.hard_state
        return storage


class Member:
    def __init__(self, id_: int, simulation: Simulation) -> None:
        self.id = id_
        self.simulation = simulation
        self.disk = Disk()
        self.start()

    def start(self) -> None:
        self.storage = self.disk.load()
        config = RaftConfig(id=self.id, random_int=self.simulation.random.randrange)
        self.node = RawNode(config, self.storage)
        self.applied = 0
        self.up = True

    def crash(self) -> None:
        self.up = False

    def process(self) -> None:
        """Carry out what is ready, as the driver does; with some luck the member crashes on the way."""
        random_, crashes = self.simulation.random, self.simulation.crash_chance
        ready: Ready = self.node.ready()
        if random_.random() < crashes:
            return self.crash()
        if ready.must_sync:
            raft = self.node.raft
            self.disk.sync(ready.entries, ready.hard_state or HardState(raft.term, raft.vote, raft.log.committed))
        if random_.random() < crashes:
            return self.crash()
        self.storage.append(list(ready.entries))
        for message in ready.messages:
            self.simulation.send(message)
        for entry in ready.committed_entries:
            assert entry.index == self.applied + 1
            self.simulation.note_applied(self.id, entry)
            self.applied = entry.index
        for read in ready.read_states:
            assert read.index >= self.simulation.reads[read.context], f"member {self.id} would serve a stale read"
            self.simulation.reads_served += 1
        self.node.advance()
        return None


class Simulation:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loss = self.random.choice([0.0, 0.05, 0.3])
        self.doubling = self.random.choice([0.0, 0.1])
        self.crash_chance = self.random.choice([0.0, 0.005, 0.02])
        self.flight: list[Message] = []
        self.cut: set[int] = set()
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.proposed = 0
        self.reads: dict[bytes, int] = {}
        self.reads_served = 0
        self.members = {id_: Member(id_, self) for id_ in VOTERS}

    def send(self, message: Message) -> None:
        if self.random.random() < self.loss or {message.sender, message.to} & self.cut:
            return
        self.flight.append(message)
        if self.random.random() < self.doubling:
            self.flight.append(message)

    def note_applied(self, member: int, entry: Entry) -> None:
        known = self.committed.setdefault(entry.index, (entry.term, entry.data))
        assert known == (entry.term, entry.data), f"member {member} applied another entry at {entry.index}"

    def up(self) -> list[Member]:
        return [member for member in self.members.values() if member.up]

    def work(self) -> None:
        for member in self.up():
            while member.up and member.node.has_ready():
                member.process()
        self.check_leaders()

    def check_leaders(self) -> None:
        for member in self.up():
            raft = member.node.raft
            if raft.role is Role.LEADER:
                known = self.leaders.setdefault(raft.term, member.id)
                assert known == member.id, f"members {known} and {member.id} lead term {raft.term}"

    def check_logs(self) -> None:
        logs = [member.disk.entries for member in self.members.values()]
        for first in logs:
            for second in logs:
                agree = [n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a.term == b.term]
                if agree and first is not second:
                    assert first[: agree[-1] + 1] == second[: agree[-1] + 1], "logs that agree on a term differ before"
        for index, (term, data) in self.committed.items():
            holders = [
                log for log in logs if len(log) >= index and (log[index - 1].term, log[index - 1].data) == (term, data)
            ]
            assert len(holders) >= 2, f"entry {index} was committed, and a quorum does not hold it"

    def deliver(self) -> None:
        message = self.flight.pop(self.random.randrange(len(self.flight)))
        target = self.members[message.to]
        if target.up:
            target.node.step(message)

    def propose(self) -> None:
        member = self.random.choice(list(self.members.values()))
        if member.up:
            self.proposed += 1
            try:
                member.node.propose(b"%d" % self.proposed)
            except ProposalDropped:
                return

    def read(self) -> None:
        member = self.random.choice(list(self.members.values()))
        if member.up:
            context = b"%d" % len(self.reads)
            self.reads[context] = max(self.committed, default=0)
            member.node.read_index(context)

    def step(self) -> None:
        match self.random.randrange(30):
            case 0 | 1 | 2 | 3:
                for member in self.up():
                    if self.random.random() < 0.8:
                        member.node.tick()
            case 4 | 5:
                self.propose()
            case 6:
                self.cut = set(self.random.sample(VOTERS, self.random.choice([0, 0, 0, 0, 1, 1, 2])))
            case 7:
                down = [member for member in self.members.values() if not member.up]
                if down:
                    self.random.choice(down).start()
            case 8:
                if self.random.random() < self.crash_chance * 10:
                    self.random.choice(list(self.members.values())).crash()
            case 9:
                self.read()
            case _:
                for _ in range(self.random.randrange(1, 12)):
                    if self.flight:
                        self.deliver()
        self.work()

    def calm_down(self) -> None:
        """The disturbances end: everybody is up and heard; a leader is found and a last entry reaches all."""
        self.loss = self.doubling = self.crash_chance = 0.0
        self.cut.clear()
        for member in self.members.values():
            if not member.up:
                member.start()
        last = b""
        for tick in range(CALM_TICKS):
            for member in self.up():
                member.node.tick()
            self.work()
            while self.flight:
                self.deliver()
                self.work()
            leaders = [member for member in self.up() if member.node.raft.role is Role.LEADER]
            if tick > CALM_TICKS // 2 and len(leaders) == 1 and not last:
                last = b"last"
                leaders[0].node.propose(last)
                self.work()
        applied = {member.applied for member in self.members.values()}
        assert len(applied) == 1, f"members stand at {applied}"
        assert self.committed[applied.pop()][1] == b"last"


def run(seed: int) -> Simulation:
    simulation = Simulation(seed)
    for step in range(STEPS):
        simulation.step()
        if step % STEPS_BETWEEN_CHECKS == 0:
            simulation.check_logs()
    simulation.calm_down()
    simulation.check_logs()
    return simulation


@pytest.mark.parametrize("block", range(10))
def test_seeds(block: int) -> None:
    committed = reads = 0
    for seed in range(block * 10, block * 10 + 10):
        try:
            simulation = run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        committed += len(simulation.committed)
        reads += simulation.reads_served
    assert committed > 200, "the schedules let little happen"
    assert reads > 20, "the schedules let few reads happen"


@pytest.mark.long
@pytest.mark.parametrize("block", range(100))
def test_more_seeds(block: int) -> None:
    for seed in range(1000 + block * 50, 1050 + block * 50):
        try:
            run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
