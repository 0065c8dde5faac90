"""Rules of the core that are ours, or that no script of etcd's tells of: one member, fed with messages by hand."""

from __future__ import annotations

import pytest

from shoal.raft.core.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    SnapshotMeta,
    decode_conf_change,
    encode_conf_change,
)
from shoal.raft.core.raft import ProposalDropped, RaftConfig, Role
from shoal.raft.core.rawnode import RawNode, Ready
from shoal.raft.core.storage import MemoryStorage
from shoal.raft.core.tracker import ProgressState


class Lone:
    """The member 1 of some voters, with a log of entries of term 1."""

    def __init__(self, voters: tuple[int, ...], entries: int = 0, committed: int = 0, **settings: int) -> None:
        self.storage = MemoryStorage()
        self.storage.apply_snapshot(SnapshotMeta(conf_state=ConfState(voters=voters)))
        self.storage.append([Entry(1, index, data=b"old") for index in range(1, entries + 1)])
        self.storage.hard_state = HardState(term=1 if entries else 0, commit=committed)
        self.node = RawNode(RaftConfig(id=1, **settings), self.storage)
        self.raft = self.node.raft

    def begin(self) -> Ready:
        """Take what is ready and write it."""
        ready = self.node.ready()
        if ready.snapshot is not None:
            self.storage.apply_snapshot(ready.snapshot)
        self.storage.append(list(ready.entries))
        return ready

    def end(self, ready: Ready) -> list[Message]:
        """Apply it; returns what it sends."""
        for entry in ready.committed_entries:
            if entry.type is not EntryType.NORMAL:
                self.node.apply_conf_change(decode_conf_change(entry.data))
        self.node.advance()
        return list(ready.messages)

    def settle(self) -> list[Message]:
        """Do all that is ready; returns the messages sent."""
        sent: list[Message] = []
        while self.node.has_ready():
            sent += self.end(self.begin())
        return sent

    def lead(self, others: tuple[int, ...] = ()) -> None:
        """Win an election with the votes of others."""
        self.node.campaign()
        self.settle()
        for kind in (MessageType.PRE_VOTE_RESPONSE, MessageType.VOTE_RESPONSE):
            for other in others:
                term = self.raft.term + (kind is MessageType.PRE_VOTE_RESPONSE)
                self.node.step(Message(kind, to=1, sender=other, term=term))
                self.settle()
        assert self.raft.role is Role.LEADER

    def acknowledge(self, other: int, index: int) -> list[Message]:
        """Another member has all up to an index."""
        answer = Message(MessageType.APPEND_RESPONSE, to=1, sender=other, term=self.raft.term, index=index)
        self.node.step(answer)
        return self.settle()


def change(kind: ConfChangeType, member: int) -> ConfChange:
    return ConfChange((ConfChangeSingle(kind, member),))


def snapshot_message(index: int, voters: tuple[int, ...], term: int = 2) -> Message:
    meta = SnapshotMeta(index, term, ConfState(voters=voters))
    return Message(MessageType.SNAPSHOT, to=1, sender=2, term=term, snapshot=meta)


def test_one_voter_alone_answers_reads_only_from_its_own_term_on() -> None:
    lone = Lone((1,), entries=3, committed=1)
    lone.node.campaign()
    while lone.raft.role is not Role.LEADER:
        lone.end(lone.begin())
    lone.node.read_index(b"early")
    reads = []
    while lone.node.has_ready():
        ready = lone.begin()
        reads += ready.read_states
        lone.end(ready)
    assert [(read.index, read.context) for read in reads] == [(4, b"early")], "entries 2 and 3 were acknowledged once"


def test_removing_the_last_voter_is_refused_when_proposed() -> None:
    lone = Lone((1,))
    lone.lead()
    with pytest.raises(ProposalDropped, match="removed all voters"):
        lone.node.propose_conf_change(change(ConfChangeType.REMOVE_NODE, 1))
    lone.node.propose_conf_change(change(ConfChangeType.ADD_LEARNER, 2))
    lone.settle()
    assert lone.raft.tracker.config.learners == {2}, "what was refused does not stand in the way"


def test_a_second_change_of_members_becomes_an_empty_entry() -> None:
    lone = Lone((1, 2, 3))
    lone.lead((2,))
    lone.acknowledge(2, 1)
    lone.node.propose_conf_change(change(ConfChangeType.ADD_LEARNER, 4))
    lone.node.propose_conf_change(change(ConfChangeType.ADD_LEARNER, 5))
    lone.settle()
    assert [entry.type for entry in lone.storage.entries(2, 4, 1 << 20)] == [
        EntryType.CONF_CHANGE_V2,
        EntryType.NORMAL,
    ]


