"""Who belongs to the group, seen from this member: changes one at a time, transfers of the lead, who is heard of.

A change of members carries data of the state machine, which is applied at the same index.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from shoal.errors import NotLeader, Unavailable
from shoal.raft.core.messages import ConfChange, ConfChangeSingle, ConfChangeType
from shoal.raft.core.raft import Raft, Role
from shoal.raft.core.rawnode import RawNode
from shoal.raft.core.tracker import Progress, ProgressState

CHANGE_TIMEOUT_SECONDS = 20.0
CATCH_UP_TIMEOUT_SECONDS = 60.0
TRANSFER_TIMEOUT_SECONDS = 10.0
# A learner that lacks no more than this may vote: a commit does not wait for it noticeably.
CATCH_UP_ENTRIES = 100


class ChangeRefused(Exception):
    """The core put an empty entry in the place of a change, because another was under way."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """A member as this one sees it. `match_index`: how far its log is known to agree (only a leader knows)."""

    raft_id: int
    is_voter: bool
    is_reachable: bool
    match_index: int


class _WaitUntil(Protocol):
    async def __call__(self, holds: Callable[[], bool]) -> None: ...


class Membership:
    """The members of the group.

    Args:
        node: the core.
        election_ticks: whoever is not heard of for so long counts as unreachable.
        propose: replicates a change; returns what applying its data returned. Raises ChangeRefused, NotLeader.
        can_be_joined: whether a new member can be given everything.
        wait_until: returns when a condition on the core's state holds, raises what the condition raises.
    """

    def __init__(
        self,
        node: RawNode,
        election_ticks: int,
        propose: Callable[[ConfChange], Awaitable[object]],
        can_be_joined: Callable[[], bool],
        wait_until: _WaitUntil,
    ) -> None:
        self._node = node
        self._raft: Raft = node.raft
        self._election_ticks = election_ticks
        self._propose = propose
        self._can_be_joined = can_be_joined
        self._wait_until = wait_until
        self._turn = asyncio.Lock()
        self._heard_at_tick: dict[int, int] = {}
        self._unreachable: set[int] = set()
        self._tick = 0

    # -- who is heard of

    def note_tick(self) -> None:
        """Time goes by in ticks, so that a stall of this member makes nobody unreachable."""
        self._tick += 1

    def note_heard(self, raft_id: int) -> None:
        """A message of a member came."""
        self._heard_at_tick[raft_id] = self._tick
        self._unreachable.discard(raft_id)

    def note_reachable(self, raft_id: int) -> None:
        """A member can be sent to again: a follower sends others nothing, and would not find out."""
        self._unreachable.discard(raft_id)

    def note_unreachable(self, raft_id: int) -> None:
        """A message to a member could not be sent."""
        self._unreachable.add(raft_id)

    def is_reachable(self, raft_id: int) -> bool:
        """Whether a member was heard of lately; a follower hears only of its leader, and believes well of others."""
        if raft_id == self._raft.id:
            return True
        if raft_id not in self._raft.tracker.progress or raft_id in self._unreachable:
            return False
        if self._raft.role is not Role.LEADER and raft_id != self._raft.leader:
            return True
        heard = self._heard_at_tick.get(raft_id)
        return heard is not None and self._tick - heard <= self._election_ticks

    def has_quorum(self) -> bool:
        """Whether a quorum stands behind this member's leader, as far as can be told from here."""
        raft = self._raft
        if raft.role is Role.LEADER:
            return self._is_quorum(raft.tracker.config.voters)
        return raft.leader != 0 and raft.election_elapsed <= self._election_ticks

    def can_remove(self, raft_id: int) -> bool:
        """Whether the voters that stay and are reachable are a quorum of those that stay (as SwarmKit asks)."""
        return self._is_quorum(self._raft.tracker.config.voters - {raft_id})

    def _is_quorum(self, voters: frozenset[int]) -> bool:
        return sum(self.is_reachable(voter) for voter in voters) >= len(voters) // 2 + 1

    def view(self) -> tuple[MemberView, ...]:
        """Return all members, in order of id."""
        voters = self._raft.tracker.config.voters
        return tuple(
            MemberView(member, member in voters, self.is_reachable(member), progress.match)
            for member, progress in self._raft.tracker.members()
        )

    # -- changes

    async def add_learner(self, raft_id: int, data: bytes) -> object:
        """Add a member that does not vote yet; one that is a member already stays what it is."""

        def step() -> ConfChangeType:
            known = raft_id in self._raft.tracker.progress
            return ConfChangeType.UPDATE_NODE if known else ConfChangeType.ADD_LEARNER

        return await self._change(raft_id, data, step)

    async def promote(self, raft_id: int, data: bytes) -> object:
        """Make a learner a voter, once it has caught up."""
        try:
            async with asyncio.timeout(CATCH_UP_TIMEOUT_SECONDS):
                await self._wait_until(lambda: self._has_caught_up(raft_id))
        except TimeoutError:
            raise Unavailable(
                f"the new manager has not caught up with the log in {CATCH_UP_TIMEOUT_SECONDS:.0f} s: "
                "see that it reaches the other managers and try again"
            ) from None

        def step() -> ConfChangeType:
            self._progress(raft_id)
            return ConfChangeType.ADD_NODE

        return await self._change(raft_id, data, step)

    async def remove(self, raft_id: int, data: bytes) -> object:
        """Remove a member."""

        def step() -> ConfChangeType:
            if self._raft.tracker.config.voters == {raft_id}:
                raise Unavailable("the last manager cannot be removed")
            return ConfChangeType.REMOVE_NODE

        return await self._change(raft_id, data, step)

    async def _change(self, raft_id: int, data: bytes, step: Callable[[], ConfChangeType]) -> object:
        """Make a change when those before it are applied; `step` says which, as late as possible."""
        try:
            async with asyncio.timeout(CHANGE_TIMEOUT_SECONDS), self._turn:
                while True:
                    await self._wait_until(self._may_change)
                    change = ConfChange((ConfChangeSingle(step(), raft_id),), context=data)
                    try:
                        return await self._propose(change)
                    except ChangeRefused:
                        continue
        except TimeoutError:
            raise Unavailable(
                f"the change of managers was not made in {CHANGE_TIMEOUT_SECONDS:.0f} s; it may yet be made"
            ) from None

    def _may_change(self) -> bool:
        self._require_lead()
        is_settled = self._raft.pending_conf_index <= self._raft.log.applied and self._raft.transferee == 0
        return is_settled and self._can_be_joined()

    def _has_caught_up(self, raft_id: int) -> bool:
        progress = self._progress(raft_id)
        lacking = self._raft.log.last_index() - progress.match
        return not progress.is_learner or (
            progress.state is ProgressState.REPLICATE and lacking <= CATCH_UP_ENTRIES and self.is_reachable(raft_id)
        )

    def _progress(self, raft_id: int) -> Progress:
        self._require_lead()
        progress = self._raft.tracker.progress.get(raft_id)
        if progress is None:
            raise Unavailable("that node is no member of the group of managers")
        return progress

    def _require_lead(self) -> None:
        if self._raft.role is not Role.LEADER:
            raise NotLeader("this manager does not lead the swarm")

    # -- the lead

    async def transfer_lead(self, to: int | None) -> None:
        """Hand the lead to a voter, by default the reachable one that lacks least; returns when it leads."""
        self._require_lead()
        raft = self._raft
        heirs = [view for view in self.view() if view.is_voter and view.raft_id != raft.id]
        if to is None:
            reachable = [view for view in heirs if view.is_reachable]
            if not reachable:
                raise Unavailable("no other manager is reachable that could take the lead")
            to = max(reachable, key=lambda view: view.match_index).raft_id
        elif to == raft.id:
            return
        elif to not in {view.raft_id for view in heirs}:
            raise Unavailable("that node is no voting manager: it cannot take the lead")
        heir = to

        def has_ended() -> bool:
            return (raft.role is Role.LEADER and raft.transferee != heir) or raft.leader not in (0, raft.id)

        self._node.transfer_leadership(heir)
        try:
            async with asyncio.timeout(TRANSFER_TIMEOUT_SECONDS):
                await self._wait_until(has_ended)
        except TimeoutError:
            raise Unavailable("nobody has taken the lead in time") from None
        if raft.role is Role.LEADER:
            raise Unavailable("the other manager did not take the lead in time: this one goes on leading")
