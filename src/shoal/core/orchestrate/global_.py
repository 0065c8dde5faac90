"""Global services: one wanted task on every node that fits (docker-swarm.md 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shoal.core import constraint
from shoal.core.orchestrate.plan import NewId, Plan
from shoal.core.orchestrate.restart import plan_restart, plan_starts
from shoal.core.orchestrate.slots import RevisionOf, group, is_node_gone
from shoal.core.orchestrate.update import plan_update
from shoal.model.objects import Node, Service, Task
from shoal.model.states import Availability, NodeState, TaskState


def plan(
    service: Service,
    tasks: Iterable[Task],
    nodes: Mapping[str, Node],
    revision_of: RevisionOf,
    now_ns: int,
    new_id: NewId,
) -> Plan:
    """Plan the tasks of a global service: one a node, none where it does not fit, none new where it is paused."""
    result = Plan()
    placement = service.spec.task_template.placement
    constraints = constraint.parse(placement.constraints) if placement else ()
    slots = group(tasks, by_node=True)
    updatable = {}
    for place, slot in slots.items():
        node = nodes.get(str(place))
        if is_node_gone(node):
            for task in slot.active:
                result.desire(task, TaskState.SHUTDOWN, "its node is down, drained or removed")
        elif node is not None and not constraint.matches_all(constraints, node):
            for task in slot.tasks:
                result.desire(task, TaskState.REMOVE, "its node does not fit any more")
        elif node is not None and node.spec.availability != Availability.PAUSE:
            plan_restart(result, service, slot, nodes, revision_of, now_ns, new_id, replace_elsewhere=False)
            plan_starts(result, slot, nodes, revision_of, now_ns)
            updatable[place] = slot
    for node in nodes.values():
        fits = (
            not is_node_gone(node)
            and node.status.state == NodeState.READY
            and node.spec.availability == Availability.ACTIVE
            and constraint.matches_all(constraints, node)
        )
        present = slots.get(node.id)
        # A task that ended for good on this node stays the last word; one that was shut down for a drain does not.
        if fits and (present is None or _may_return(present.latest)):
            result.create(service, new_id, now_ns, TaskState.RUNNING, "a node to fill", node_id=node.id)
    plan_update(result, service, updatable, revision_of, now_ns, new_id)
    return result


def _may_return(latest: Task) -> bool:
    return latest.desired_state > TaskState.RUNNING and latest.status.state in (
        TaskState.SHUTDOWN,
        TaskState.ORPHANED,
    )
