"""`/tasks` (their logs: logs.py)."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from shoal.api.filters import Filters, matches_labels, matches_prefix, parse_boolean, parse_filters
from shoal.api.requests import read_view
from shoal.api.responses import ENCODED_TASKS, json_response, list_response
from shoal.api.routing import Route
from shoal.api.views.task import TaskViews
from shoal.core.attachments import ATTACHMENT_RUNTIME
from shoal.core.orchestrate.slots import is_dirty
from shoal.errors import InvalidArgument
from shoal.manager.lookup import find_node, find_service, find_task
from shoal.model.objects import Node, Service, Task
from shoal.model.states import TASK_STATE_BY_WORD, TaskState
from shoal.store.view import View

FILTERS = frozenset({"id", "name", "label", "service", "node", "desired-state", "runtime", "_up-to-date"})


async def list_tasks(request: web.Request) -> web.Response:
    """Answer with the tasks that pass the filters, in order of id."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    desired = _desired_states(filters)
    current_only = parse_boolean(filters.get("_up-to-date", ()), "_up-to-date")
    view = await read_view(request)
    candidates = _candidates(view, filters)
    passing = [
        task
        for task in candidates
        if (not desired or task.desired_state in desired)
        and (not current_only or _is_current(view, task))
        and _passes(view, task, filters)
    ]
    passing.sort(key=lambda task: task.id)
    views = TaskViews(view)
    views.prepare(passing)
    known = request.app[ENCODED_TASKS]
    return await list_response(known.of(task, views.of, *views.network_versions(task)) for task in passing)


def _desired_states(filters: Filters) -> frozenset[TaskState]:
    states: set[TaskState] = set()
    for word in filters.get("desired-state", ()):
        if word.lower() not in TASK_STATE_BY_WORD:
            raise InvalidArgument(f"Invalid desired-state filter: '{word}'")
        states.add(TASK_STATE_BY_WORD[word.lower()])
    return frozenset(states)


def _candidates(view: View, filters: Filters) -> Iterable[Task]:
    """Return the tasks of the services or nodes asked for, by index. Raises NotFound for one that is not there."""
    service_ids = {find_service(view, reference).id for reference in filters.get("service", ())}
    node_ids = {find_node(view, reference).id for reference in filters.get("node", ())}
    if service_ids:
        tasks = [task for service_id in service_ids for task in view.tasks_of_service(service_id)]
        return [task for task in tasks if not node_ids or task.node_id in node_ids]
    if node_ids:
        return [task for node_id in node_ids for task in view.tasks_of_node(node_id)]
    return view.find(Task)


def _is_current(view: View, task: Task) -> bool:
    """Tell whether the task needs no update to be what its service asks for now."""
    service = view.get(Service, task.service_id)
    return service is not None and not is_dirty(task, service, view.revision_of, view.get(Node, task.node_id))


def _passes(view: View, task: Task, filters: Filters) -> bool:
    if not matches_prefix(task.id, filters.get("id", ())):
        return False
    runtimes = filters.get("runtime", ())
    if ((task.container and ATTACHMENT_RUNTIME) or "container") not in (runtimes or ("container",)):
        return False
    names, labels = filters.get("name", ()), filters.get("label", ())
    if not names and not labels:
        return True
    service = view.get(Service, task.service_id)
    if service is None:
        return False
    return matches_prefix(task_name(service, task), names) and matches_labels(service.spec.labels, labels)


def task_name(service: Service, task: Task) -> str:
    """Return a task's name: service, slot (of a global service: node) and id."""
    return f"{service.spec.name}.{task.slot or task.node_id}.{task.id}"


async def inspect(request: web.Request) -> web.Response:
    """Answer with a task."""
    view = await read_view(request)
    return json_response(TaskViews(view).of(find_task(view, request.match_info["id"])))


ROUTES = (
    Route("GET", "/tasks", list_tasks),
    Route("GET", "/tasks/{id}", inspect),
)
