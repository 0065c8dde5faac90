"""The leader's loops: orchestrator, allocator, scheduler, reaper; each a plan of `core` under the one shape of loop."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.allocate.plan import (
    Claims,
    Networks,
    is_allocated,
    leaves_address,
    plan_service,
    plan_tasks,
    say_what_is_lacking,
)
from shoal.core.allocate.ports import complete
from shoal.core.attachments import is_attachment
from shoal.core.defaults import is_job, is_replicated, task_history_limit
from shoal.core.dependencies import what_is_waited_for
from shoal.core.network_keys import order_rotation, rotation_due_ns
from shoal.core.orchestrate import global_, jobs, replicated
from shoal.core.orchestrate.plan import NewId
from shoal.core.orchestrate.plan import Plan as OrchestrationPlan
from shoal.core.orchestrate.reap import plan_reaping
from shoal.core.orchestrate.restart import plan_orphans
from shoal.core.schedule.instead import fits_instead, plan_takeovers
from shoal.core.schedule.nodes import survey
from shoal.core.schedule.plan import hold_back, plan_placement
from shoal.errors import Forbidden
from shoal.lib.clock import Clock
from shoal.manager.loop import LeaderLoop, Round
from shoal.manager.service_plans import check_privileges
from shoal.model.actions import Replace
from shoal.model.objects import Network, Node, Service, Task
from shoal.model.specs import ServiceSpec
from shoal.model.states import TaskState
from shoal.store.apply import Change
from shoal.store.store import Store
from shoal.store.view import View

# Loops that look at everything pending at once have a single key.
_ALL = "all"
# the states whose reaching the orchestrator answers to: prepared, runs, has ended
_MARKS = (TaskState.READY, TaskState.RUNNING, TaskState.COMPLETE)


def orchestrator(store: Store, clock: Clock, new_id: NewId) -> LeaderLoop:
    """Keep the tasks of every service as its spec wants them."""

    def keys_of_change(view: View, change: Change) -> Iterable[str]:
        value = change.new or change.old
        if isinstance(value, Service):
            return (value.id,)
        if isinstance(value, Task):
            return (value.service_id,) if _matters_to_orchestrator(change) else ()
        if isinstance(value, Node) and _node_matters(change):
            return _services_of_node(view, value)
        return ()

    def plan(view: View, keys: Iterable[str], now_ns: int) -> dict[str, Round]:
        nodes = {node.id: node for node in view.find(Node)}
        return {key: _orchestrate(view, key, nodes, now_ns, new_id) for key in keys}

    return LeaderLoop(
        name="orchestrator",
        store=store,
        clock=clock,
        kinds=("service", "task", "node"),
        keys_of_change=keys_of_change,
        all_keys=_services_and_orphans,
        plan=plan,
    )


def _matters_to_orchestrator(change: Change) -> bool:
    """Whether a task's change can change a plan: it came, went, got further, has no room, or is wanted otherwise."""
    old, new = change.old, change.new
    if not isinstance(old, Task) or not isinstance(new, Task):
        return True
    return (
        old.desired_state != new.desired_state
        or old.pulled != new.pulled
        or any(old.status.state < mark <= new.status.state for mark in _MARKS)
        or (new.status.state <= TaskState.PENDING and old.status.err != new.status.err)
    )


def _node_matters(change: Change) -> bool:
    old, new = change.old, change.new
    if not isinstance(old, Node) or not isinstance(new, Node):
        return True
    return (
        old.status.state != new.status.state
        or old.spec != new.spec
        or old.description != new.description
        or old.status.address != new.status.address
    )


def _services_of_node(view: View, node: Node) -> list[str]:
    """Services a change of a node concerns: those with tasks there, and all global ones."""
    keys = {task.service_id: None for task in view.tasks_of_node(node.id)}
    keys.update({service.id: None for service in view.find(Service) if not is_replicated(service.spec)})
    return list(keys)


def _services_and_orphans(view: View) -> list[str]:
    keys = {service.id: None for service in view.find(Service)}
    keys.update({task.service_id: None for task in view.find(Task)})
    return list(keys)


