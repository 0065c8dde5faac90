"""Whether services that are to be made or changed would find nodes for all their tasks. Nothing is assigned."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.core import constraint
from shoal.core.defaults import replicas_of
from shoal.core.schedule.filters import Request, first_failure, is_ready
from shoal.core.schedule.nodes import NodeInfo
from shoal.core.schedule.place import explain, place
from shoal.core.schedule.plan import request_of
from shoal.core.schedule.resources import needs_of
from shoal.model.base import Struct
from shoal.model.objects import Service, Task
from shoal.model.specs import ServiceSpec
from shoal.model.states import TaskState


class Fit(Struct):
    """How many of a service's tasks would have a node, of how many; `explanation` says why not all, else empty."""

    name: str
    wanted: int
    placed: int
    explanation: str = ""


def plan_fit(
    specs: Iterable[ServiceSpec],
    infos: dict[str, NodeInfo],
    service_named: Callable[[str], Service | None],
    tasks_of: Callable[[str], Iterable[Task]],
) -> list[Fit]:
    """Place every service in turn, beside what runs and those before it.

    What a service has now makes room first: its tasks are replaced. While they are, both may need room at once.

    Args:
        specs: the services as they are to be.
        infos: what is known of each node (`survey`); used up.
        service_named: the service that has a name already.
        tasks_of: the tasks of a service.
    """
    return [_fit(spec, infos, service_named(spec.name), tasks_of) for spec in specs]


def _fit(
    spec: ServiceSpec,
    infos: dict[str, NodeInfo],
    present: Service | None,
    tasks_of: Callable[[str], Iterable[Task]],
) -> Fit:
    service_id = present.id if present is not None else f"new {spec.name}"
    if present is not None:
        needs = needs_of(present.spec, present)
        for task in tasks_of(present.id):
            is_counted = task.is_wanted and TaskState.ASSIGNED <= task.status.state <= TaskState.RUNNING
            if is_counted and task.node_id in infos:
                infos[task.node_id].release(present.id, needs, task.generic_resources)
    request = request_of(spec, None, service_id, 0)
    mode = spec.mode
    if mode.global_ is not None or mode.global_job is not None:
        return _fit_global(spec.name, request, infos)
    if mode.replicated_job is not None:
        total = mode.replicated_job.total_completions or 1
        count = min(mode.replicated_job.max_concurrent or total, total)
    else:
        count = replicas_of(spec)
    found = place(request, count, infos)
    return Fit(name=spec.name, wanted=count, placed=len(found.node_ids), explanation=found.explanation)


def _fit_global(name: str, request: Request, infos: dict[str, NodeInfo]) -> Fit:
    """Ask every node that is meant: those that the constraints leave, and that take tasks."""
    meant = {
        id_: info
        for id_, info in infos.items()
        if is_ready(request, info) and constraint.matches_all(request.constraints, info.node)
    }
    failing = {id_: info for id_, info in meant.items() if first_failure(request, info) is not None}
    explanation = explain(request, failing) if failing else ""
    for id_, info in meant.items():
        if id_ not in failing:
            info.add(request.service_id, request.needs, claimed=info.claim(request.needs))
    return Fit(name=name, wanted=len(meant), placed=len(meant) - len(failing), explanation=explanation)
