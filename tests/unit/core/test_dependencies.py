"""Tasks that wait for other services."""

from __future__ import annotations

import pytest

from shoal.core.dependencies import Dependency, parse_dependencies, what_is_waited_for
from shoal.errors import InvalidArgument
from shoal.model.objects import JobStatus, Service, Task, TaskStatus
from shoal.model.specs import ReplicatedJob, ServiceMode, ServiceSpec
from shoal.model.states import TaskState

LABEL = "shoal.depends-on"


def task(state: TaskState, iteration: int | None = None) -> Task:
    return Task(id="t", service_id="other", spec_version=1, status=TaskStatus(state=state), job_iteration=iteration)


def reason(label: str, other: Service | None, *tasks: Task) -> str:
    service = Service(id="own", spec=ServiceSpec(name="own", labels={LABEL: label}))
    return what_is_waited_for(service, lambda name: other if name == "other" else None, lambda _id: tasks)


def test_the_label() -> None:
    assert parse_dependencies({}) == ()
    assert parse_dependencies({LABEL: "db, migrate:completed"}) == (
        Dependency(service="db"),
        Dependency(service="migrate", condition="completed"),
    )
    for bad in ("db:sometimes", ":running"):
        with pytest.raises(InvalidArgument, match="write SERVICE or SERVICE:running or SERVICE:completed"):
            parse_dependencies({LABEL: bad})


def test_what_a_service_waits_for() -> None:
    other = Service(id="other", spec=ServiceSpec(name="other"))
    assert reason("", other) == ""
    assert reason("other", None) == "waits for service other, which is not there"
    assert reason("other", other, task(TaskState.STARTING)) == "waits for service other to run"
    assert reason("other", other, task(TaskState.FAILED), task(TaskState.RUNNING)) == ""
    assert reason("other:completed", other, task(TaskState.RUNNING)) == "waits for service other to complete"
    assert reason("other:completed", other, task(TaskState.COMPLETE)) == ""


def test_a_job_is_complete_when_its_present_run_is() -> None:
    mode = ServiceMode(replicated_job=ReplicatedJob(total_completions=2))
    job = Service(id="other", spec=ServiceSpec(name="other", mode=mode), job_status=JobStatus(iteration=1))
    old, new = task(TaskState.COMPLETE, 0), task(TaskState.COMPLETE, 1)
    assert reason("other:completed", job, old, old, new) == "waits for service other to complete"
    assert reason("other:completed", job, new, new) == ""
