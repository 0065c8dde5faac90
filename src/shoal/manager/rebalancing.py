"""Evening out replicated services (shoal.rebalance=auto, `shoal service rebalance`): one move after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from shoal.core.defaults import is_replicated
from shoal.core.orchestrate.moves import is_rebalanced, move_task, next_move_at_ns, what_hinders
from shoal.core.orchestrate.plan import NewId
from shoal.core.schedule.filters import takes_tasks
from shoal.core.schedule.nodes import survey
from shoal.core.schedule.plan import request_for
from shoal.core.schedule.rebalance import GAP_LEAST, Move, plan_moves
from shoal.errors import InvalidArgument
from shoal.lib.clock import Clock
from shoal.manager.loop import LeaderLoop, Round
from shoal.model.actions import PatchService
from shoal.model.base import Struct
from shoal.model.objects import Node, Service, Task
from shoal.store.apply import Change
from shoal.store.store import Store
from shoal.store.view import View

# what a look ahead shows; a service that needs more is asked again
MOVES_SHOWN_MOST = 1_000


class Proposal(Struct):
    """What would move, in order; or why nothing can now."""

    moves: tuple[Move, ...] = ()
    hindrance: str = ""


def rebalancer(store: Store, clock: Clock, new_id: NewId) -> LeaderLoop:
    """Move tasks of uneven services."""

    def keys_of_change(view: View, change: Change) -> Iterable[str]:
        value = change.new
        if isinstance(value, Node):
            return [service.id for service in view.find(Service) if is_rebalanced(service)]
        service_id = value.service_id if isinstance(value, Task) else change.id if change.kind == "service" else ""
        service = view.get(Service, service_id)
        return (service_id,) if service is not None and is_rebalanced(service) else ()

    def plan(view: View, keys: Iterable[str], now_ns: int) -> dict[str, Round]:
        return {service_id: _plan_move(view, service_id, now_ns, new_id) for service_id in keys}

    return LeaderLoop(
        name="rebalancer",
        store=store,
        clock=clock,
        kinds=("service", "task", "node"),
        keys_of_change=keys_of_change,
        all_keys=lambda view: [service.id for service in view.find(Service) if is_rebalanced(service)],
        plan=plan,
    )


def _plan_move(view: View, service_id: str, now_ns: int, new_id: NewId) -> Round:
    service = view.get(Service, service_id)
    if service is None or not is_rebalanced(service):
        return Round()
    proposal = propose(view, service, now_ns, most=1)
    if proposal.hindrance:
        return Round()
    if not proposal.moves:
        done = PatchService(id=service.id, spec_version=service.spec_version, rebalancing=False)
        return Round(actions=(done,), why=(f"{service.spec.name}: is even",)) if service.rebalancing else Round()
    may_begin_at_ns = next_move_at_ns(view.tasks_of_service(service_id))
    if may_begin_at_ns > now_ns:
        return Round(wake_at_ns=may_begin_at_ns)
    move = proposal.moves[0]
    task = view.get(Task, move.task_id)
    assert task is not None, "the plan is made from this view"
    why = f"{service.spec.name}: slot {move.slot} moves to node {move.to_node_id}: {move.why}"
    return Round(actions=(move_task(task, move.to_node_id, new_id, now_ns),), why=(why,))


def propose(view: View, service: Service, now_ns: int, most: int = MOVES_SHOWN_MOST) -> Proposal:
    """Return what would move of a replicated service."""
    nodes = {node.id: node for node in view.find(Node)}
    tasks, hindrance = what_hinders(service, view.tasks_of_service(service.id), nodes, view.revision_of)
    if hindrance or not tasks:
        return Proposal(hindrance=hindrance)
    request = request_for(tasks[0], view.revision_of(tasks[0]), service)
    counts = Counter(task.node_id for task in tasks)
    open_nodes = [node for node in nodes.values() if takes_tasks(node)]
    gap = max(counts.values()) - min((counts[node.id] for node in open_nodes), default=0)
    if gap < GAP_LEAST and not request.spread:
        # the common case, and no need to survey what all nodes carry
        return Proposal()
    infos = survey(open_nodes, view.tasks_of_node, view.revision_of, lambda id_: view.get(Service, id_), now_ns)
    return Proposal(moves=tuple(plan_moves(tasks, request, infos, most)))


def order_rebalancing(service: Service) -> PatchService:
    """Return what has a service evened out once.

    Raises:
        InvalidArgument: it is not replicated.
    """
    check_replicated(service)
    return PatchService(id=service.id, spec_version=service.spec_version, rebalancing=True)


def check_replicated(service: Service) -> None:
    """Raises InvalidArgument for a service whose tasks have their nodes by its mode, or run once."""
    if not is_replicated(service.spec):
        raise InvalidArgument(
            f"service {service.spec.name} is not replicated: only the tasks of such a service can move"
        )
