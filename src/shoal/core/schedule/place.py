"""Placing a group of alike tasks: filters, then spread.

A group costs O(nodes log nodes + tasks log nodes): nodes are filtered and sorted into a heap once, and after each task
only the node that got it moves. Preferences (spread over labels) make a tree of such heaps, filled evenly.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from shoal.core.constraint import ENGINE_LABEL_PREFIX, NODE_LABEL_PREFIX
from shoal.core.schedule.filters import FILTERS, Request, first_failure, scarcest
from shoal.core.schedule.nodes import NodeInfo
from shoal.model.base import Struct
from shoal.model.objects import Node
from shoal.model.specs import GenericResource


class Placement(Struct):
    """Where tasks go, and what of each node's generic resources they have.

    In order for the first tasks; `explanation` says why there are no more, empty if all fit.
    """

    node_ids: tuple[str, ...]
    claims: tuple[tuple[GenericResource, ...], ...] = ()
    explanation: str = ""


Choice = tuple[NodeInfo, tuple[GenericResource, ...]]


class _Heap:
    """The nodes of one branch, least loaded first."""

    def __init__(self, request: Request, infos: Iterable[NodeInfo]) -> None:
        self._request = request
        self._heap = [(info.load_for(request.service_id, request.spec_version), info) for info in infos]
        heapq.heapify(self._heap)
        self.task_count: int = sum(info.tasks_by_service[request.service_id] for _, info in self._heap)

    def take(self) -> Choice | None:
        """Give a task to the best node that can still take one."""
        request = self._request
        while self._heap:
            _, info = heapq.heappop(self._heap)
            if first_failure(request, info) is None:
                claimed = info.claim(request.needs)
                info.add(request.service_id, request.needs, claimed=claimed)
                heapq.heappush(self._heap, (info.load_for(request.service_id, request.spec_version), info))
                self.task_count += 1
                return info, claimed
        return None


class _Tree:
    """Branches by the value of a label, each with fewer preferences below; filled evenly."""

    def __init__(self, request: Request, infos: list[NodeInfo], preferences: tuple[str, ...]) -> None:
        groups: dict[str, list[NodeInfo]] = {}
        for info in infos:
            groups.setdefault(label_of(info.node, preferences[0]), []).append(info)
        self._branches: dict[str, _Heap | _Tree] = {
            value: _branch(request, members, preferences[1:]) for value, members in groups.items()
        }
        self.task_count: int = sum(branch.task_count for branch in self._branches.values())

    def take(self) -> Choice | None:
        """Give a task to the emptiest branch that can still take one."""
        while self._branches:
            value = min(self._branches, key=lambda one: (self._branches[one].task_count, one))
            choice = self._branches[value].take()
            if choice is not None:
                self.task_count += 1
                return choice
            del self._branches[value]
        return None


def _branch(request: Request, infos: list[NodeInfo], preferences: tuple[str, ...]) -> _Heap | _Tree:
    return _Tree(request, infos, preferences) if preferences else _Heap(request, infos)


def label_of(node: Node, descriptor: str) -> str:
    """Return the value of the label that a preference spreads over, empty if the node has none."""
    lowered = descriptor.lower()
    if lowered.startswith(NODE_LABEL_PREFIX):
        return node.spec.labels.get(descriptor[len(NODE_LABEL_PREFIX) :], "")
    if lowered.startswith(ENGINE_LABEL_PREFIX):
        return node.description.engine_labels.get(descriptor[len(ENGINE_LABEL_PREFIX) :], "")
    return ""


def place(request: Request, count: int, infos: dict[str, NodeInfo]) -> Placement:
    """Choose nodes for `count` alike tasks; the chosen nodes' loads are counted up."""
    fitting = [info for info in infos.values() if first_failure(request, info) is None]
    source = _branch(request, fitting, request.spread)
    chosen: list[Choice] = []
    explanation = ""
    while len(chosen) < count and not explanation:
        choice = source.take()
        if choice is None:
            explanation = explain(request, infos)
        else:
            chosen.append(choice)
    return Placement(
        node_ids=tuple(info.node.id for info, _ in chosen),
        claims=tuple(claimed for _, claimed in chosen),
        explanation=explanation,
    )


def confirm(request: Request, node_id: str, infos: dict[str, NodeInfo]) -> Placement:
    """Check a task whose node is chosen already (global services); the node's load is counted up."""
    info = infos.get(node_id)
    if info is None:
        return Placement(node_ids=(), explanation="no suitable node (its node is gone)")
    if first_failure(request, info) is not None:
        return Placement(node_ids=(), explanation=explain(request, {node_id: info}))
    claimed = info.claim(request.needs)
    info.add(request.service_id, request.needs, claimed=claimed)
    return Placement(node_ids=(node_id,), claims=(claimed,))


def explain(request: Request, infos: dict[str, NodeInfo]) -> str:
    """Say why no node can take a task, in Docker's words: filters by the number of nodes that fail them.

    Where resources lack, the scarcest follows.
    """
    failed: dict[str, list[NodeInfo]] = {}
    for info in infos.values():
        failure = first_failure(request, info)
        if failure is not None:
            failed.setdefault(failure.name, []).append(info)
    if not failed:
        return "no suitable node"
    order = [one for one in FILTERS if one.name in failed]
    order.sort(key=lambda one: -len(failed[one.name]))
    text = "no suitable node (" + "; ".join(one.explain(len(failed[one.name])) for one in order) + ")"
    lack = scarcest(request, failed["resources"]) if "resources" in failed else ""
    return f"{text}: {lack}" if lack else text