def _orchestrate(view: View, service_id: str, nodes: dict[str, Node], now_ns: int, new_id: NewId) -> Round:
    service = view.get(Service, service_id)
    tasks = view.tasks_of_service(service_id)
    if service is None:
        gone = OrchestrationPlan()
        plan_orphans(gone, tasks, nodes, now_ns)
        for task in tasks:
            if is_attachment(task) and task.node_id in nodes:
                continue  # its node says when it goes
            gone.desire(task, TaskState.REMOVE, "its service is gone")
        return Round(actions=gone.actions, why=gone.why)
    if is_job(service.spec):
        result = jobs.plan(service, tasks, nodes, view.revision_of, now_ns, new_id)
    else:
        module = replicated if is_replicated(service.spec) else global_
        previous = _previous_spec(view, service)

        def has_room(task: Task, leaving: Task) -> bool:
            if _wait_of(view, service):
                return False  # not for room: nothing is gained by stopping another for it
            if task.status.state == TaskState.NEW:
                return leaves_address(leaving, task.status.err, lambda id_: view.get(Network, id_))
            node = nodes.get(leaving.node_id)
            return fits_instead(
                task, leaving, node, view.tasks_of_node, view.revision_of, lambda id_: view.get(Service, id_), now_ns
            )

        result = module.plan(service, tasks, nodes, view.revision_of, now_ns, new_id, previous, has_room)
    why = [f"{service.spec.name}: {reason}" for reason in result.why]
    return Round(actions=result.actions, wake_at_ns=result.wake_at_ns, why=why)


def _previous_spec(view: View, service: Service) -> ServiceSpec | None:
    """Return the spec a service can go back to.

    None: there is none, a port of it is another's meanwhile, or the swarm does not allow any more what it asks for.
    """
    previous = view.revision(service.id, service.previous_spec_version) if service.previous_spec_version else None
    if previous is None:
        return None
    try:
        check_privileges(view, previous.spec)
    except Forbidden:
        return None
    endpoint = previous.spec.endpoint_spec
    claims = Claims(view)
    for port in map(complete, endpoint.ports if endpoint else ()):
        shared = port.publish_mode == "host" and view.port_user(port.protocol, port.published_port) is None
        if port.published_port and not shared and claims.port_used(service, port.protocol, port.published_port):
            return None
    return previous.spec


def ingress_network(view: View) -> Network | None:
    """Return the network of the routing mesh."""
    return next((network for network in view.find(Network) if network.spec.ingress), None)


def networks_of(view: View) -> Networks:
    """Return the networks of the swarm as allocation asks for them."""
    return Networks(lambda id_: view.get(Network, id_), ingress_network(view))


def allocator(store: Store, clock: Clock) -> LeaderLoop:
    """Give services their ports and addresses, and new tasks theirs."""

    def keys_of_change(view: View, change: Change) -> Iterable[str]:
        new = change.new
        if isinstance(new, Service):
            return (new.id,) if change.old is not None or not is_allocated(new, networks_of(view)) else ()
        if isinstance(new, Task) and new.status.state == TaskState.NEW:
            return (new.service_id,)
        ended = isinstance(new, Task) and new.status.state.is_terminal
        return (_ALL,) if ended or new is None or change.kind == "network" else ()

    def plan(view: View, keys: Iterable[str], now_ns: int) -> dict[str, Round]:
        wanted = dict.fromkeys(keys)
        networks = networks_of(view)
        if _ALL in wanted:
            # Something was freed: who waits for an address or a port may have it now.
            wanted.pop(_ALL)
            wanted.update({s.id: None for s in view.find(Service) if not is_allocated(s, networks)})
            wanted.update({task.service_id: None for task in view.unassigned_tasks(TaskState.NEW)})
        claims = Claims(view)
        return {key: _allocate(view, key, networks, claims, now_ns) for key in wanted}

    return LeaderLoop(
        name="allocator",
        store=store,
        clock=clock,
        kinds=("service", "task", "network"),
        keys_of_change=keys_of_change,
        all_keys=_services_and_orphans,
        plan=plan,
    )


def _allocate(view: View, service_id: str, networks: Networks, claims: Claims, now_ns: int) -> Round:
    service = view.get(Service, service_id)
    if service is None:
        return Round()
    name = service.spec.name
    waiting = [
        task for task in view.tasks_of_service(service_id) if task.status.state == TaskState.NEW and task.is_wanted
    ]
    allocation = plan_service(service, networks, claims)
    if allocation.patch is not None:
        return Round(actions=(allocation.patch,), why=(f"{name}: ports and addresses",))
    if allocation.lacks:
        told = say_what_is_lacking(waiting, allocation.lacks, now_ns)
        return Round(actions=told, why=(f"{name}: {allocation.lacks}",) if told else ())
    actions = plan_tasks(waiting, service, lambda task: view.revision_of(task).spec, networks, claims, now_ns)
    return Round(actions=actions, why=(f"{name}: {len(actions)} tasks allocated",) if actions else ())


