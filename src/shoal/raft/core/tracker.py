"""What a leader knows of each member: how far its log agrees, and how fast it may be sent more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from shoal.raft.core.messages import ConfState
from shoal.raft.core.quorum import VoteResult, joint_committed_index, joint_vote_result


class ProgressState(StrEnum):
    """How a member is being sent entries.

    PROBE: one message at a time, until it is known where its log agrees. REPLICATE: a stream. SNAPSHOT: nothing until
    the snapshot it was sent has arrived.
    """

    PROBE = "StateProbe"
    REPLICATE = "StateReplicate"
    SNAPSHOT = "StateSnapshot"


class Inflights:
    """The appends that are on their way to a member: a bounded window, by their last index and size."""

    def __init__(self, messages_most: int, bytes_most: int) -> None:
        self._messages_most = messages_most
        self._bytes_most = bytes_most
        self._window: list[tuple[int, int]] = []
        self.byte_count = 0

    def __len__(self) -> int:
        return len(self._window)

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be sent now."""
        return len(self._window) >= self._messages_most or (0 < self._bytes_most <= self.byte_count)

    def add(self, last_index: int, byte_count: int) -> None:
        """Note an append that was sent."""
        assert not self.is_full, "appends are sent only into a window with room"
        self._window.append((last_index, byte_count))
        self.byte_count += byte_count

    def free_to(self, index: int) -> None:
        """Forget the appends up to `index`: they have arrived."""
        count = 0
        for last_index, byte_count in self._window:
            if last_index > index:
                break
            count += 1
            self.byte_count -= byte_count
        del self._window[:count]

    def reset(self) -> None:
        """Forget all."""
        self._window.clear()
        self.byte_count = 0


