"""Services whose tasks wait for other services: the label `shoal.depends-on`. Pure.

A task that waits is PENDING and says for what. Only its start waits: what runs goes on when what it depends on stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from shoal.core.extensions import DEPENDS_ON
from shoal.errors import InvalidArgument
from shoal.model.base import Struct
from shoal.model.objects import Service, Task
from shoal.model.states import TaskState

RUNNING, COMPLETED = "running", "completed"
CONDITIONS = (RUNNING, COMPLETED)


class Dependency(Struct):
    """A service by name, and what is waited for: `running` (healthy, where that is checked) or `completed`."""

    service: str
    condition: str = RUNNING


def parse_dependencies(labels: Mapping[str, str]) -> tuple[Dependency, ...]:
    """Read `db,migrate:completed`. Raises InvalidArgument."""
    found = []
    for word in filter(None, (part.strip() for part in labels.get(DEPENDS_ON, "").split(","))):
        name, _, condition = word.partition(":")
        condition = condition or RUNNING
        if not name or condition not in CONDITIONS:
            raise InvalidArgument(
                f'service label {DEPENDS_ON}: "{word}": write SERVICE or SERVICE:{" or SERVICE:".join(CONDITIONS)}'
            )
        found.append(Dependency(service=name, condition=condition))
    return tuple(found)


def what_is_waited_for(
    service: Service,
    by_name: Callable[[str], Service | None],
    tasks_of: Callable[[str], Iterable[Task]],
) -> str:
    """Return why a service's tasks cannot start yet, empty if they can.

    Args:
        service: whose tasks are pending.
        by_name: finds a service.
        tasks_of: returns the tasks of a service by its id.
    """
    for dependency in parse_dependencies(service.spec.labels):
        other = by_name(dependency.service)
        if other is None:
            return f"waits for service {dependency.service}, which is not there"
        states = [task.status.state for task in tasks_of(other.id) if _is_of_run(task, other)]
        if dependency.condition == RUNNING and TaskState.RUNNING not in states:
            return f"waits for service {dependency.service} to run"
        if dependency.condition == COMPLETED and states.count(TaskState.COMPLETE) < _completions(other):
            return f"waits for service {dependency.service} to complete"
    return ""


def _is_of_run(task: Task, service: Service) -> bool:
    """Whether a task belongs to a job's present run; all tasks of other services do."""
    return service.job_status is None or task.job_iteration == service.job_status.iteration


def _completions(service: Service) -> int:
    job = service.spec.mode.replicated_job
    return job.total_completions or 0 if job is not None else 1
