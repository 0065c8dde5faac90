"""Faults put into the core on purpose, one at a time: each must be caught by the simulation.

A mutation replaces one function (of the core, or of the simulated disk and driver) by one that breaks one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from msgspec.structs import replace

from shoal.raft.core import following, leading, quorum, tracker
from shoal.raft.core.log import RaftLog
from shoal.raft.core.messages import NO_ONE, Entry, Message, MessageType, SnapshotMeta
from shoal.raft.core.raft import Raft, Role
from shoal.raft.core.rawnode import RawNode, Ready
from shoal.raft.core.tracker import Progress, ProgressState, Tracker
from tests.sim.raft_disk import Disk

Patch = tuple[object, str, object]
MUTATIONS: dict[str, Mutation] = {}
# Those that need a rare constellation.
SEEDS_MOST = {
    "read_without_quorum": 300,
    "removed_member_keeps_what_it_knows": 5000,
}


@dataclass(frozen=True)
class Mutation:
    """What is broken, and by what."""

    name: str
    patches: Callable[[], list[Patch]]
    # How many seeds it may take to catch it.
    seeds_most: int


def mutation(patches: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    name = patches.__name__
    MUTATIONS[name] = Mutation(name, patches, SEEDS_MOST.get(name, 100))
    return patches


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Run with a mutation, or with none."""
    patches = [] if name is None else MUTATIONS[name].patches()
    started = [mock.patch.object(target, attribute, new) for target, attribute, new in patches]
    for patch in started:
        patch.start()
    try:
        yield
    finally:
        for patch in started:
            patch.stop()


# -- votes


@mutation
def vote_not_persisted() -> list[Patch]:
    """A Ready that only changes term and vote is not synced."""
    ready = RawNode.ready

    def forgetful(self: RawNode) -> Ready:
        from dataclasses import replace as change

        given = ready(self)
        return change(given, must_sync=bool(given.entries))

    return [(RawNode, "ready", forgetful)]


@mutation
def two_votes_in_a_term() -> list[Patch]:
    answer = Raft._answer_vote

    def generous(self: Raft, message: Message) -> None:
        if message.type is MessageType.VOTE:
            self.vote = self.leader = NO_ONE
        answer(self, message)

    return [(Raft, "_answer_vote", generous)]


@mutation
def election_restriction_dropped() -> list[Patch]:
    return [(RaftLog, "is_up_to_date", lambda _self, _term, _index: True)]


