"""Changes of members: from a configuration and steps to the next one, and the invariants between them.

A simple change moves one voter at most; anything more goes through a joint configuration (thesis 4.3). Nothing is
changed in place: a caller gets the new configuration and progress, or an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from shoal.raft.core.messages import ConfChangeSingle, ConfChangeType, ConfState
from shoal.raft.core.tracker import Config, Progress, Tracker

Result = tuple[Config, dict[int, Progress]]


class ConfChangeError(ValueError):
    """A change that would break the rules."""


class Changer:
    """Works out changes.

    Args:
        tracker: the present configuration and progress.
        last_index: of the log: new members are first sent what comes after it.
    """

    def __init__(self, tracker: Tracker, last_index: int) -> None:
        self._tracker = tracker
        self._last_index = last_index

    def enter_joint(self, auto_leave: bool, changes: Iterable[ConfChangeSingle]) -> Result:
        """Go into a joint configuration: the present one becomes the outgoing half."""
        config, progress = self._begin()
        if config.is_joint:
            raise ConfChangeError("config is already joint")
        if not config.incoming:
            raise ConfChangeError("can't make a zero-voter config joint")
        config = replace(config, outgoing=config.incoming)
        config = self._apply(config, progress, changes)
        return _checked(replace(config, auto_leave=auto_leave), progress)

    def leave_joint(self) -> Result:
        """Leave the joint configuration: the incoming half stays."""
        config, progress = self._begin()
        if not config.is_joint:
            raise ConfChangeError("can't leave a non-joint config")
        for member in config.learners_next:
            progress[member].is_learner = True
        learners = config.learners | config.learners_next
        for member in config.outgoing - config.incoming - learners:
            del progress[member]
        config = replace(config, learners=learners, learners_next=frozenset(), outgoing=frozenset(), auto_leave=False)
        return _checked(config, progress)

    def simple(self, changes: Iterable[ConfChangeSingle]) -> Result:
        """Change one voter, or any number of learners."""
        config, progress = self._begin()
        if config.is_joint:
            raise ConfChangeError("can't apply simple config change in joint config")
        before = config.incoming
        config = self._apply(config, progress, changes)
        if len(before ^ config.incoming) > 1:
            raise ConfChangeError("more than one voter changed without entering joint config")
        return _checked(config, progress)

    def _begin(self) -> Result:
        progress = {member: replace(known) for member, known in self._tracker.progress.items()}
        return _checked(self._tracker.config, progress)

    def _apply(self, config: Config, progress: dict[int, Progress], changes: Iterable[ConfChangeSingle]) -> Config:
        for change in changes:
            if change.node_id == 0:
                continue  # a change that was taken back before it was applied
            match change.type:
                case ConfChangeType.ADD_NODE:
                    config = self._make_voter(config, progress, change.node_id)
                case ConfChangeType.ADD_LEARNER:
                    config = self._make_learner(config, progress, change.node_id)
                case ConfChangeType.REMOVE_NODE:
                    config = _remove(config, progress, change.node_id)
                case ConfChangeType.UPDATE_NODE:
                    pass
        if not config.incoming:
            raise ConfChangeError("removed all voters")
        return config

    def _make_voter(self, config: Config, progress: dict[int, Progress], member: int) -> Config:
        if member not in progress:
            return self._add(config, progress, member, is_learner=False)
        progress[member].is_learner = False
        return replace(
            config,
            learners=config.learners - {member},
            learners_next=config.learners_next - {member},
            incoming=config.incoming | {member},
        )

    def _make_learner(self, config: Config, progress: dict[int, Progress], member: int) -> Config:
        if member not in progress:
            return self._add(config, progress, member, is_learner=True)
        known = progress[member]
        if known.is_learner:
            return config
        config = _remove(config, progress, member)
        progress[member] = known
        # While it still votes in the outgoing half it cannot be a learner yet.
        if member in config.outgoing:
            return replace(config, learners_next=config.learners_next | {member})
        known.is_learner = True
        return replace(config, learners=config.learners | {member})

    def _add(self, config: Config, progress: dict[int, Progress], member: int, is_learner: bool) -> Config:
        if is_learner:
            config = replace(config, learners=config.learners | {member})
        else:
            config = replace(config, incoming=config.incoming | {member})
        new = self._tracker.new_progress(match=0, next_=max(self._last_index, 1), is_learner=is_learner)
        # It counts as active until the next check, or the leader would step down the moment it adds a member.
        new.recent_active = True
        progress[member] = new
        return config


def _remove(config: Config, progress: dict[int, Progress], member: int) -> Config:
    if member not in progress:
        return config
    config = replace(
        config,
        incoming=config.incoming - {member},
        learners=config.learners - {member},
        learners_next=config.learners_next - {member},
    )
    if member not in config.outgoing:
        del progress[member]
    return config


def _checked(config: Config, progress: dict[int, Progress]) -> Result:
    """Assert what must hold of every configuration."""
    for member in config.voters | config.learners | config.learners_next:
        assert member in progress, f"no progress for {member}"
    for member in config.learners_next:
        assert member in config.outgoing, f"{member} is in learners_next, but not in the outgoing half"
        assert not progress[member].is_learner, f"{member} is in learners_next, but already a learner"
    for member in config.learners:
        assert member not in config.voters, f"{member} is a learner and a voter"
        assert progress[member].is_learner, f"{member} is in learners, but not marked so"
    if not config.is_joint:
        assert not config.learners_next, "learners_next outside a joint configuration"
        assert not config.auto_leave, "auto_leave outside a joint configuration"
    return config, progress


def restore(tracker: Tracker, last_index: int, state: ConfState) -> Result:
    """Return the configuration a snapshot holds, by the changes that lead to it from nothing."""

    def steps(kind: ConfChangeType, members: Iterable[int]) -> list[ConfChangeSingle]:
        return [ConfChangeSingle(kind, member) for member in members]

    incoming = [
        *steps(ConfChangeType.REMOVE_NODE, state.voters_outgoing),
        *steps(ConfChangeType.ADD_NODE, state.voters),
        *steps(ConfChangeType.ADD_LEARNER, state.learners),
        *steps(ConfChangeType.ADD_LEARNER, state.learners_next),
    ]
    for change in steps(ConfChangeType.ADD_NODE, state.voters_outgoing) if state.voters_outgoing else incoming:
        tracker.config, tracker.progress = Changer(tracker, last_index).simple([change])
    if state.voters_outgoing:
        return Changer(tracker, last_index).enter_joint(state.auto_leave, incoming)
    return tracker.config, tracker.progress
