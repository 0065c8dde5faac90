"""The contract with whoever does the IO: `ready()` says what to do, `advance()` that it was done.

The order is: write `entries`, `hard_state` and `snapshot` durably; then send `messages`; then apply
`committed_entries`; then call `advance`.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.raft.core.log import Storage
from shoal.raft.core.messages import (
    LOCAL_TYPES,
    RESPONSE_TYPES,
    ConfChange,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ReadState,
    SnapshotMeta,
    SoftState,
    encode_conf_change,
)
from shoal.raft.core.raft import Raft, RaftConfig


@dataclass(frozen=True, slots=True)
class Ready:
    """What is to be done.

    Attributes:
        soft_state: if it changed.
        hard_state: if it changed: on disk before any message leaves.
        read_states: reads that may be served once their index is applied.
        entries: on disk before any message leaves, over any of the same index or after.
        snapshot: on disk, and the state machine restored from it, before anything is applied.
        committed_entries: to apply, after `entries` are on disk.
        messages: to send, after what is above is on disk.
        must_sync: whether something of it must be synced, and not only written.
    """

    soft_state: SoftState | None
    hard_state: HardState | None
    read_states: tuple[ReadState, ...]
    entries: tuple[Entry, ...]
    snapshot: SnapshotMeta | None
    committed_entries: tuple[Entry, ...]
    messages: tuple[Message, ...]
    must_sync: bool


class RawNode:
    """A member, to be driven from one place."""

    def __init__(self, config: RaftConfig, storage: Storage) -> None:
        self.raft = Raft(config, storage)
        self._previous_soft = self.raft.soft_state()
        self._previous_hard = self.raft.hard_state()
        self._steps_on_advance: list[Message] = []
        self._snapshots_held: list[Message] = []
        self._accepted: Ready | None = None

    def tick(self) -> None:
        """One tick has passed."""
        self.raft.tick()

    def campaign(self) -> None:
        """Stand for election now."""
        self.raft.step(Message(MessageType.HUP))

    def propose(self, data: bytes) -> None:
        """Propose an entry. Raises ProposalDropped."""
        entry = Entry(0, 0, EntryType.NORMAL, data)
        self.raft.step(Message(MessageType.PROPOSE, sender=self.raft.id, entries=(entry,)))

    def propose_conf_change(self, change: ConfChange) -> None:
        """Propose a change of members. Raises ProposalDropped.

        While another change is not applied yet, an empty entry takes its place: whoever waits for the entry sees it by
        the entry's type.
        """
        entry = Entry(0, 0, EntryType.CONF_CHANGE_V2, encode_conf_change(change))
        self.raft.step(Message(MessageType.PROPOSE, sender=self.raft.id, entries=(entry,)))

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """Take a change of members that was committed; returns the new members."""
        return self.raft.apply_conf_change(change)

    def step(self, message: Message) -> None:
        """Take a message from another member.

        Ignored are responses of members that are not known, and what only the member itself may say: local messages,
        and proposals, which members do not pass on.
        """
        if message.type in LOCAL_TYPES or message.type is MessageType.PROPOSE:
            return
        if message.type in RESPONSE_TYPES and message.sender not in self.raft.tracker.progress:
            return
        if message.type is MessageType.SNAPSHOT and self._accepted is not None:
            # It brings its own members. Changes that were handed out before and are applied after it would spoil them.
            self._snapshots_held.append(message)
            return
        self.raft.step(message)

    def report_unreachable(self, member: int) -> None:
        """Tell that a message to a member could not be sent."""
        self.raft.step(Message(MessageType.UNREACHABLE, sender=member))

    def report_snapshot(self, member: int, ok: bool) -> None:
        """Tell how sending a snapshot ended."""
        self.raft.step(Message(MessageType.SNAPSHOT_STATUS, sender=member, reject=not ok))

    def transfer_leadership(self, member: int) -> None:
        """Hand the lead to a member; a transfer to oneself takes one under way back."""
        self.raft.step(Message(MessageType.TRANSFER_LEADER, sender=member))

    def read_index(self, context: bytes) -> None:
        """Ask from which index on reads are fresh; the answer is a ReadState with `context`."""
        self.raft.step(Message(MessageType.READ_INDEX, entries=(Entry(0, 0, EntryType.NORMAL, context),)))

    def has_ready(self) -> bool:
        """Whether there is something to do."""
        raft, log = self.raft, self.raft.log
        hard = raft.hard_state()
        return bool(
            raft.messages
            or raft.messages_after_append
            or raft.read_states
            or log.next_unstable()
            or log.next_snapshot() is not None
            or log.has_next_committed()
            or (hard != HardState() and hard != self._previous_hard)
            or raft.soft_state() != self._previous_soft
        )

    def ready(self) -> Ready:
        """Return what is to be done. Call `advance` before the next."""
        assert self._accepted is None, "the last Ready was not advanced"
        raft, log = self.raft, self.raft.log
        entries = tuple(log.next_unstable())
        hard, soft = raft.hard_state(), raft.soft_state()
        to_others = [message for message in raft.messages_after_append if message.to != raft.id]
        ready = Ready(
            soft_state=soft if soft != self._previous_soft else None,
            hard_state=hard if hard != self._previous_hard and hard != HardState() else None,
            read_states=tuple(raft.read_states),
            entries=entries,
            snapshot=log.next_snapshot(),
            committed_entries=tuple(log.next_committed()),
            messages=(*raft.messages, *to_others),
            must_sync=bool(entries) or hard.vote != self._previous_hard.vote or hard.term != self._previous_hard.term,
        )
        self._accept(ready)
        return ready

    def _accept(self, ready: Ready) -> None:
        raft = self.raft
        self._previous_soft = ready.soft_state or self._previous_soft
        self._previous_hard = ready.hard_state or self._previous_hard
        raft.read_states = []
        # What the member promised itself holds once it is on disk: that is what `advance` says.
        self._steps_on_advance = [message for message in raft.messages_after_append if message.to == raft.id]
        raft.messages, raft.messages_after_append = [], []
        raft.log.accept(list(ready.entries), list(ready.committed_entries))
        self._accepted = ready

    def advance(self) -> None:
        """Tell that all of the last Ready was done."""
        ready, self._accepted = self._accepted, None
        assert ready is not None, "there was no Ready to advance"
        raft = self.raft
        if ready.entries:
            raft.log.stable_to(ready.entries[-1].index, ready.entries[-1].term)
        if ready.snapshot is not None:
            raft.log.stable_snapshot_to(ready.snapshot.index)
            raft.applied_to(ready.snapshot.index)
        if ready.committed_entries:
            raft.applied_to(ready.committed_entries[-1].index)
            raft.release(list(ready.committed_entries))
        steps = [*self._steps_on_advance, *self._snapshots_held]
        self._steps_on_advance, self._snapshots_held = [], []
        for message in steps:
            raft.step(message)
