"""Several members in memory: election, replication, partitions, members that come and go."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from shoal.raft.core.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    EntryType,
    Message,
    SnapshotMeta,
    decode_conf_change,
)
from shoal.raft.core.raft import ProposalDropped, RaftConfig, Role
from shoal.raft.core.rawnode import RawNode
from shoal.raft.core.storage import MemoryStorage


class Member:
    def __init__(self, id_: int, voters: tuple[int, ...], random_int: Callable[[int], int]) -> None:
        self.storage = MemoryStorage()
        self.storage.apply_snapshot(SnapshotMeta(conf_state=ConfState(voters=voters)))
        self.node = RawNode(RaftConfig(id=id_, random_int=random_int), self.storage)
        self.applied: list[bytes] = []

    def process(self) -> tuple[Message, ...]:
        ready = self.node.ready()
        if ready.hard_state is not None:
            self.storage.hard_state = ready.hard_state
        self.storage.append(list(ready.entries))
        for entry in ready.committed_entries:
            if entry.type is not EntryType.NORMAL:
                self.node.apply_conf_change(decode_conf_change(entry.data))
            elif entry.data:
                self.applied.append(entry.data)
        self.node.advance()
        return ready.messages


class Group:
    def __init__(self, size: int, seed: int = 0) -> None:
        self.random = random.Random(seed)
        voters = tuple(range(1, size + 1))
        self.members = {id_: Member(id_, voters, self.random.randrange) for id_ in voters}
        self.cut: set[int] = set()

    def settle(self) -> None:
        """Deliver until nothing is left to do."""
        for _ in range(1000):
            busy = [member for member in self.members.values() if member.node.has_ready()]
            if not busy:
                return
            for member in busy:
                for message in member.process():
                    if message.sender in self.cut or message.to in self.cut or message.to not in self.members:
                        continue
                    self.members[message.to].node.step(message)
        raise AssertionError("the group does not come to rest")

    def tick(self, count: int) -> None:
        for _ in range(count):
            for member in self.members.values():
                member.node.tick()
            self.settle()

    def leader(self) -> Member:
        leaders = [m for m in self.members.values() if m.node.raft.role is Role.LEADER]
        connected = [m for m in leaders if m.node.raft.id not in self.cut]
        assert len(connected) == 1, f"{len(connected)} leaders"
        return connected[0]

    def propose(self, data: bytes) -> None:
        self.leader().node.propose(data)
        self.settle()


@pytest.mark.parametrize("size", [1, 3, 5])
def test_a_leader_is_elected_and_all_apply_alike(size: int) -> None:
    group = Group(size)
    group.tick(40)
    for number in range(20):
        group.propose(b"%d" % number)
    assert {tuple(member.applied) for member in group.members.values()} == {tuple(b"%d" % n for n in range(20))}


def test_a_leader_without_a_quorum_steps_down_and_its_entries_give_way() -> None:
    group = Group(3)
    group.tick(40)
    old = group.leader()
    group.cut = {old.node.raft.id}
    old.node.propose(b"lost")
    group.tick(60)
    assert old.node.raft.role is not Role.LEADER
    group.propose(b"kept")
    group.cut = set()
    group.tick(60)
    group.propose(b"last")
    assert {tuple(member.applied) for member in group.members.values()} == {(b"kept", b"last")}


def test_a_member_that_was_cut_off_disturbs_nobody() -> None:
    group = Group(3)
    group.tick(40)
    leader = group.leader()
    other = next(m for m in group.members.values() if m is not leader)
    term = leader.node.raft.term
    group.cut = {other.node.raft.id}
    group.tick(100)
    group.cut = set()
    group.tick(20)
    assert group.leader() is leader
    assert leader.node.raft.term == term, "pre-vote: no term was begun"


def test_reads_are_confirmed_by_a_quorum() -> None:
    group = Group(3)
    group.tick(40)
    group.propose(b"x")
    leader = group.leader()
    leader.node.read_index(b"read")
    states = []
    for _ in range(10):
        for member in group.members.values():
            if member.node.has_ready():
                states.extend(member.node.raft.read_states)
                for message in member.process():
                    group.members[message.to].node.step(message)
    assert [(state.context, state.index) for state in states] == [(b"read", leader.node.raft.log.committed)]


def test_members_come_one_at_a_time_and_the_lead_is_handed_over() -> None:
    group = Group(3)
    group.tick(40)
    new = Member(4, (1, 2, 3), group.random.randrange)
    group.members[4] = new
    change = ConfChange((ConfChangeSingle(ConfChangeType.ADD_LEARNER, 4),))
    group.leader().node.propose_conf_change(change)
    group.settle()
    group.tick(5)
    group.leader().node.propose_conf_change(ConfChange((ConfChangeSingle(ConfChangeType.ADD_NODE, 4),)))
    group.settle()
    group.propose(b"four")
    assert new.applied == [b"four"]
    assert new.node.raft.tracker.config.voters == {1, 2, 3, 4}
    group.leader().node.transfer_leadership(4)
    group.settle()
    assert group.leader() is new


def test_a_follower_takes_no_proposals() -> None:
    group = Group(3)
    group.tick(40)
    follower = next(m for m in group.members.values() if m is not group.leader())
    with pytest.raises(ProposalDropped):
        follower.node.propose(b"x")


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_lost_on_the_way_members_never_disagree(seed: int) -> None:
    group = Group(3, seed)
    acknowledged = 0
    for round_ in range(60):
        group.cut = {group.random.randrange(1, 4)} if group.random.random() < 0.4 else set()
        group.tick(group.random.randrange(1, 15))
        for member in group.members.values():
            if member.node.raft.role is Role.LEADER and member.node.raft.id not in group.cut:
                member.node.propose(b"%d" % round_)
                group.settle()
                acknowledged += 1
        logs = [member.applied for member in group.members.values()]
        shortest = min(map(len, logs))
        assert all(log[:shortest] == logs[0][:shortest] for log in logs), f"seed {seed}, round {round_}"
    group.cut = set()
    group.tick(60)
    assert len({tuple(member.applied) for member in group.members.values()}) == 1, f"seed {seed}"
    assert acknowledged > 10
