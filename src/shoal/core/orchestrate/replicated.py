"""Replicated services: so many slots, each with one wanted task (docker-swarm.md 4.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from shoal.core.defaults import replicas_of
from shoal.core.orchestrate.blue_green import is_ahead
from shoal.core.orchestrate.moves import plan_guests
from shoal.core.orchestrate.plan import NewId, Plan
from shoal.core.orchestrate.restart import plan_orphans, plan_restart, plan_starts
from shoal.core.orchestrate.slots import Place, RevisionOf, Slot, group, should_restart
from shoal.core.orchestrate.update import plan_failure, plan_update
from shoal.core.orchestrate.update_progress import FitsInstead, make_turn, never_fits
from shoal.model.objects import Node, Service, Task
from shoal.model.specs import ServiceSpec
from shoal.model.states import TaskState


def plan(
    service: Service,
    tasks: Iterable[Task],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
    previous: ServiceSpec | None = None,
    fits_instead: FitsInstead = never_fits,
) -> Plan:
    """Plan the tasks of a replicated service: scale, replace what has ended, update what is outdated.

    `previous` is the spec that a failing update may go back to. `fits_instead` tells of room that a task would leave.
    """
    result = Plan()
    tasks = tuple(tasks)
    plan_orphans(result, tasks, nodes, now_ns)
    slots = group(tasks, by_node=False)
    filled = {place: slot for place, slot in slots.items() if _is_filled(slot, revision_of)}
    for place, slot in slots.items():
        if place not in filled:
            for task in slot.tasks:
                result.desire(task, TaskState.REMOVE, "its slot is not needed any more")
    wanted = replicas_of(service.spec)
    surplus = len(filled) - wanted
    if surplus > 0:
        for slot in _choose_surplus(filled, surplus):
            for task in slot.tasks:
                result.desire(task, TaskState.REMOVE, f"scaled down to {wanted}")
            del filled[slot.place]
    turn = make_turn(service, filled, nodes, revision_of, now_ns, fits_instead)
    if plan_failure(result, turn, previous):
        return result
    plan_guests(result, service, filled, nodes, revision_of)
    for slot in filled.values():
        for part in slot.by_traffic():
            plan_restart(result, service, part, nodes, revision_of, now_ns, new_id)
            plan_starts(result, service, part, nodes, revision_of, now_ns)
    if surplus < 0:
        free = (number for number in range(1, wanted + len(filled) + 1) if number not in filled)
        for _, number in zip(range(-surplus), free, strict=False):
            why = f"scaled up to {wanted}"
            result.create(service, new_id, now_ns, TaskState.RUNNING, why, slot=number, withheld=is_ahead(turn))
    plan_update(result, turn, new_id)
    return result


def _is_filled(slot: Slot, revision_of: RevisionOf) -> bool:
    """Whether a slot counts: it has a wanted task, or its last one is not to be replaced."""
    return bool(slot.active) or not should_restart(slot, slot.latest, revision_of(slot.latest).spec.task_template)


def _choose_surplus(filled: dict[Place, Slot], count: int) -> list[Slot]:
    """Choose slots to remove: not running first, then from the fullest nodes, high numbers first."""
    remaining = Counter(task.node_id for slot in filled.values() for task in slot.active)
    stopped = sorted((s for s in filled.values() if not s.is_running), key=lambda s: -int(s.place))
    chosen = stopped[:count]
    running = sorted((s for s in filled.values() if s.is_running), key=lambda s: -int(s.place))
    for slot in chosen:
        remaining.subtract(task.node_id for task in slot.active)
    while len(chosen) < count:
        fullest = max(running, key=lambda s: (remaining[s.active[-1].node_id], int(s.place)))
        running.remove(fullest)
        remaining[fullest.active[-1].node_id] -= 1
        chosen.append(fullest)
    return chosen
