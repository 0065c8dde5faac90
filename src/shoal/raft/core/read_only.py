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
    """The reads under way, in order of arrival."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, _Waiting] = {}

    def add(self, commit_index: int, request: Message) -> None:
        """Let a read wait; `commit_index` is what it may be served at."""
        self._waiting.setdefault(request.entries[0].data, _Waiting(request, commit_index))

    def acknowledge(self, member: int, context: bytes) -> set[int]:
        """Note that a member confirmed; returns all who did."""
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
        """Return the context of the youngest read, empty if none waits."""
        return next(reversed(self._waiting), b"")
