"""What the store asks of a consensus engine: raft here, etcd for those who outgrow it (targets.md).

The store proposes bytes and is handed the committed sequence; raft's particulars stay behind these two protocols.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol


class StateMachine(Protocol):
    """What a consensus engine drives. All calls come from one thread, in log order."""

    def apply(self, index: int, data: bytes) -> object:
        """Apply the committed entry at `index`; the result goes to whoever proposed it on this member."""

    def snapshot(self) -> Iterator[bytes]:
        """Yield the state as of the last applied entry, in chunks; the state at the call is what is written."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state by a snapshot's."""


class Consensus(Protocol):
    """A replicated log."""

    @property
    def is_leader(self) -> bool:
        """Whether this member leads and has applied an entry of its own term."""

    @property
    def leader_id(self) -> int:
        """The raft id of the leader, 0 if none is known."""

    @property
    def applied_index(self) -> int:
        """The index of the last entry applied here."""

    async def propose(self, data: bytes) -> object:
        """Replicate `data`; return what `apply` returned for it here.

        Raises:
            NotLeader: this member does not lead, or lost the lead before the entry was committed.
            Unavailable: no quorum answered in time; the entry may yet be committed.
        """

    async def read_barrier(self) -> int:
        """Return once everything committed before the call is applied here; the index up to which that holds."""
