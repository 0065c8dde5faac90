"""Ordered removal: a task that serves is told to stop when all nodes that balance to it have let go (architecture 4.5).

Held in memory of the leader only: another leader begins each anew. A node that does not acknowledge in time is named,
and waited for no longer.
"""

from __future__ import annotations

from collections.abc import Iterable

# what a node in session needs to change its kernel is milliseconds; one that is stuck costs a stop this much
PATIENCE_SECONDS = 2.0


class _Removal:
    def __init__(self, version: int, awaited: Iterable[str], deadline: float) -> None:
        self.version = version
        self.awaited = set(awaited)
        self.deadline = deadline


class Removals:
    """The tasks that are to stop and still take traffic somewhere. Times are of any clock that only rises."""

    def __init__(self) -> None:
        self._removals: dict[str, _Removal] = {}
        self._notes: dict[str, str] = {}

    def begin(self, task_id: str, version: int, awaited: Iterable[str], now: float) -> None:
        """Hold a task until the `awaited` nodes have acknowledged `version`; nothing for one that is held already."""
        nodes = tuple(awaited)
        if task_id not in self._removals and nodes:
            self._removals[task_id] = _Removal(version, nodes, now + PATIENCE_SECONDS)

    def is_held(self, task_id: str) -> bool:
        """Whether a task is still waited for."""
        return task_id in self._removals

    def acknowledge(self, node_id: str, version: int) -> tuple[str, ...]:
        """Take a node's acknowledgement of everything up to `version`; return the tasks that wait for nobody now."""
        for removal in self._removals.values():
            if version >= removal.version:
                removal.awaited.discard(node_id)
        return self._release()

    def forget_node(self, node_id: str) -> tuple[str, ...]:
        """Wait for a node no longer: it is down or gone. Returns the tasks that wait for nobody now."""
        for removal in self._removals.values():
            removal.awaited.discard(node_id)
        return self._release()

    def forget_task(self, task_id: str) -> None:
        """Forget a task: it has ended."""
        self._removals.pop(task_id, None)
        self._notes.pop(task_id, None)

    def next_deadline(self) -> float | None:
        """Return when the first is waited for no longer."""
        return min((removal.deadline for removal in self._removals.values()), default=None)

    def expire(self, now: float) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Release what has waited long enough; return each task with the nodes that kept silent."""
        late = {id_: removal for id_, removal in self._removals.items() if removal.deadline <= now}
        for id_ in late:
            del self._removals[id_]
        return tuple((id_, tuple(sorted(removal.awaited))) for id_, removal in late.items())

    def note(self, task_id: str, text: str) -> None:
        """Keep what is to be said about a task's end."""
        self._notes[task_id] = text

    def note_of(self, task_id: str) -> str:
        """Return what is to be said about a task's end; usually nothing."""
        return self._notes.get(task_id, "")

    def _release(self) -> tuple[str, ...]:
        free = tuple(id_ for id_, removal in self._removals.items() if not removal.awaited)
        for id_ in free:
            del self._removals[id_]
        return free