def scheduler(store: Store, clock: Clock) -> LeaderLoop:
    """Give every pending task a node, or a reason."""

    def keys_of_change(_view: View, change: Change) -> Iterable[str]:
        new = change.new
        if isinstance(new, Task):
            # what others wait for may run now
            runs = new.status.state == TaskState.RUNNING and (
                not isinstance(change.old, Task) or change.old.status.state != TaskState.RUNNING
            )
            return (_ALL,) if _is_pending(new) or new.status.state.is_terminal or runs else ()
        return (_ALL,) if not isinstance(new, Node) or _node_matters(change) else ()

    def plan(view: View, keys: Iterable[str], now_ns: int) -> dict[str, Round]:
        if not tuple(keys):
            return {}
        pending = [task for task in view.unassigned_tasks(TaskState.PENDING) if _is_pending(task)]
        if not pending:
            return {_ALL: Round()}

        def service_of(id_: str) -> Service | None:
            return view.get(Service, id_)

        nodes = {node.id: node for node in view.find(Node)}
        infos = survey(nodes.values(), view.tasks_of_node, view.revision_of, service_of, now_ns)

        free, held = hold_back(pending, service_of, lambda service: _wait_of(view, service), now_ns)
        patches = plan_placement(free, infos, view.revision_of, service_of, now_ns)
        patches = plan_takeovers(
            free, patches, nodes, view.tasks_of_service, view.tasks_of_node, view.revision_of, service_of, now_ns
        )
        patches += held
        return {_ALL: Round(actions=patches, why=[f"task {p.id}: node {p.node_id}" for p in patches])}

    return LeaderLoop(
        name="scheduler",
        store=store,
        clock=clock,
        kinds=("task", "node"),
        keys_of_change=keys_of_change,
        all_keys=lambda _view: (_ALL,),
        plan=plan,
    )


def network_keys(store: Store, clock: Clock) -> LeaderLoop:
    """Order new keys of encrypted networks when they are due."""

    def plan(view: View, keys: Iterable[str], now_ns: int) -> dict[str, Round]:
        cluster = view.cluster()
        due_ns = rotation_due_ns(cluster, view.find(Network)) if cluster is not None else None
        if cluster is None or due_ns is None or not tuple(keys):
            return {_ALL: Round()}
        if due_ns > now_ns:
            return {_ALL: Round(wake_at_ns=due_ns)}
        ordered = Replace(object=order_rotation(cluster, now_ns), expected_version=cluster.meta.version)
        return {_ALL: Round(actions=(ordered,), why=("new keys of encrypted networks are due",))}

    return LeaderLoop(
        name="network keys",
        store=store,
        clock=clock,
        kinds=("network", "cluster"),
        keys_of_change=lambda _view, _change: (_ALL,),
        all_keys=lambda _view: (_ALL,),
        plan=plan,
    )


def _wait_of(view: View, service: Service) -> str:
    return what_is_waited_for(service, lambda name: view.by_name(Service, name), view.tasks_of_service)


def _is_pending(task: Task) -> bool:
    return task.status.state == TaskState.PENDING and task.is_wanted


def reaper(store: Store, clock: Clock) -> LeaderLoop:
    """Forget tasks beyond the history limit and removed tasks that have stopped."""

    def keys_of_change(_view: View, change: Change) -> Iterable[str]:
        new = change.new
        if isinstance(new, Task):
            return (new.service_id,) if new.desired_state > TaskState.RUNNING else ()
        return (change.id,) if change.kind == "service" and new is None else ()

    def plan(view: View, keys: Iterable[str], _now_ns: int) -> dict[str, Round]:
        limit = task_history_limit(view.cluster())
        rounds: dict[str, Round] = {}
        for key in keys:
            removals = plan_reaping(view.get(Service, key), view.tasks_of_service(key), limit, view.revision_of)
            rounds[key] = Round(actions=removals, why=[f"task {removal.id}: forgotten" for removal in removals])
        return rounds

    return LeaderLoop(
        name="reaper",
        store=store,
        clock=clock,
        kinds=("task", "service"),
        keys_of_change=keys_of_change,
        all_keys=_services_and_orphans,
        plan=plan,
    )
