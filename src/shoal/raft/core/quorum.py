"""Majorities, single and joint: what is committed, and who has won. Knows nothing else of raft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

# What an empty configuration has committed: it never stands in the way of the other half of a joint one.
EVERYTHING = (1 << 64) - 1


class VoteResult(StrEnum):
    """Where an election stands."""

    PENDING = "VotePending"
    LOST = "VoteLost"
    WON = "VoteWon"


AckedIndex = Callable[[int], int | None]


def majority_committed_index(voters: frozenset[int], acked_index: AckedIndex) -> int:
    """Return the highest index that a majority has acknowledged (None counts as 0)."""
    if not voters:
        return EVERYTHING
    acknowledged = sorted(acked_index(voter) or 0 for voter in voters)
    return acknowledged[len(acknowledged) - (len(acknowledged) // 2 + 1)]


def majority_vote_result(voters: frozenset[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return where an election stands; an empty configuration votes for everyone."""
    if not voters:
        return VoteResult.WON
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    missing = sum(1 for voter in voters if voter not in votes)
    quorum = len(voters) // 2 + 1
    if granted >= quorum:
        return VoteResult.WON
    return VoteResult.PENDING if granted + missing >= quorum else VoteResult.LOST


def joint_committed_index(incoming: frozenset[int], outgoing: frozenset[int], acked_index: AckedIndex) -> int:
    """Return the highest index that both majorities have acknowledged."""
    return min(
        majority_committed_index(incoming, acked_index),
        majority_committed_index(outgoing, acked_index),
    )


def joint_vote_result(incoming: frozenset[int], outgoing: frozenset[int], votes: Mapping[int, bool]) -> VoteResult:
    """Return where an election stands when both majorities must be won."""
    results = {majority_vote_result(incoming, votes), majority_vote_result(outgoing, votes)}
    if len(results) == 1:
        return results.pop()
    return VoteResult.LOST if VoteResult.LOST in results else VoteResult.PENDING
