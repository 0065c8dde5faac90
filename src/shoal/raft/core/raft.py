"""One member of a raft group: roles, elections, terms. Replication is in `leading.py`, following in `following.py`.

A state machine without IO: messages and ticks go in through `step` and `tick`, messages to send and state to write come
out of its fields, gathered by `rawnode.py`. Randomness is an argument. After etcd/raft and the Raft thesis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from msgspec.structs import replace

from shoal.raft.core.confchange import Changer, restore
from shoal.raft.core.log import RaftLog, Storage
from shoal.raft.core.messages import (
    AFTER_APPEND_TYPES,
    NO_ONE,
    ConfChange,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ReadState,
    SoftState,
)
from shoal.raft.core.quorum import VoteResult
from shoal.raft.core.read_only import ReadOnly
from shoal.raft.core.tracker import Config, Progress, Tracker


class Role(StrEnum):
    """What a member is at the moment."""

    FOLLOWER = "StateFollower"
    CANDIDATE = "StateCandidate"
    LEADER = "StateLeader"
    PRE_CANDIDATE = "StatePreCandidate"


class ProposalDropped(Exception):
    """A proposal was not taken: no leader here, a transfer under way, too much uncommitted, or a change of members
    that cannot be made."""


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Settings of a member.

    Attributes:
        id: of this member, not 0.
        election_ticks, heartbeat_ticks: in calls of `tick`.
        random_int: `random_int(n)` is from 0 to n - 1; elections are spread by it.
        pre_vote: ask whether an election could be won before a term is begun (thesis 9.6).
        check_quorum: a leader that does not hear from a quorum for an election timeout steps down (6.2).
        message_bytes_most: of entries in one append.
        inflight_messages_most, inflight_bytes_most: appends under way to one member; 0 bytes is no bound.
        uncommitted_bytes_most: of entries that a leader takes before they commit; 0 is no bound.
        applied: how far the state machine is already.
        step_down_on_removal: a leader that is removed or demoted steps down at once.
    """

    id: int
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    random_int: Callable[[int], int] = lambda _n: 0
    pre_vote: bool = True
    check_quorum: bool = True
    message_bytes_most: int = 1 << 20
    inflight_messages_most: int = 256
    inflight_bytes_most: int = 0
    uncommitted_bytes_most: int = 0
    applied: int = 0
    step_down_on_removal: bool = True


