"""What tasks are to be forgotten: history beyond the limit, removed tasks that have stopped (docker-swarm.md 4.4)."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.cron import runs_kept
from shoal.core.defaults import restart_policy
from shoal.core.orchestrate.slots import RevisionOf, age_key
from shoal.model.actions import Remove
from shoal.model.objects import Service, Task
from shoal.model.states import TaskState


def plan_reaping(
    service: Service | None, tasks: Iterable[Task], limit: int, revision_of: RevisionOf
) -> tuple[Remove, ...]:
    """Return the removals of tasks of one service.

    Args:
        service: None if it is gone: then every task that cannot run any more goes.
        tasks: the service's tasks.
        limit: how many tasks a slot (or a node of a global service) keeps; negative keeps all. A service that runs
            at times may say itself how many.
        revision_of: gives a task's revision; a bound on restarts keeps as many tasks as are needed to count them.
    """
    doomed: list[Task] = []
    places: dict[str, list[Task]] = {}
    for task in tasks:
        if task.desired_state == TaskState.REMOVE or service is None:
            if _is_over(task):
                doomed.append(task)
        else:
            places.setdefault(_place(service, task), []).append(task)
    runs = runs_kept(service.spec.labels) if service is not None and service.job_status is None else None
    # a run of a service that is no job makes its tasks anew: one a slot
    limit = limit if runs is None else runs + 1
    if limit >= 0:
        for members in places.values():
            members.sort(key=age_key)
            attempts = restart_policy(revision_of(members[-1]).spec.task_template).max_attempts
            kept = max(limit, attempts + 1) if attempts else limit
            surplus = len(members) - max(kept, 1)
            for task in members[:-1]:
                if surplus <= 0:
                    break
                if _is_over(task) and not task.is_wanted:
                    doomed.append(task)
                    surplus -= 1
    return tuple(Remove(kind="task", id=task.id) for task in doomed)


def _place(service: Service, task: Task) -> str:
    """Return the place a task's history is kept by: the slots of a job begin at 0, which elsewhere means a node."""
    return str(task.slot) if task.slot or service.spec.mode.replicated_job is not None else task.node_id


def _is_over(task: Task) -> bool:
    """Whether a task can be deleted: it has ended, or no node ever had it."""
    return task.status.state.is_terminal or task.status.state < TaskState.ASSIGNED
