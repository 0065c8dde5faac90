"""The checker of histories, on histories that are known to be good and known to be bad."""

from __future__ import annotations

import random

import pytest

from tests.sim.linearizability import NEVER, Operation, is_linearizable, service_step


def create(birth, outcome, called_at, answered_at=NEVER):
    return Operation("create", (birth,), outcome, called_at, answered_at)


def read(seen, called_at, answered_at):
    return Operation("read", (), seen, called_at, answered_at)


def update(birth, old, new, outcome, called_at, answered_at=NEVER):
    return Operation("update", (birth, old, new), outcome, called_at, answered_at)


def remove(birth, outcome, called_at, answered_at=NEVER):
    return Operation("remove", (birth,), outcome, called_at, answered_at)


A, B = ("a", "a"), ("a", "b")

GOOD = {
    "nothing": [],
    "one after the other": [
        create("a", "done", 1, 2),
        read(A, 3, 4),
        update("a", "a", "b", "done", 5, 6),
        read(B, 7, 8),
        remove("a", "done", 9, 10),
        read(None, 11, 12),
    ],
    "a read beside a write sees either": [create("a", "done", 1, 9), read(None, 2, 3), read(A, 4, 5)],
    "of two creates beside each other one wins": [
        create("a", "done", 1, 9),
        create("x", "taken", 2, 8),
        read(A, 10, 11),
    ],
    "an unknown create is seen later": [create("a", "unknown", 1), read(None, 2, 3), read(A, 4, 5)],
    "an unknown create is never seen": [create("a", "unknown", 1), read(None, 2, 3), create("x", "done", 4, 5)],
    "an unknown removal takes effect long after": [
        create("a", "done", 1, 2),
        remove("a", "unknown", 3),
        read(A, 4, 5),
        read(None, 6, 7),
        create("x", "done", 8, 9),
    ],
    "an update that was outrun": [
        create("a", "done", 1, 2),
        update("a", "a", "b", "done", 3, 4),
        update("a", "a", "c", "stale", 5, 6),
        read(B, 7, 8),
    ],
    "born again under its name": [
        create("a", "done", 1, 2),
        remove("a", "done", 3, 4),
        create("x", "done", 5, 6),
        update("a", "a", "b", "missing", 7, 8),
        read(("x", "x"), 9, 10),
    ],
}

BAD = {
    "an acknowledged create is lost": [create("a", "done", 1, 2), read(None, 3, 4)],
    "an acknowledged update is lost": [
        create("a", "done", 1, 2),
        update("a", "a", "b", "done", 3, 4),
        read(A, 5, 6),
    ],
    "a stale read after a fresh one": [create("a", "done", 1, 20), read(A, 2, 3), read(None, 4, 5)],
    "two updates of one version": [
        create("a", "done", 1, 2),
        update("a", "a", "b", "done", 3, 9),
        update("a", "a", "c", "done", 4, 8),
    ],
    "two creates of one name": [create("a", "done", 1, 5), create("x", "done", 2, 6)],
    "taken by nobody": [create("a", "taken", 1, 2)],
    "a removed service is seen again": [
        create("a", "done", 1, 2),
        remove("a", "done", 3, 4),
        read(A, 5, 6),
    ],
    "an unknown write is seen and unseen": [
        create("a", "done", 1, 2),
        update("a", "a", "b", "unknown", 3),
        read(B, 4, 5),
        read(A, 6, 7),
    ],
    "an unknown create takes effect twice": [
        create("a", "unknown", 1),
        read(A, 2, 3),
        remove("a", "done", 4, 5),
        read(A, 6, 7),
    ],
    "what was never written": [create("a", "done", 1, 2), read(("z", "z"), 3, 4)],
    "missing though it is there": [create("a", "done", 1, 2), remove("a", "missing", 3, 4)],
    "an answer before its question took effect": [read(A, 1, 2), create("a", "done", 3, 4)],
}


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str) -> None:
    assert is_linearizable(GOOD[name], service_step, None)


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str) -> None:
    assert not is_linearizable(BAD[name], service_step, None)


def drawn_history(chance: random.Random) -> list[Operation]:
    """What concurrent clients of one register see that takes each operation at a moment between call and answer."""
    state, operations, now = None, [], 0.0
    for number in range(40):
        now += chance.uniform(0.1, 1.0)
        called_at, answered_at = now - chance.uniform(0, 2), now + chance.uniform(0, 2)
        name = chance.choice(["create", "read", "update", "remove"])
        tag = f"t{number}"
        if name == "create":
            operation = create(tag, "taken" if state else "done", called_at, answered_at)
            state = state or (tag, tag)
        elif name == "read" or state is None:
            operation = read(state, called_at, answered_at)
        elif name == "update":
            operation = update(*state, tag, "done", called_at, answered_at)
            state = (state[0], tag)
        else:
            operation = remove(state[0], "done", called_at, answered_at)
            state = None
        operations.append(operation)
    return operations


def test_drawn_histories() -> None:
    caught = 0
    for seed in range(60):
        chance = random.Random(seed)
        history = drawn_history(chance)
        assert is_linearizable(history, service_step, None), seed
        # a read that saw what was overwritten long before
        seen = [o for o in history if o.name == "read"]
        if len(seen) > 2 and seen[0].outcome != seen[-1].outcome:
            late = max(o.answered_at for o in history) + 1
            broken = [*history, read(seen[0].outcome, late, late + 1)]
            final = [o for o in history if o.name != "read" and o.outcome == "done"][-1]
            is_last = seen[0].outcome is not None and final.arguments[-1] == seen[0].outcome[1]
            if not is_last and not (final.name == "remove" and seen[0].outcome is None):
                caught += not is_linearizable(broken, service_step, None)
    assert caught > 20