@mutation
def quorum_one_too_small() -> list[Patch]:
    def minority(voters: frozenset[int], votes: dict[int, bool]) -> quorum.VoteResult:
        granted = sum(1 for voter in voters if votes.get(voter))
        if granted >= max(1, len(voters) // 2):
            return quorum.VoteResult.WON
        return quorum.VoteResult.PENDING if len(votes) < len(voters) else quorum.VoteResult.LOST

    return [(quorum, "majority_vote_result", minority)]


@mutation
def pre_vote_changes_the_term() -> list[Patch]:
    """A member that is asked in a pre-vote takes the term asked about, lease or not."""
    take = Raft._take_newer_term

    def careless(self: Raft, message: Message) -> bool:
        if message.type is MessageType.PRE_VOTE:
            self.become_follower(message.term, NO_ONE)
            return True
        return take(self, message)

    return [(Raft, "_take_newer_term", careless)]


@mutation
def pre_vote_without_lease() -> list[Patch]:
    """Votes are given although a leader was heard of lately."""
    take = Raft._take_newer_term

    def unfaithful(self: Raft, message: Message) -> bool:
        self.election_elapsed = max(self.election_elapsed, self.config.election_ticks)
        return take(self, message)

    return [(Raft, "_take_newer_term", unfaithful)]


@mutation
def cut_off_leader_stays() -> list[Patch]:
    """CheckQuorum is not heeded."""
    return [(Tracker, "is_quorum_active", lambda _self: True)]


# -- replication and commitment


@mutation
def log_matching_check_skipped() -> list[Patch]:
    def trusting(
        self: RaftLog, _term: int, previous_index: int, entries: tuple[Entry, ...], committed: int
    ) -> int | None:
        if previous_index > self.last_index():
            return None
        conflict = self.find_conflict(entries)
        if conflict > self.committed:
            self.append(list(entries[conflict - previous_index - 1 :]))
        last = previous_index + len(entries)
        self.commit_to(min(committed, last))
        return last

    return [(RaftLog, "try_append", trusting)]


@mutation
def conflict_not_overwritten() -> list[Patch]:
    """Entries that are there are kept, be they another leader's."""

    def blind(self: RaftLog, entries: tuple[Entry, ...]) -> int:
        return next((entry.index for entry in entries if entry.index > self.last_index()), 0)

    return [(RaftLog, "find_conflict", blind)]


@mutation
def commit_of_an_older_term() -> list[Patch]:
    def hasty(self: RaftLog, index: int, _term: int) -> bool:
        if index <= self.committed:
            return False
        self.commit_to(index)
        return True

    return [(RaftLog, "try_commit", hasty)]


@mutation
def commit_index_beyond_match() -> list[Patch]:
    """A heartbeat tells the leader's commit index, whatever the member is known to have."""

    def overdone(raft: Raft, context: bytes) -> None:
        for member in raft.tracker.progress:
            if member != raft.id:
                commit = raft.log.committed
                raft.send(Message(MessageType.HEARTBEAT, to=member, commit=commit, context=context))

    def cut(self: RaftLog, index: int) -> None:
        self.committed = max(self.committed, min(index, self.last_index()))

    return [(leading, "broadcast_heartbeat", overdone), (RaftLog, "commit_to", cut)]


@mutation
def unsynced_entries_counted() -> list[Patch]:
    """A leader counts its own entries before they are on its disk."""
    append = Raft.append_entries

    def early(self: Raft, entries: list[Entry]) -> bool:
        taken = append(self, entries)
        self.tracker.progress[self.id].may_update(self.log.last_index())
        leading.maybe_commit(self)
        return taken

    return [(Raft, "append_entries", early)]


@mutation
def acknowledged_before_written() -> list[Patch]:
    """Acknowledgements leave a Ready early: entries are said to need no sync."""
    ready = RawNode.ready

    def lazy(self: RawNode) -> Ready:
        from dataclasses import replace as change

        given = ready(self)
        unsynced = bool(given.entries) and given.hard_state is None and self.raft.role is not Role.LEADER
        return change(given, must_sync=given.must_sync and not unsynced)

    return [(RawNode, "ready", lazy)]


@mutation
def learner_counted_in_quorum() -> list[Patch]:
    def everybody(self: Tracker) -> int:
        matches = sorted(progress.match for progress in self.progress.values())
        return matches[(len(matches) - 1) // 2]

    return [(Tracker, "committed", property(everybody))]


@mutation
def append_of_an_older_term_taken() -> list[Patch]:
    settle = Raft._settle_term

    def lenient(self: Raft, message: Message) -> bool:
        if message.type is MessageType.APPEND and message.term < self.term and self.role is Role.FOLLOWER:
            return True
        return settle(self, message)

    return [(Raft, "_settle_term", lenient)]


@mutation
def rejection_taken_for_acknowledgement() -> list[Patch]:
    def deaf(raft: Raft, message: Message, progress: Progress) -> None:
        leading._take_acknowledgement(raft, replace(message, reject=False), progress)

    return [(leading, "_take_rejection", deaf)]


@mutation
def removed_member_keeps_what_it_knows() -> list[Patch]:
    """A rejection does not tell how far the log is committed: of two members the one that stays never learns it."""
    return [(following, "_learn_commit", lambda _raft, _message: None)]


# -- snapshots and disks


@mutation
def snapshot_without_reset() -> list[Patch]:
    """The entries that were not written yet stay when a snapshot begins the log anew."""
    restore = RaftLog.restore

    def untidy(self: RaftLog, snapshot: SnapshotMeta) -> None:
        kept = self.entries(self.first_index(), self.last_index() + 1, 1 << 30)
        restore(self, snapshot)
        self.unstable = [replace(entry, index=snapshot.index + n) for n, entry in enumerate(kept, start=1)]

    return [(RaftLog, "restore", untidy)]


@mutation
def older_snapshot_taken() -> list[Patch]:
    """A snapshot is taken although the log is further."""
    restore = following._restore

    def backwards(raft: Raft, message: Message) -> bool:
        assert message.snapshot is not None
        if message.snapshot.index <= raft.log.committed and raft.role is Role.FOLLOWER:
            raft.log.restore(message.snapshot)
            return True
        return restore(raft, message)

    return [(following, "_restore", backwards)]


@mutation
def snapshot_not_waited_for() -> list[Patch]:
    """A member that was sent a snapshot counts as having it."""
    become = Progress.become_snapshot

    def sure(self: Progress, index: int) -> None:
        become(self, index)
        self.match = max(self.match, index)

    return [(Progress, "become_snapshot", sure)]


@mutation
def snapshot_report_ignored() -> list[Patch]:
    """Word that a snapshot was lost changes nothing: its member waits for ever."""
    step = leading._step_member

    def deaf(raft: Raft, message: Message, progress: Progress) -> None:
        if message.type is not MessageType.SNAPSHOT_STATUS:
            step(raft, message, progress)

    return [(leading, "_step_member", deaf)]


@mutation
def torn_tail_taken() -> list[Patch]:
    return [(Disk, "take_torn", lambda _self, torn: torn)]


# -- members and the lead


@mutation
def two_changes_of_members_at_a_time() -> list[Patch]:
    return [(leading, "_check_conf_change", lambda _raft, entry, _index: entry)]


@mutation
def transfer_without_catching_up() -> list[Patch]:
    def abrupt(raft: Raft, message: Message, progress: Progress) -> None:
        if not progress.is_learner and message.sender != raft.id:
            raft.transferee = message.sender
            raft.send(Message(MessageType.TIMEOUT_NOW, to=message.sender))

    return [(leading, "_transfer", abrupt)]


@mutation
def transfer_never_ends() -> list[Patch]:
    """A transfer to a member that does not answer is not given up."""
    tick = Raft._tick_leader

    def patient(self: Raft) -> None:
        heir = self.transferee
        tick(self)
        if self.role is Role.LEADER:
            self.transferee = heir

    return [(Raft, "_tick_leader", patient)]


# -- reads


@mutation
def read_without_quorum() -> list[Patch]:
    def trusting(raft: Raft, message: Message) -> None:
        leading.respond_read(raft, message, raft.log.committed)

    return [(leading, "_begin_read", trusting)]


@mutation
def read_before_an_entry_of_the_term() -> list[Patch]:
    return [(Raft, "has_committed_own_term", property(lambda _self: True))]


@mutation
def read_confirmed_by_learners() -> list[Patch]:
    def anybody(raft: Raft, message: Message) -> None:
        if message.context and len(raft.read_only.acknowledge(message.sender, message.context)) > 1:
            for request, index in raft.read_only.advance(message.context):
                leading.respond_read(raft, request, index)

    return [(leading, "_confirm_reads", anybody)]


# -- flow


@mutation
def window_never_opens() -> list[Patch]:
    """Appends that arrived are not taken out of the window."""
    return [(tracker.Inflights, "free_to", lambda _self, _index: None)]


@mutation
def probing_never_ends() -> list[Patch]:
    """After a lost append a member is not sent the next one, heartbeat or not."""
    step = leading._step_member

    def stubborn(raft: Raft, message: Message, progress: Progress) -> None:
        paused = progress.append_flow_paused and progress.state is ProgressState.PROBE
        if message.type is MessageType.HEARTBEAT_RESPONSE and paused:
            progress.recent_active = True
            return
        step(raft, message, progress)

    return [(leading, "_step_member", stubborn)]