@dataclass(slots=True)
class Progress:
    """One member as the leader sees it. `match` is known to agree, `next` is sent next."""

    match: int
    next: int
    inflights: Inflights
    is_learner: bool = False
    state: ProgressState = ProgressState.PROBE
    pending_snapshot: int = 0
    recent_active: bool = False
    # Whether an append that is under way makes the next one wait (PROBE, or a full window).
    append_flow_paused: bool = False
    sent_commit: int = 0

    def _reset(self, state: ProgressState) -> None:
        self.append_flow_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.reset()

    def become_probe(self) -> None:
        """Probe where the log agrees: after a rejection, or when a snapshot has arrived."""
        if self.state is ProgressState.SNAPSHOT:
            pending = self.pending_snapshot
            self._reset(ProgressState.PROBE)
            self.next = max(self.match + 1, pending + 1)
        else:
            self._reset(ProgressState.PROBE)
            self.next = self.match + 1
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """Stream: the log is known to agree up to `match`."""
        self._reset(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """Wait for a snapshot that reaches `index`."""
        self._reset(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent_entries(self, count: int, byte_count: int) -> None:
        """Note that `count` entries (perhaps none) were sent from `next` on."""
        if self.state is ProgressState.REPLICATE:
            if count > 0:
                self.next += count
                self.inflights.add(self.next - 1, byte_count)
            self.append_flow_paused = self.inflights.is_full
        elif self.state is ProgressState.PROBE:
            if count > 0:
                self.append_flow_paused = True
        else:
            raise AssertionError("nothing is sent to a member that waits for a snapshot")

    def may_update(self, index: int) -> bool:
        """Take an acknowledgement up to `index`; whether it said something new."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.append_flow_paused = False
        return True

    def may_decrease(self, rejected: int, match_hint: int) -> bool:
        """Take a rejection of an append after `rejected`; whether it was not an old one."""
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
            self.sent_commit = min(self.sent_commit, self.next - 1)
            return True
        if self.next - 1 != rejected:
            return False
        self.next = max(min(rejected, match_hint + 1), self.match + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)
        self.append_flow_paused = False
        return True

    @property
    def is_paused(self) -> bool:
        """Whether entries may not be sent now."""
        return self.state is ProgressState.SNAPSHOT or self.append_flow_paused

    def can_bump_commit(self, index: int) -> bool:
        """Whether an empty append would tell this member a commit index it does not know."""
        return index > self.sent_commit and self.sent_commit < self.next - 1

    def __str__(self) -> str:
        text = f"{self.state} match={self.match} next={self.next}"
        if self.is_learner:
            text += " learner"
        if self.is_paused:
            text += " paused"
        if self.pending_snapshot > 0:
            text += f" pendingSnap={self.pending_snapshot}"
        if not self.recent_active:
            text += " inactive"
        if len(self.inflights):
            text += f" inflight={len(self.inflights)}"
            if self.inflights.is_full:
                text += "[full]"
        return text


@dataclass(frozen=True, slots=True)
class Config:
    """The members. `outgoing` is not empty while the configuration is joint.

    A voter that becomes a learner through a joint configuration waits in `learners_next`, since it still votes in the
    outgoing half.
    """

    incoming: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def is_joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    @property
    def voters(self) -> frozenset[int]:
        """Everyone who votes."""
        return self.incoming | self.outgoing

    def to_conf_state(self) -> ConfState:
        """Return the form that snapshots hold."""
        return ConfState(
            voters=tuple(sorted(self.incoming)),
            voters_outgoing=tuple(sorted(self.outgoing)),
            learners=tuple(sorted(self.learners)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=self.auto_leave,
        )

    def __str__(self) -> str:
        def ids(members: frozenset[int]) -> str:
            return "(" + " ".join(map(str, sorted(members))) + ")"

        text = f"voters={ids(self.incoming)}"
        if self.outgoing:
            text += f"&&{ids(self.outgoing)}"
        if self.learners:
            text += f" learners={ids(self.learners)}"
        if self.learners_next:
            text += f" learners_next={ids(self.learners_next)}"
        if self.auto_leave:
            text += " autoleave"
        return text


@dataclass(slots=True)
class Tracker:
    """The members, what is known of each, and the votes of the present election."""

    inflight_messages_most: int = 256
    inflight_bytes_most: int = 0
    config: Config = field(default_factory=Config)
    progress: dict[int, Progress] = field(default_factory=dict)
    votes: dict[int, bool] = field(default_factory=dict)

    def new_progress(self, match: int, next_: int, is_learner: bool = False) -> Progress:
        """Return the progress of a member of whom nothing is known."""
        inflights = Inflights(self.inflight_messages_most, self.inflight_bytes_most)
        return Progress(match=match, next=next_, inflights=inflights, is_learner=is_learner)

    def members(self) -> Iterator[tuple[int, Progress]]:
        """Iterate over the members in order of id, so that every run does the same."""
        for member in sorted(self.progress):
            yield member, self.progress[member]

    @property
    def committed(self) -> int:
        """The highest index that the voters have acknowledged."""

        def acked(member: int) -> int | None:
            progress = self.progress.get(member)
            return None if progress is None else progress.match

        return joint_committed_index(self.config.incoming, self.config.outgoing, acked)

    @property
    def is_singleton(self) -> bool:
        """Whether one voter decides alone."""
        return len(self.config.incoming) == 1 and not self.config.outgoing

    def is_quorum_active(self) -> bool:
        """Whether the leader has lately heard from a quorum."""
        active = {
            member: progress.recent_active for member, progress in self.progress.items() if not progress.is_learner
        }
        return joint_vote_result(self.config.incoming, self.config.outgoing, active) is VoteResult.WON

    def reset_votes(self) -> None:
        """Begin a new count."""
        self.votes = {}

    def record_vote(self, member: int, granted: bool) -> None:
        """Count a vote; a member's first word counts."""
        self.votes.setdefault(member, granted)

    def tally(self) -> tuple[int, int, VoteResult]:
        """Return votes for, votes against (of members), and where the election stands."""
        counted = [
            self.votes[member]
            for member, progress in self.progress.items()
            if member in self.votes and not progress.is_learner
        ]
        result = joint_vote_result(self.config.incoming, self.config.outgoing, self.votes)
        return counted.count(True), counted.count(False), result
