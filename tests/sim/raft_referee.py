"""Watches all members of a simulated group at once and says when one breaks a rule of the Raft paper.

It keeps its own account of what is committed, applied and who the members are, and trusts no member's word for it.
Knows nothing of time, messages under way or faults.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from shoal.raft.core.log import RaftLog
from shoal.raft.core.messages import (
    ConfChangeType,
    Entry,
    EntryType,
    Message,
    MessageType,
    decode_conf_change,
)
from shoal.raft.core.raft import Raft, Role
from tests.sim.raft_disk import Disk, Saved


class Violation(AssertionError):
    """A rule was broken."""


@dataclass(frozen=True)
class Members:
    """Who votes and who learns at some index."""

    voters: frozenset[int]
    learners: frozenset[int] = frozenset()

    @property
    def everyone(self) -> frozenset[int]:
        return self.voters | self.learners


def next_state(state: int, entry: Entry) -> int:
    """The state machine: a chain over all that was applied, so that it shows every difference."""
    # Of numbers only: the hash of text differs from process to process.
    kind = entry.type is EntryType.NORMAL
    return hash((state, entry.index, entry.term, kind, int.from_bytes(entry.data)))


class Referee:
    """What is known of the group. Each method is told of one thing that happened."""

    def __init__(self, first: tuple[Entry, ...]) -> None:
        self.leaders: dict[int, int] = {}
        # By index and term: type, data and the term of the entry before.
        self._written: dict[tuple[int, int], tuple[EntryType, bytes, int]] = {}
        self.committed_terms: dict[int, int] = {0: 0}
        self.committed = 0
        self._commit_terms = [0]  # by index: the term of the leader under which it was first committed
        self.states: dict[int, int] = {0: 0}
        self.members: dict[int, Members] = {0: Members(frozenset())}
        self.applied = 0
        self.reads_served = 0
        self.restored = 0
        self._reads: dict[bytes, int] = {}
        # By member and term: up to where it acknowledged the log.
        self._acknowledged: dict[tuple[int, int], int] = {}
        self._last_of_leader: dict[int, tuple[int, int, int]] = {}
        state = 0
        for entry in first:
            state = self.note_applied(0, entry, state)
            self._commit_terms.append(entry.term)
            self.committed_terms[entry.index] = entry.term
            self.committed = entry.index

    # -- leaders and logs

    def look_at_leader(self, raft: Raft) -> None:
        """Election safety, leader completeness and leader append-only."""
        last = raft.log.last_index()
        if raft.term not in self.leaders:
            self.leaders[raft.term] = raft.id
            self._check_completeness(raft)
        elif self.leaders[raft.term] != raft.id:
            raise Violation(f"election safety: {self.leaders[raft.term]} and {raft.id} lead term {raft.term}")
        term, index, entry_term = self._last_of_leader.get(raft.id, (0, 0, 0))
        if term == raft.term and (last < index or raft.log.term_or_zero(index) not in (0, entry_term)):
            raise Violation(f"leader append-only: {raft.id} gave up entries in its own term {term}")
        if (term, index) != (raft.term, last):
            self._last_of_leader[raft.id] = (raft.term, last, raft.log.last_term())

    def _check_completeness(self, raft: Raft) -> None:
        # What was committed under an older term must be there; later terms are none of its business.
        index = bisect_left(self._commit_terms, raft.term) - 1
        log = raft.log
        if log.last_index() < index or (
            index >= log.first_index() and log.term_or_zero(index) != self.committed_terms[index]
        ):
            raise Violation(f"leader completeness: {raft.id} leads term {raft.term} without entry {index}")

    def look_at_follower(self, raft: Raft) -> None:
        """Election safety: whom a member follows in a term leads that term."""
        if self.leaders.get(raft.term) != raft.leader:
            raise Violation(f"election safety: {raft.id} follows {raft.leader} in term {raft.term}, which it never led")

    def note_written(self, raft: Raft, entries: tuple[Entry, ...], disk: Disk) -> None:
        """Log matching: the same index and term mean the same entry and the same before it. What is committed stays."""
        for index in range(entries[0].index, min(self.committed, disk.last_index) + 1):
            term = self.committed_terms[index]
            position = index - entries[0].index
            kept = position < len(entries) and entries[position].term == term
            if not kept and index > disk.saved.meta.index and disk.holds(index, term):
                raise Violation(f"{raft.id} gives up entry {index} of term {term}, which is committed")
        previous = raft.log.term_or_zero(entries[0].index - 1)
        for entry in entries:
            content = (entry.type, entry.data, previous)
            known = self._written.setdefault((entry.index, entry.term), content)
            if known != content and (known[:2] != content[:2] or (previous and known[2])):
                raise Violation(f"log matching: {raft.id} wrote {content} at {entry.index}, there was {known}")
            previous = entry.term
        if raft.role is Role.LEADER:
            self._check_one_change(raft, entries)

    def _check_one_change(self, raft: Raft, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.type is EntryType.NORMAL or entry.term != raft.term:
                continue
            low = max(raft.log.applied + 1, raft.log.first_index())
            pending = [e for e in raft.log.entries(low, entry.index, 1 << 30) if e.type is not EntryType.NORMAL]
            if pending:
                raise Violation(f"one change at a time: {raft.id} began one at {entry.index} with {pending} pending")

    # -- commitment

    def note_commit(self, raft: Raft, disks: Mapping[int, Disk], was: int, applied: int) -> None:
        """A commit index rose: the entries are those committed everywhere, and a quorum of disks holds them.

        The quorum is one of the members as of `applied`, the last entry that the member applied.
        """
        log: RaftLog = raft.log
        for index in range(max(was, log.first_index() - 1) + 1, log.committed + 1):
            term = log.term(index)
            if index <= self.committed:
                if self.committed_terms.get(index, term) != term:
                    raise Violation(f"{raft.id} has another entry committed at {index}")
                continue
            self.committed_terms[index] = term
            self._commit_terms.append(raft.term)
            self.committed = index
            if raft.role is not Role.LEADER:
                raise Violation(f"{raft.id} does not lead and holds {index} committed before any leader did")
        if was < log.committed == self.committed and raft.role is Role.LEADER:
            self._check_durable(raft, disks, self.members[applied].voters)

    def _check_durable(self, raft: Raft, disks: Mapping[int, Disk], voters: frozenset[int]) -> None:
        index = raft.log.committed
        term = raft.log.term(index)
        holders = [voter for voter in voters if disks[voter].holds(index, term)]
        if len(holders) <= len(voters) // 2:
            raise Violation(
                f"{raft.id} committed entry {index} of term {term}: of voters {set(voters)} only {holders} hold it"
            )
        if term != raft.term:
            raise Violation(f"{raft.id} committed up to entry {index} of older term {term} in term {raft.term}")

    # -- applying

    def note_applied(self, member: int, entry: Entry, state: int) -> int:
        """State machine safety; returns the state after the entry."""
        state = next_state(state, entry)
        if self.states.setdefault(entry.index, state) != state:
            raise Violation(f"state machine safety: {member} applied another entry at {entry.index}")
        if entry.index not in self.members:
            self.members[entry.index] = _change(self.members[entry.index - 1], entry)
            self.applied = entry.index
        return state

    def check_members(self, raft: Raft, index: int) -> None:
        """After a change of members was applied: the member knows the same members."""
        config, known = raft.tracker.config, self.members[index]
        if (config.incoming, config.learners) != (known.voters, known.learners) or config.outgoing:
            raise Violation(f"{raft.id} holds the members for {config} at {index}, they are {known}")

    def check_restored(self, member: int, saved: Saved) -> None:
        """State machine safety of a snapshot that a member begins anew from."""
        self.restored += 1
        if self.states.get(saved.meta.index) != saved.state:
            raise Violation(f"{member} restored a state at {saved.meta.index} that never was")

    @property
    def now(self) -> Members:
        """The members after all that was applied anywhere."""
        return self.members[self.applied]

    # -- promises and reads

    def check_promise(self, message: Message, disks: Mapping[int, Disk]) -> None:
        """A message leaves: what it promises is durable."""
        disk = disks[message.sender]
        match message.type:
            case MessageType.VOTE_RESPONSE if not message.reject:
                if (disk.hard_state.term, disk.hard_state.vote) < (message.term, message.to):
                    raise Violation(f"{message.sender} voted for {message.to} in {message.term}: it is not on disk")
            case MessageType.APPEND_RESPONSE if not message.reject:
                # One of an older term than is on disk promises nothing: a newer leader may have cut the entries
                # already, in the same write. It was elected by a quorum without them, so they never commit.
                behind = message.term == disk.hard_state.term and message.index > disk.last_index
                if behind or message.term > disk.hard_state.term:
                    raise Violation(f"{message.sender} acknowledged {message.index}: it is not on disk")
                at = (message.sender, message.term)
                self._acknowledged[at] = max(self._acknowledged.get(at, 0), message.index)
            case _:
                return

    def check_handover(self, raft: Raft, heir: int) -> None:
        """A leader tells an heir to take over: the heir has acknowledged all there is."""
        if self._acknowledged.get((heir, raft.term), 0) < raft.log.last_index():
            raise Violation(f"{raft.id} hands over to {heir}, which lacks entries")

    def begin_read(self, context: bytes) -> None:
        """A read is asked for: it must see all that is committed (so all that is acknowledged) by now."""
        self._reads[context] = self.committed

    def end_read(self, member: int, index: int, context: bytes) -> None:
        """A read may be served at `index`."""
        self.reads_served += 1
        if index < self._reads[context]:
            raise Violation(f"{member} would serve a read at {index}, {self._reads[context]} was committed before it")


def _change(members: Members, entry: Entry) -> Members:
    if entry.type is EntryType.NORMAL:
        return members
    voters, learners = members.voters, members.learners
    for change in decode_conf_change(entry.data).changes:
        one = frozenset({change.node_id})
        voters, learners = voters - one, learners - one
        if change.type is ConfChangeType.ADD_NODE:
            voters |= one
        elif change.type is ConfChangeType.ADD_LEARNER:
            learners |= one
    return Members(voters, learners)
