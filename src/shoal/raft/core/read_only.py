"""Reads that wait for a quorum to confirm who leads (thesis 6.4): one round of heartbeats serves all that wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from shoal.raft.core.messages import Message


@dataclass(slots=True)
class _Waiting:
    request: Message
    index: int
    acknowledged: set[int] = field(default_factory=set)


class ReadOnly:
    """The reads under way in one term of one leader, in order of arrival.

    Each has a round of heartbeats of its own number, which the answers carry. (etcd takes the context of the request. A
    request that arrives twice then stands behind younger reads, and late answers to its first round release them: a
    stale read.)
    """

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Waiting] = {}
        self._rounds = 0

    def add(self, commit_index: int, request: Message) -> bytes:
        """Let a read wait that may be served at `commit_index`; returns the context of the round that confirms it."""
        self._rounds += 1
        context = b"%d" % self._rounds
        self._waiting[context] = _Waiting(request, commit_index)
        return context

    def acknowledge(self, member: int, context: bytes) -> set[int]:
        """Note that a member confirmed a round; returns all who did."""
        waiting = self._waiting.get(context)
        if waiting is None:
            return set()
        waiting.acknowledged.add(member)
        return waiting.acknowledged

    def advance(self, context: bytes) -> list[tuple[Message, int]]:
        """Release a confirmed read and all before it, with their indexes."""
        released: list[tuple[Message, int]] = []
        if context not in self._waiting:
            return released
        while self._waiting:
            first = next(iter(self._waiting))
            waiting = self._waiting.pop(first)
            released.append((waiting.request, waiting.index))
            if first == context:
                break
        return released

    def last_context(self) -> bytes:
        """Return the context of the youngest round, empty if none is under way."""
        return next(reversed(self._waiting), b"")