class Raft:
    """A member. The methods of leaders and followers are functions of their modules, over this state."""

    def __init__(self, config: RaftConfig, storage: Storage) -> None:
        assert config.id != NO_ONE, "0 means nobody"
        assert config.election_ticks > config.heartbeat_ticks > 0, "an election takes longer than a heartbeat"
        self.config = config
        self.id = config.id
        self.log = RaftLog(storage)
        self.term = 0
        self.vote = NO_ONE
        self.leader = NO_ONE
        self.role = Role.FOLLOWER
        self.is_learner = False
        self.transferee = NO_ONE
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.randomized_election_ticks = config.election_ticks
        self.read_only = ReadOnly()
        self.read_states: list[ReadState] = []
        self.pending_reads: list[Message] = []
        self.messages: list[Message] = []
        self.messages_after_append: list[Message] = []
        self.tracker = Tracker(config.inflight_messages_most, config.inflight_bytes_most)
        hard_state, conf_state = storage.initial_state()
        self.switch_config(*restore(self.tracker, self.log.last_index(), conf_state))
        self.term, self.vote = hard_state.term, hard_state.vote
        if hard_state.commit:
            self.log.commit_to(hard_state.commit)
        if config.applied:
            self.log.applied_to(config.applied)
        self.become_follower(self.term, NO_ONE)

    # -- what is seen from outside

    def soft_state(self) -> SoftState:
        """Return who leads, and what this member is."""
        return SoftState(self.leader, self.role)

    def hard_state(self) -> HardState:
        """Return what must be on disk."""
        return HardState(self.term, self.vote, self.log.committed)

    @property
    def is_promotable(self) -> bool:
        """Whether this member may stand for election: a voter with no snapshot to be written, or being written."""
        return self.id in self.tracker.config.voters and self.log.pending_snapshot is None

    @property
    def has_committed_own_term(self) -> bool:
        """Whether an entry of the present term is committed; only then the commit index is surely the newest."""
        return self.log.term_or_zero(self.log.committed) == self.term

    # -- sending

    def send(self, message: Message) -> None:
        """Queue a message; what promises something that is not on disk yet leaves after it is."""
        if message.sender == NO_ONE:
            message = replace(message, sender=self.id)
        if message.type not in _OWN_TERM_TYPES and message.type not in (
            MessageType.PROPOSE,
            MessageType.READ_INDEX,
        ):
            message = replace(message, term=self.term)
        if message.type in AFTER_APPEND_TYPES:
            self.messages_after_append.append(message)
        else:
            assert message.to != self.id, f"{message.type} to oneself"
            self.messages.append(message)

    # -- roles

    def _reset(self, term: int) -> None:
        if self.term != term:
            self.term = term
            self.vote = NO_ONE
        self.leader = NO_ONE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self._randomize_election()
        self.transferee = NO_ONE
        self.tracker.reset_votes()
        last = self.log.last_index()
        for member, progress in self.tracker.members():
            fresh = self.tracker.new_progress(0, last + 1, progress.is_learner)
            if member == self.id:
                fresh.match = last
            self.tracker.progress[member] = fresh
        self.pending_conf_index = 0
        self.uncommitted_bytes = 0
        # Reads are lost with the lead: whoever asked asks again.
        self.read_only = ReadOnly()
        self.pending_reads = []

    def _randomize_election(self) -> None:
        ticks = self.config.election_ticks
        self.randomized_election_ticks = ticks + self.config.random_int(ticks)

    def become_follower(self, term: int, leader: int) -> None:
        """Follow `leader` (perhaps nobody yet) in `term`."""
        self._reset(term)
        self.leader = leader
        self.role = Role.FOLLOWER

    def become_candidate(self) -> None:
        """Begin a new term and vote for oneself."""
        assert self.role is not Role.LEADER, "a leader does not stand for election"
        self._reset(self.term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE

    def become_pre_candidate(self) -> None:
        """Ask first: nothing changes but the role, no term is begun."""
        assert self.role is not Role.LEADER, "a leader does not stand for election"
        self.tracker.reset_votes()
        self.leader = NO_ONE
        self.role = Role.PRE_CANDIDATE

    def become_leader(self) -> None:
        """Lead: begin with an empty entry of the own term, through which older entries commit."""
        assert self.role is not Role.FOLLOWER, "only an election makes a leader"
        self._reset(self.term)
        self.leader = self.id
        self.role = Role.LEADER
        self.tracker.progress[self.id].become_replicate()
        self.tracker.progress[self.id].recent_active = True
        # An uncommitted change of members may be in the log: no other until it is known.
        self.pending_conf_index = self.log.last_index()
        appended = self.append_entries([Entry(0, 0)])
        assert appended, "an empty entry always has room"

    # -- elections

    def hup(self, transfer: bool = False) -> None:
        """Stand for election, if this member may."""
        if self.role is Role.LEADER or not self.is_promotable or self.has_unapplied_conf_change():
            return
        if transfer:
            self.campaign(MessageType.VOTE, transfer=True)
        elif self.config.pre_vote:
            self.campaign(MessageType.PRE_VOTE)
        else:
            self.campaign(MessageType.VOTE)

    def has_unapplied_conf_change(self) -> bool:
        """Whether a committed change of members waits to be applied: the majority may be another then."""
        low, high = self.log.applied + 1, self.log.committed + 1
        while low < high:
            entries = self.log.entries(low, high, 1 << 20)
            if any(entry.type is not EntryType.NORMAL for entry in entries):
                return True
            low += len(entries)
        return False

    def campaign(self, kind: MessageType, transfer: bool = False) -> None:
        """Ask the voters, oneself first (that answer comes when the vote is on disk)."""
        if kind is MessageType.PRE_VOTE:
            self.become_pre_candidate()
            term, response = self.term + 1, MessageType.PRE_VOTE_RESPONSE
        else:
            self.become_candidate()
            term, response = self.term, MessageType.VOTE_RESPONSE
        last_index, last_term = self.log.last_index(), self.log.last_term()
        for member in sorted(self.tracker.config.voters):
            if member == self.id:
                self.send(Message(response, to=member, term=term))
                continue
            self.send(
                Message(
                    kind,
                    to=member,
                    term=term,
                    index=last_index,
                    log_term=last_term,
                    context=CAMPAIGN_TRANSFER if transfer else b"",
                )
            )

    def poll(self, member: int, granted: bool) -> VoteResult:
        """Count a vote and say where the election stands."""
        self.tracker.record_vote(member, granted)
        return self.tracker.tally()[2]

    # -- time

    def tick(self) -> None:
        """One tick has passed."""
        if self.role is Role.LEADER:
            self._tick_leader()
        else:
            self.election_elapsed += 1
            if self.is_promotable and self.election_elapsed >= self.randomized_election_ticks:
                self.election_elapsed = 0
                self.step(Message(MessageType.HUP, sender=self.id))

    def _tick_leader(self) -> None:
        self.heartbeat_elapsed += 1
        self.election_elapsed += 1
        if self.election_elapsed >= self.config.election_ticks:
            self.election_elapsed = 0
            if self.config.check_quorum:
                self.step(Message(MessageType.CHECK_QUORUM, sender=self.id))
            if self.role is Role.LEADER and self.transferee != NO_ONE:
                self.transferee = NO_ONE  # the transfer took too long: go on leading
        if self.role is Role.LEADER and self.heartbeat_elapsed >= self.config.heartbeat_ticks:
            self.heartbeat_elapsed = 0
            self.step(Message(MessageType.BEAT, sender=self.id))

    # -- messages

    def step(self, message: Message) -> None:
        """Take a message. Raises ProposalDropped."""
        from shoal.raft.core import following, leading

        if not self._settle_term(message):
            return
        match message.type:
            case MessageType.HUP:
                self.hup()
            case MessageType.VOTE | MessageType.PRE_VOTE:
                self._answer_vote(message)
            case _ if self.role is Role.LEADER:
                leading.step(self, message)
            case _:
                following.step(self, message)

    def _settle_term(self, message: Message) -> bool:
        """Compare terms: follow a newer one, refuse an older one. Whether the message is to be looked at further."""
        if message.term == 0:
            return True  # local
        if message.term > self.term:
            return self._take_newer_term(message)
        if message.term < self.term:
            self._answer_older_term(message)
            return False
        return True

    def _take_newer_term(self, message: Message) -> bool:
        if message.type in (MessageType.VOTE, MessageType.PRE_VOTE):
            in_lease = (
                self.config.check_quorum
                and self.leader != NO_ONE
                and self.election_elapsed < self.config.election_ticks
            )
            if in_lease and message.context != CAMPAIGN_TRANSFER:
                return False  # a leader was heard of lately: whoever asks was cut off (thesis 4.2.3)
        if message.type is MessageType.PRE_VOTE:
            return True  # asking changes no term
        if message.type is MessageType.PRE_VOTE_RESPONSE and not message.reject:
            return True  # the term is the one that was asked about
        from_leader = message.type in (MessageType.APPEND, MessageType.HEARTBEAT, MessageType.SNAPSHOT)
        self.become_follower(message.term, message.sender if from_leader else NO_ONE)
        return True

    def _answer_older_term(self, message: Message) -> None:
        if message.type in (MessageType.HEARTBEAT, MessageType.APPEND):
            if self.config.check_quorum or self.config.pre_vote:
                # A leader of an older term learns of the newer one and steps down, instead of being stuck.
                self.send(Message(MessageType.APPEND_RESPONSE, to=message.sender))
        elif message.type is MessageType.PRE_VOTE:
            self._reject_vote(MessageType.PRE_VOTE_RESPONSE, message.sender)

    def _answer_vote(self, message: Message) -> None:
        can_vote = (
            self.vote == message.sender
            or (self.vote == NO_ONE and self.leader == NO_ONE)
            or (message.type is MessageType.PRE_VOTE and message.term > self.term)
        )
        pre = message.type is MessageType.PRE_VOTE
        response = MessageType.PRE_VOTE_RESPONSE if pre else MessageType.VOTE_RESPONSE
        # A learner votes as well: it may be a voter that has not learned so yet.
        if can_vote and self.log.is_up_to_date(message.log_term, message.index):
            self.send(Message(response, to=message.sender, term=message.term))
            if not pre:
                self.election_elapsed = 0
                self.vote = message.sender
        else:
            self._reject_vote(response, message.sender)

    def _reject_vote(self, response: MessageType, candidate: int) -> None:
        """Say no; one that is no voter (any more) says also how far the log is committed.

        When the leader of two removes itself and steps down before the other one knows that this is committed, that one
        asks it for its vote for ever: it must learn that no vote is needed. (As TiKV's raft does; etcd gets stuck.)
        """
        commit = 0 if self.id in self.tracker.config.voters else self.log.committed
        log_term = self.log.term_or_zero(commit)
        self.send(Message(response, to=candidate, term=self.term, reject=True, commit=commit, log_term=log_term))

    # -- the log

    def append_entries(self, entries: list[Entry]) -> bool:
        """Append a leader's entries with its term; False if too much is uncommitted already."""
        last = self.log.last_index()
        stamped = [
            replace(entry, term=self.term, index=last + position) for position, entry in enumerate(entries, start=1)
        ]
        if not self._reserve(stamped):
            return False
        last = self.log.append(stamped)
        # The leader's own acknowledgement comes when the entries are on disk.
        self.send(Message(MessageType.APPEND_RESPONSE, to=self.id, index=last))
        return True

    def _reserve(self, entries: list[Entry]) -> bool:
        most = self.config.uncommitted_bytes_most
        size = sum(len(entry.data) for entry in entries)
        # The first entry, and empty ones, always get in: or one large entry would never.
        if most and self.uncommitted_bytes > 0 and size > 0 and self.uncommitted_bytes + size > most:
            return False
        self.uncommitted_bytes += size
        return True

    def release(self, entries: list[Entry]) -> None:
        """Give the room of committed entries back."""
        self.uncommitted_bytes = max(0, self.uncommitted_bytes - sum(len(entry.data) for entry in entries))

    def applied_to(self, index: int) -> None:
        """The state machine has applied up to `index`; a leader leaves a joint configuration by itself."""
        old = self.log.applied
        self.log.applied_to(max(index, old))
        config = self.tracker.config
        if config.auto_leave and old <= self.pending_conf_index <= index and self.role is Role.LEADER:
            try:
                self.step(
                    Message(
                        MessageType.PROPOSE,
                        to=self.id,
                        sender=self.id,
                        entries=(Entry(0, 0, EntryType.CONF_CHANGE_V2),),
                    )
                )
            except ProposalDropped:
                return  # it is tried again when the next entry is applied

    # -- members

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """Take a committed change of members; returns the new members."""
        return self.switch_config(*self.work_out(change))

    def work_out(self, change: ConfChange) -> tuple[Config, dict[int, Progress]]:
        """Return what a change makes of the present members, without making it. Raises ConfChangeError."""
        changer = Changer(self.tracker, self.log.last_index())
        if change.leaves_joint:
            return changer.leave_joint()
        if change.enters_joint:
            return changer.enter_joint(change.auto_leave, change.changes)
        return changer.simple(change.changes)

    def switch_config(self, config: Config, progress: dict[int, Progress]) -> ConfState:
        """Take a configuration; a leader that is not in it steps down, one that is goes on under it."""
        from shoal.raft.core import leading

        self.tracker.config, self.tracker.progress = config, progress
        state = config.to_conf_state()
        own = progress.get(self.id)
        self.is_learner = own is not None and own.is_learner
        if (own is None or self.is_learner) and self.role is Role.LEADER:
            if self.config.step_down_on_removal:
                self.become_follower(self.term, NO_ONE)
            return state
        if self.role is not Role.LEADER or not state.voters:
            return state
        leading.after_conf_change(self)
        if self.transferee != NO_ONE and self.transferee not in self.tracker.config.voters:
            self.transferee = NO_ONE
        return state

    def broadcast_append(self) -> None:
        """Send every other member what it lacks."""
        from shoal.raft.core import leading

        leading.broadcast_append(self)


CAMPAIGN_TRANSFER = b"CampaignTransfer"

# Messages whose term is set by who sends them.
_OWN_TERM_TYPES = frozenset(
    {
        MessageType.VOTE,
        MessageType.VOTE_RESPONSE,
        MessageType.PRE_VOTE,
        MessageType.PRE_VOTE_RESPONSE,
    }
)
