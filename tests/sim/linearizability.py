"""Whether a history of concurrent operations on one object could have happened one after the other (Wing and Gong).

Every operation that was answered takes effect once, between its call and its answer; one whose outcome nobody knows may
take effect at any time after its call, or never. Positions that were seen before are not searched again (Lowe).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

NEVER = float("inf")
POSITIONS_MOST = 2_000_000


@dataclass(frozen=True)
class Operation:
    """An operation. `called_at` and `answered_at` order it; `answered_at` NEVER: nobody knows its outcome."""

    name: str
    arguments: tuple[Any, ...]
    outcome: Any
    called_at: float
    answered_at: float = NEVER
    who: str = ""

    @property
    def is_known(self) -> bool:
        return self.answered_at != NEVER


# The state after an operation, or REFUSED if it cannot have come out so in that state.
REFUSED = object()
Step = Callable[[Any, Operation], Any]


def is_linearizable(operations: Iterable[Operation], step: Step, initial: Hashable) -> bool:
    """Whether there is an order of the operations that `step` allows from `initial` on."""
    history = sorted(operations, key=lambda operation: operation.called_at)
    known = 0
    for position, operation in enumerate(history):
        if operation.is_known:
            known |= 1 << position
    seen: set[tuple[int, Hashable]] = set()
    stack: list[tuple[int, Any]] = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & known == known:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > POSITIONS_MOST:
            raise AssertionError(f"a history of {len(history)} operations is too long to be judged")
        first_answer = min(o.answered_at for p, o in enumerate(history) if not done >> p & 1)
        for position, operation in enumerate(history):
            if operation.called_at > first_answer:
                break
            if done >> position & 1:
                continue
            after = step(state, operation)
            if after is not REFUSED:
                stack.append((done | 1 << position, after))
    return False


def service_step(state: Any, operation: Operation) -> Any:
    """What a service of one name does. Its state is None (there is none) or (birth, tag), both unique to a write.

    create(birth): done, taken. read(): what was seen. update(birth, old tag, new tag): done, stale, missing: for
    the service that was read, if it has not changed since. remove(birth): done, missing.
    """
    outcome = operation.outcome if operation.is_known else "done"
    match operation.name:
        case "create":
            (birth,) = operation.arguments
            if outcome == "taken":
                return state if state is not None else REFUSED
            return (birth, birth) if state is None else REFUSED
        case "read":
            return state if state == operation.outcome else REFUSED
        case "update":
            birth, old, new = operation.arguments
            if outcome == "stale":
                # the managers' loops write services, too
                return state
            if outcome == "missing":
                return state if state is None or state[0] != birth else REFUSED
            return (birth, new) if state == (birth, old) else REFUSED
        case "remove":
            (birth,) = operation.arguments
            if outcome == "missing":
                return state if state is None or state[0] != birth else REFUSED
            return None if state is not None and state[0] == birth else REFUSED
    raise AssertionError(operation.name)