def test_a_learner_is_promoted_and_counts_from_then_on() -> None:
    lone = Lone((1,))
    lone.lead()
    lone.node.propose_conf_change(change(ConfChangeType.ADD_LEARNER, 2))
    lone.settle()
    lone.node.propose(b"alone")
    lone.settle()
    assert lone.raft.log.committed == 3, "a learner is not asked"
    lone.node.propose_conf_change(change(ConfChangeType.ADD_NODE, 2))
    lone.settle()
    lone.node.propose(b"together")
    lone.settle()
    assert lone.raft.log.committed == 4
    lone.acknowledge(2, 5)
    assert lone.raft.log.committed == 5


def test_a_snapshot_from_before_the_own_addition_is_taken() -> None:
    joiner = Lone(())
    joiner.node.step(snapshot_message(10, voters=(2,)))
    assert [message.index for message in joiner.settle()] == [10]
    added = encode_conf_change(change(ConfChangeType.ADD_LEARNER, 1))
    entry = Entry(2, 11, EntryType.CONF_CHANGE_V2, added)
    joiner.node.step(
        Message(MessageType.APPEND, to=1, sender=2, term=2, log_term=2, index=10, entries=(entry,), commit=11)
    )
    joiner.settle()
    assert joiner.raft.is_learner
    assert joiner.raft.tracker.config.voters == {2}


def test_a_snapshot_that_comes_while_entries_are_applied_waits_for_them() -> None:
    member = Lone(())
    entry = Entry(2, 1, EntryType.CONF_CHANGE_V2, encode_conf_change(change(ConfChangeType.ADD_NODE, 3)))
    member.node.step(Message(MessageType.APPEND, to=1, sender=3, term=2, entries=(entry,), commit=1))
    ready = member.begin()
    member.node.step(snapshot_message(10, voters=(2,)))
    member.end(ready)
    member.settle()
    assert member.raft.tracker.config.voters == {2}, "the older change was not made after the snapshot"
    assert member.raft.log.applied == 10


def test_no_election_while_a_snapshot_is_written() -> None:
    member = Lone((1, 2, 3))
    member.node.step(snapshot_message(10, voters=(1, 2, 3)))
    ready = member.begin()
    for _ in range(30):
        member.node.tick()
    assert member.raft.role is Role.FOLLOWER
    member.end(ready)
    for _ in range(30):
        member.node.tick()
    assert member.raft.role is not Role.FOLLOWER


@pytest.mark.parametrize("ok", [True, False])
def test_a_member_behind_the_log_is_sent_a_snapshot_until_it_is_reported(ok: bool) -> None:
    leader = Lone((1, 2, 3), entries=9, committed=9)
    leader.lead((2,))
    leader.acknowledge(2, 10)
    leader.storage.set_snapshot(SnapshotMeta(10, leader.raft.term, ConfState(voters=(1, 2, 3))))
    leader.storage.compact(10)
    progress = leader.raft.tracker.progress[3]
    rejection = Message(MessageType.APPEND_RESPONSE, to=1, sender=3, term=leader.raft.term, index=9, reject=True)
    leader.node.step(rejection)
    assert [message.type for message in leader.settle()] == [MessageType.SNAPSHOT]
    heard = Message(MessageType.HEARTBEAT_RESPONSE, to=1, sender=3, term=leader.raft.term)
    leader.node.step(heard)
    assert not leader.settle(), "nothing more is sent to it"
    leader.node.report_snapshot(3, ok)
    assert progress.state is ProgressState.PROBE
    assert progress.next == (11 if ok else 1)
    leader.node.step(heard)
    assert [message.type for message in leader.settle()] == [MessageType.APPEND if ok else MessageType.SNAPSHOT]


def test_word_that_a_member_is_unreachable_ends_the_stream_to_it() -> None:
    leader = Lone((1, 2, 3))
    leader.lead((2,))
    leader.acknowledge(2, 1)
    assert leader.raft.tracker.progress[2].state is ProgressState.REPLICATE
    leader.node.report_unreachable(2)
    assert leader.raft.tracker.progress[2].state is ProgressState.PROBE


def test_a_window_that_is_full_holds_appends_back() -> None:
    leader = Lone((1, 2, 3), inflight_messages_most=2, message_bytes_most=1)
    leader.lead((2,))
    leader.acknowledge(2, 1)
    for number in range(5):
        leader.node.propose(b"%d" % number)
    to_second = [message for message in leader.settle() if message.to == 2]
    assert [entry.index for message in to_second for entry in message.entries] == [2, 3]
    more = [message for message in leader.acknowledge(2, 2) if message.to == 2 and message.entries]
    assert [entry.index for message in more for entry in message.entries] == [4]


