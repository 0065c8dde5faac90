"""Slots: the tasks of a service by the place they fill.

A place is a slot number (replicated services) or a node (global services). Of its tasks at most a few are active
(wanted to run); the others are its history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from shoal.core import constraint
from shoal.core.defaults import restart_policy
from shoal.core.privileges import parse_privileges
from shoal.model.base import replace
from shoal.model.objects import Node, Revision, Service, Task
from shoal.model.specs import EndpointSpec, Placement, TaskSpec
from shoal.model.states import Availability, NodeState, TaskState

RevisionOf = Callable[[Task], Revision]
Place = int | str


def age_key(task: Task) -> tuple[int, int, str]:
    """Return what tasks are ordered by, oldest first: a later write to a task does not make it younger."""
    return (task.meta.created_version, task.meta.created_at_ns, task.id)


class Slot:
    """The tasks of one place, oldest first."""

    def __init__(self, place: Place, tasks: Iterable[Task]) -> None:
        self.place = place
        self.tasks = sorted(tasks, key=age_key)
        self.active = [task for task in self.tasks if task.is_wanted]

    def by_traffic(self) -> Iterator[Slot]:
        """Yield tasks that take traffic, and those withheld from it, apart: neither kind replaces the other."""
        for members in ([t for t in self.tasks if not t.withheld], [t for t in self.tasks if t.withheld]):
            if members:
                yield Slot(self.place, members)

    @property
    def latest(self) -> Task:
        """The youngest task."""
        return self.tasks[-1]

    @property
    def is_running(self) -> bool:
        """Whether a wanted task of the slot is observed running."""
        return any(task.status.state == TaskState.RUNNING for task in self.active)


def group(tasks: Iterable[Task], by_node: bool) -> dict[Place, Slot]:
    """Group tasks by slot number, or by node."""
    groups: dict[Place, list[Task]] = {}
    for task in tasks:
        if task.desired_state < TaskState.REMOVE:
            groups.setdefault(task.node_id if by_node else task.slot, []).append(task)
    return {place: Slot(place, members) for place, members in groups.items()}


def should_restart(slot: Slot, task: Task, spec: TaskSpec) -> bool:
    """Whether an ended task of a slot is to be replaced (docker-swarm.md 4.2).

    `task` has ended. Attempts are counted from the slot's history: tasks of the same revision that came after the
    first; with a window, those created within it before the end.
    """
    policy = restart_policy(spec)
    if policy.condition == "none":
        return False
    is_job = task.job_iteration is not None
    if task.status.state == TaskState.COMPLETE and (policy.condition == "on-failure" or is_job):
        return False
    if policy.max_attempts == 0:
        return True
    tries = [other for other in slot.tasks if other.spec_version == task.spec_version]
    replacements = tries[1:]
    if policy.window_ns:
        ended_at = task.status.applied_at_ns
        replacements = [other for other in replacements if other.meta.created_at_ns > ended_at - policy.window_ns]
    return len(replacements) < policy.max_attempts


def is_node_gone(node: Node | None) -> bool:
    """Whether a node's tasks must run elsewhere: removed, down or drained."""
    return node is None or node.status.state == NodeState.DOWN or node.spec.availability == Availability.DRAIN


def is_dirty(task: Task, service: Service, revision_of: RevisionOf, node: Node | None) -> bool:
    """Whether a task was made from another template or endpoint than the service has now (docker-swarm.md 4.3).

    A task is not outdated if only the placement changed and its `node` (None: it has none) fulfils the new one.
    """
    if task.spec_version == service.spec_version:
        return False
    old, new = revision_of(task).spec, service.spec
    if old is new:
        return False
    if _endpoint(old.endpoint_spec) != _endpoint(new.endpoint_spec):
        return True
    if old.labels != new.labels and parse_privileges(old.labels) != parse_privileges(new.labels):
        return True
    was, now = comparable(old.task_template), comparable(new.task_template)
    if was == now:
        return False
    placement = now.placement or Placement()
    return (
        node is None
        or replace(was, placement=now.placement) != now
        or not constraint.matches_all(constraint.parse(placement.constraints), node)
    )


def comparable(template: TaskSpec) -> TaskSpec:
    """Return a template without what does not make a running task outdated: credentials of the pull."""
    container = template.container_spec
    if container is None or container.pull_options is None:
        return template
    return replace(template, container_spec=replace(container, pull_options=None))


def _endpoint(spec: EndpointSpec | None) -> EndpointSpec:
    """Return an endpoint with what holds where nothing is said: none is as good as an empty one."""
    spec = spec or EndpointSpec()
    return spec if spec.mode else replace(spec, mode="vip")
