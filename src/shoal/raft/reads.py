"""Linearizable reads (thesis 6.4): who waits, which rounds are under way, and what may be answered at which index.

One round confirms all reads that waited when it began. A round can be lost without a word (a message lost, a leader
gone), so it is asked again after an election timeout or when another leader is known.
"""

from __future__ import annotations

import asyncio
import os

from shoal.raft.core.messages import ReadState

NONCE_BYTES = 8


class Reads:
    """The reads of a member.

    Args:
        raft_id: of this member; contexts are unique over members and restarts, or a leader would mix up their rounds.
        ticks_to_answer: after this a round counts as lost.
    """

    def __init__(self, raft_id: int, ticks_to_answer: int) -> None:
        self._prefix = f"{raft_id:x}-{os.urandom(NONCE_BYTES).hex()}-"
        self._ticks_to_answer = ticks_to_answer
        self._number = 0
        self._next: list[asyncio.Future[int]] = []
        # By context, the oldest first. A later round holds the reads of those before it, which may yet be answered.
        self._rounds: dict[bytes, list[asyncio.Future[int]]] = {}
        self._asked_at_tick = 0
        self._is_lost = False
        self._confirmed: list[tuple[int, asyncio.Future[int]]] = []

    def add(self) -> asyncio.Future[int]:
        """Return a read that waits for the next round."""
        read: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._next.append(read)
        return read

    def ask_again(self) -> None:
        """Another leader is known: it knows nothing of the round under way."""
        self._is_lost = bool(self._rounds)

    def begin_round(self, tick: int) -> bytes | None:
        """Return the context of a round to ask for now, None if there is none to begin."""
        if self._rounds and not self._is_lost and tick - self._asked_at_tick < self._ticks_to_answer:
            return None
        carried = list(self._rounds.values())[-1] if self._rounds else []
        waiting = [read for read in (*carried, *self._next) if not read.done()]
        self._next, self._is_lost = [], False
        if not waiting:
            self._rounds.clear()
            return None
        self._number += 1
        self._asked_at_tick = tick
        context = f"{self._prefix}{self._number}".encode()
        self._rounds[context] = waiting
        return context

    def confirm(self, answer: ReadState) -> None:
        """Take the answer to a round; it answers those before it, too."""
        if answer.context not in self._rounds:
            return
        while self._rounds:
            context = next(iter(self._rounds))
            self._confirmed.extend((answer.index, read) for read in self._rounds.pop(context))
            if context == answer.context:
                return

    def release(self, applied: int) -> None:
        """Answer the confirmed reads whose index is applied."""
        still = []
        for index, read in self._confirmed:
            if read.done():
                continue
            if index > applied:
                still.append((index, read))
            else:
                read.set_result(applied)
        self._confirmed = still

    def fail(self, error: Exception) -> None:
        """Fail all."""
        reads = [*self._next, *(read for waiting in self._rounds.values() for read in waiting)]
        reads.extend(read for _, read in self._confirmed)
        self._next, self._rounds, self._confirmed = [], {}, []
        for read in reads:
            if not read.done():
                read.set_exception(error)
