"""Global services: one wanted task on every node that fits (docker-swarm.md 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from shoal.core import constraint
from shoal.core.constraint import Constraint
from shoal.core.orchestrate.blue_green import is_ahead
from shoal.core.orchestrate.plan import NewId, Plan
from shoal.core.orchestrate.restart import plan_orphans, plan_restart, plan_starts
from shoal.core.orchestrate.slots import Place, RevisionOf, Slot, group, should_restart
from shoal.core.orchestrate.update import plan_failure, plan_update
from shoal.core.orchestrate.update_progress import FitsInstead, make_turn, never_fits
from shoal.model.objects import Node, Service, Task
from shoal.model.specs import ServiceSpec
from shoal.model.states import Availability, NodeState, TaskState


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
    """Plan the tasks of a global service: one a node, none where it does not fit, none new where it is paused.

    `previous` is the spec that a failing update may go back to. `fits_instead` tells of room that a task would leave.
    """
    result = Plan()
    tasks = tuple(tasks)
    plan_orphans(result, tasks, nodes, now_ns)
    placement = service.spec.task_template.placement
    constraints = constraint.parse(placement.constraints) if placement else ()
    slots = group(tasks, by_node=True)
    updatable, resting = {}, {}
    for place, slot in slots.items():
        node = nodes.get(str(place))
        if node is None:
            for task in slot.tasks:
                result.desire(task, TaskState.REMOVE, "its node was removed")
        elif node.spec.availability == Availability.DRAIN:
            for task in slot.active:
                result.desire(task, TaskState.SHUTDOWN, "its node is drained")
        elif node.status.state == NodeState.DOWN:
            # It can run nowhere else, and may run on there: when the node is back its task is simply known again.
            resting[place] = slot
        elif not constraint.matches_all(constraints, node):
            for task in slot.tasks:
                result.desire(task, TaskState.REMOVE, "its node does not fit any more")
        elif node.spec.availability != Availability.PAUSE:
            updatable[place] = slot
        else:
            resting[place] = slot
    turn = make_turn(service, updatable, nodes, revision_of, now_ns, fits_instead, resting)
    if plan_failure(result, turn, previous):
        return result
    for slot in updatable.values():
        for part in slot.by_traffic():
            plan_restart(result, service, part, nodes, revision_of, now_ns, new_id)
            plan_starts(result, service, part, nodes, revision_of, now_ns)
    for node in nodes_to_fill(slots, nodes, constraints, revision_of):
        withheld = is_ahead(turn)
        result.create(service, new_id, now_ns, TaskState.RUNNING, "a node to fill", node_id=node.id, withheld=withheld)
    plan_update(result, turn, new_id)
    return result


def nodes_to_fill(
    slots: Mapping[Place, Slot],
    nodes: Mapping[str, Node],
    constraints: tuple[Constraint, ...],
    revision_of: RevisionOf,
) -> Iterator[Node]:
    """Yield the nodes that take tasks, fit, and have no task that is the last word there."""
    for node in nodes.values():
        fits = (
            node.status.state == NodeState.READY
            and node.spec.availability == Availability.ACTIVE
            and constraint.matches_all(constraints, node)
        )
        present = slots.get(node.id)
        if fits and (present is None or may_return(present, revision_of)):
            yield node


def may_return(slot: Slot, revision_of: RevisionOf) -> bool:
    """Whether a node without a wanted task gets one.

    A task that ended for good on this node stays the last word; one that was shut down for a drain, was never given
    to the node, or could not be replaced then, does not.
    """
    if slot.active:
        return False
    latest = slot.latest
    state = latest.status.state
    if state < TaskState.ASSIGNED or state in (TaskState.SHUTDOWN, TaskState.ORPHANED):
        return True
    return state.is_terminal and should_restart(slot, latest, revision_of(latest).spec.task_template)
