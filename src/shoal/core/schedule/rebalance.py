"""Which tasks of an uneven service would run better elsewhere: a plan, move by move, by the scheduler's own filters.

Evenness is judged as the scheduler spreads: first over the branches of the first preference, then within each of them,
at last over nodes. A move takes a task from the fullest to the emptiest that can take it, and only where the two differ
by two or more: so each move makes the service more even, and the plan comes to an end.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.schedule.filters import Request, first_failure, is_ready
from shoal.core.schedule.nodes import NodeInfo
from shoal.core.schedule.place import label_of
from shoal.model.base import Struct
from shoal.model.objects import Task

# what differs by less is as even as it can be
GAP_LEAST = 2


class Move(Struct):
    """A task that is to run on another node, and why."""

    task_id: str
    slot: int
    from_node_id: str
    to_node_id: str
    why: str


class _Load:
    """A node and the tasks of the service on it that could move, as the plan goes on."""

    def __init__(self, info: NodeInfo, tasks: Iterable[Task]) -> None:
        self.info = info
        self.tasks = sorted(tasks, key=lambda task: task.slot)

    def fits(self, request: Request) -> bool:
        """Whether the node could take a task; one where this version failed lately is left alone."""
        failed = self.info.failures[(request.service_id, request.spec_version)]
        return not failed and first_failure(request, self.info) is None


def plan_moves(tasks: Iterable[Task], request: Request, infos: dict[str, NodeInfo], most: int) -> list[Move]:
    """Return the next moves of a service's tasks, `most` at most; none if it is as even as it can be.

    Args:
        tasks: the service's tasks that run, one a slot, made from the revision that `request` stands for.
        request: what each of them asks of a node.
        infos: the nodes with their load; used up by it.
        most: how many moves are asked for.
    """
    held: dict[str, list[Task]] = {}
    for task in tasks:
        held.setdefault(task.node_id, []).append(task)
    loads = [_Load(info, held.get(id_, ())) for id_, info in sorted(infos.items()) if is_ready(request, info)]
    moves: list[Move] = []
    while len(moves) < most:
        pair = _uneven_pair(request, loads, request.spread)
        if pair is None:
            break
        source, target = pair
        task = source.tasks.pop()
        why = f"{len(source.tasks) + 1} tasks run there, {len(target.tasks)} on the other"
        source.info.release(request.service_id, request.needs, task.generic_resources)
        claimed = target.info.claim(request.needs)
        target.info.add(request.service_id, request.needs, claimed=claimed)
        target.tasks.append(task)
        moves.append(
            Move(
                task_id=task.id,
                slot=task.slot,
                from_node_id=source.info.node.id,
                to_node_id=target.info.node.id,
                why=why,
            )
        )
    return moves


def _uneven_pair(request: Request, loads: list[_Load], preferences: tuple[str, ...]) -> tuple[_Load, _Load] | None:
    """Return the node to take a task from and the one to give it to, at the first level that is uneven."""
    branches = _branches(loads, preferences)
    source = max(branches, key=_count, default=[])
    open_branches = [branch for branch in branches if any(load.fits(request) for load in branch)]
    target = min(open_branches, key=_count, default=[])
    if target and _count(source) - _count(target) >= GAP_LEAST:
        return _fullest(source, preferences[1:]), _emptiest(request, target, preferences[1:])
    if preferences:
        for branch in branches:
            pair = _uneven_pair(request, branch, preferences[1:])
            if pair is not None:
                return pair
    return None


def _branches(loads: list[_Load], preferences: tuple[str, ...]) -> list[list[_Load]]:
    """Return nodes by the value of the first preference; without one each alone."""
    if not preferences:
        return [[load] for load in loads]
    groups: dict[str, list[_Load]] = {}
    for load in loads:
        groups.setdefault(label_of(load.info.node, preferences[0]), []).append(load)
    return [groups[value] for value in sorted(groups)]


def _count(loads: list[_Load]) -> int:
    return sum(len(load.tasks) for load in loads)


def _fullest(loads: list[_Load], preferences: tuple[str, ...]) -> _Load:
    if len(loads) == 1:
        return loads[0]
    return _fullest(max(_branches(loads, preferences), key=_count), preferences[1:])


def _emptiest(request: Request, loads: list[_Load], preferences: tuple[str, ...]) -> _Load:
    fitting = [load for load in loads if load.fits(request)]
    if not preferences:
        return min(fitting, key=lambda load: load.info.load_for(request.service_id, request.spec_version))
    return _emptiest(request, min(_branches(fitting, preferences), key=_count), preferences[1:])
