"""A plan: what to write, when to look again, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal.model.actions import Action, Create, PatchTask
from shoal.model.objects import Service, Task, TaskStatus
from shoal.model.states import TaskState

NewId = Callable[[], str]


class Plan:
    """Actions being gathered, the earliest time at which the plan should be made again, and the reasons."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self.wake_at_ns: int | None = None
        self.why: list[str] = []
        self.created_places: set[int | str] = set()
        self._ended: set[str] = set()

    def add(self, action: Action, why: str) -> None:
        """Add an action with its reason."""
        self.actions.append(action)
        self.why.append(why)

    def replace_all(self, action: Action, why: str) -> None:
        """Do only `action`: it changes what everything else was decided from, so the rest is planned anew."""
        self.actions, self.why, self.wake_at_ns = [action], [why], None

    def wake(self, at_ns: int) -> None:
        """Ask to be planned again at `at_ns` at the latest."""
        if self.wake_at_ns is None or at_ns < self.wake_at_ns:
            self.wake_at_ns = at_ns

    def desire(self, task: Task, state: TaskState, why: str) -> None:
        """Raise the desired state of a task; a state it has or is beyond is not written again."""
        if task.desired_state < state:
            if state > TaskState.COMPLETE:
                self._ended.add(task.id)
            self.add(PatchTask(id=task.id, desired_state=state), f"{task_label(task)}: {state.word}, {why}")

    def is_wanted(self, task: Task) -> bool:
        """Whether a task is to run, by what the store says and by what this plan has decided already."""
        return task.is_wanted and task.id not in self._ended

    def create(
        self,
        service: Service,
        new_id: NewId,
        now_ns: int,
        desired: TaskState,
        why: str,
        slot: int = 0,
        node_id: str = "",
        **more: Any,
    ) -> None:
        """Create a task of the service's current revision, in a slot or (global services) for a node.

        `more`: other fields of the task; another `spec_version` takes another revision.
        """
        fields = {
            "spec_version": service.spec_version,
            "job_iteration": service.job_status.iteration if service.job_status else None,
            **more,
        }
        task = new_task(
            new_id(), now_ns, service_id=service.id, slot=slot, node_id=node_id, desired_state=desired, **fields
        )
        self.created_places.add(node_id or slot)
        self.add(Create(object=task), f"{task_label(task)}: new, {why}")


def new_task(task_id: str, now_ns: int, **fields: Any) -> Task:
    """Return a task as it is when it is made; `fields`: whose it is, where it belongs and what is desired of it."""
    status = TaskStatus(state=TaskState.NEW, timestamp_ns=now_ns, applied_at_ns=now_ns, message="created")
    return Task(id=task_id, status=status, **fields)


def goal_of(service: Service) -> TaskState:
    """Return what is desired of a service's tasks when it is their turn: to run, or (a job's) to run to the end."""
    return TaskState.RUNNING if service.job_status is None else TaskState.COMPLETE


def task_label(task: Task) -> str:
    """Return how a task is called in a reason."""
    return f"slot {task.slot}" if task.slot or not task.node_id else f"node {task.node_id}"