def test_a_window_is_full_by_bytes_too() -> None:
    leader = Lone((1, 2, 3), inflight_bytes_most=100, message_bytes_most=60)
    leader.lead((2,))
    leader.acknowledge(2, 1)
    for _ in range(5):
        leader.node.propose(b"x" * 48)
    to_second = [message for message in leader.settle() if message.to == 2]
    assert [entry.index for message in to_second for entry in message.entries] == [2, 3]
    more = [message for message in leader.acknowledge(2, 3) if message.to == 2 and message.entries]
    assert [entry.index for message in more for entry in message.entries] == [4, 5]


def test_a_transfer_to_oneself_takes_one_under_way_back() -> None:
    leader = Lone((1, 2, 3))
    leader.lead((2,))
    leader.node.transfer_leadership(3)
    with pytest.raises(ProposalDropped, match="handed over"):
        leader.node.propose(b"x")
    leader.node.transfer_leadership(1)
    leader.node.propose(b"x")
    assert leader.raft.log.last_index() == 2


def test_a_transfer_waits_until_the_heir_has_all() -> None:
    leader = Lone((1, 2, 3))
    leader.lead((2,))
    leader.node.transfer_leadership(3)
    assert MessageType.TIMEOUT_NOW not in {message.type for message in leader.settle()}
    assert [message.type for message in leader.acknowledge(3, 1) if message.to == 3][-1] is MessageType.TIMEOUT_NOW


def test_of_two_the_one_that_stays_learns_from_the_other_that_it_is_alone() -> None:
    """The leader 2 of two removed itself; 1 has the entry, but not the word that it is committed."""
    stays = Lone((1, 2))
    removal = Entry(2, 1, EntryType.CONF_CHANGE_V2, encode_conf_change(change(ConfChangeType.REMOVE_NODE, 2)))
    stays.node.step(Message(MessageType.APPEND, to=1, sender=2, term=2, entries=(removal,)))
    stays.settle()
    stays.node.campaign()
    stays.settle()
    stays.node.step(Message(MessageType.PRE_VOTE_RESPONSE, to=1, sender=2, term=2, reject=True, commit=1, log_term=2))
    stays.settle()
    assert stays.raft.tracker.config.voters == {1}
    stays.node.campaign()
    stays.settle()
    assert stays.raft.role is Role.LEADER


def test_a_removed_member_says_with_its_no_how_far_the_log_is_committed() -> None:
    removed = Lone((2,), entries=3, committed=2)
    removed.settle()
    removed.node.step(Message(MessageType.PRE_VOTE, to=1, sender=2, term=2, index=2, log_term=1))
    (answer,) = removed.settle()
    assert (answer.reject, answer.commit, answer.log_term) == (True, 2, 1)


@pytest.mark.parametrize("kind", [MessageType.PROPOSE, MessageType.HUP, MessageType.CHECK_QUORUM, MessageType.BEAT])
def test_what_only_the_member_itself_may_say_is_ignored_from_others(kind: MessageType) -> None:
    lone = Lone((1,))
    lone.lead()
    last = lone.raft.log.last_index()
    lone.node.step(Message(kind, to=1, sender=2, entries=(Entry(0, 0, data=b"forged"),)))
    assert not lone.settle()
    assert lone.raft.log.last_index() == last
    assert lone.raft.role is Role.LEADER


def test_a_cut_off_leader_steps_down_within_two_election_timeouts() -> None:
    leader = Lone((1, 2, 3))
    leader.lead((2,))
    for _ in range(20):
        leader.node.tick()
        leader.settle()
    assert leader.raft.role is not Role.LEADER


def test_a_read_asked_for_twice_releases_no_younger_one_by_old_answers() -> None:
    leader = Lone((1, 2, 3))
    leader.lead((2,))
    leader.acknowledge(2, 1)

    def ask(context: bytes) -> bytes:
        entry = Entry(0, 0, data=context)
        leader.node.step(Message(MessageType.READ_INDEX, to=1, sender=2, entries=(entry,)))
        return next(m.context for m in leader.settle() if m.type is MessageType.HEARTBEAT and m.to == 3)

    def confirm(member: int, context: bytes) -> list[Message]:
        leader.node.step(
            Message(MessageType.HEARTBEAT_RESPONSE, to=1, sender=member, term=leader.raft.term, context=context)
        )
        return [message for message in leader.settle() if message.type is MessageType.READ_INDEX_RESPONSE]

    first_round = ask(b"of 2")
    assert confirm(2, first_round)
    leader.node.read_index(b"own, younger")
    leader.settle()
    ask(b"of 2")
    leader.node.step(
        Message(MessageType.HEARTBEAT_RESPONSE, to=1, sender=3, term=leader.raft.term, context=first_round)
    )
    assert not leader.raft.read_states, "this answer is older than the younger read"
