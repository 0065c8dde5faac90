"""Faults put into the code on purpose: the simulation of the cluster must notice them, or it proves nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock


@dataclass(frozen=True)
class Mutation:
    """What is put where; `seeds_most`: how many seeds may pass before it is caught."""

    target: str
    make: Callable[[], Any]
    seeds_most: int = 10


def _read_at_once() -> Any:
    async def read_barrier(driver: Any) -> int:
        return driver.applied_index

    return read_barrier


def _write_nothing() -> Any:
    def write(database: Any, entries: Any, hard_state: Any, snapshot: Any = None) -> None:
        del database, entries, hard_state, snapshot

    return write


MUTATIONS = {
    "reads_without_a_barrier": Mutation("shoal.raft.driver.RaftDriver.read_barrier", _read_at_once, 12),
    "writes_that_are_not_durable": Mutation("shoal.raft.disk.LogDatabase.write", _write_nothing, 5),
    "replacements_that_do_not_wait": Mutation(
        "shoal.core.orchestrate.restart._stop_deadline", lambda: lambda *_arguments: None, 10
    ),
    "names_that_are_not_unique": Mutation(
        "shoal.store.apply._Transaction._check_claims", lambda: lambda *_arguments: None
    ),
    "tasks_that_are_never_told_to_stop": Mutation(
        "shoal.agent.runner.TaskRunner.desire", lambda: lambda *_given: None, 3
    ),
}


@contextlib.contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Run with a mutation, or none."""
    if name is None:
        yield
        return
    mutation = MUTATIONS[name]
    with mock.patch(mutation.target, mutation.make()):
        yield
