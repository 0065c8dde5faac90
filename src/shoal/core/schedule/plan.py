"""One round of scheduling: every pending task gets a node, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.core import constraint
from shoal.core.schedule.filters import Request
from shoal.core.schedule.nodes import NodeInfo
from shoal.core.schedule.place import Placement, confirm, place
from shoal.core.schedule.resources import needs_of
from shoal.model.actions import PatchTask
from shoal.model.objects import Revision, Service, Task, TaskStatus
from shoal.model.specs import ServiceSpec
from shoal.model.states import TaskState

ASSIGNED_MESSAGE = "scheduler assigned task to node"
CONFIRMED_MESSAGE = "scheduler confirmed task can run on preassigned node"


def request_for(task: Task, revision: Revision, service: Service | None) -> Request:
    """Return what a task asks of a node."""
    is_encrypted = any(attachment.encrypted for attachment in task.attachments)
    return request_of(revision.spec, service, task.service_id, task.spec_version, is_encrypted=is_encrypted)


def request_of(
    spec: ServiceSpec, service: Service | None, service_id: str, spec_version: int, *, is_encrypted: bool = False
) -> Request:
    """Return what a task made from a spec asks of a node.

    Args:
        spec: of the service.
        service: as the store has it; None: none yet, and no ports were given to it.
        service_id: by which nodes count its tasks.
        spec_version: by which nodes count its failures.
        is_encrypted: a network of it is.
    """
    placement = spec.task_template.placement
    preferences = placement.preferences if placement else ()
    return Request(
        service_id=service_id,
        spec_version=spec_version,
        needs=needs_of(spec, service),
        constraints=constraint.parse(placement.constraints) if placement else (),
        platforms=placement.platforms if placement else (),
        is_encrypted=is_encrypted,
        max_replicas=placement.max_replicas if placement else 0,
        spread=tuple(preference.spread.spread_descriptor for preference in preferences if preference.spread),
    )


def plan_placement(
    tasks: Iterable[Task],
    infos: dict[str, NodeInfo],
    revision_of: Callable[[Task], Revision],
    service_of: Callable[[str], Service | None],
    now_ns: int,
) -> list[PatchTask]:
    """Plan a round over the tasks that are PENDING, wanted and wait for nothing; `infos` is used up by it."""
    groups: dict[tuple[str, int], list[Task]] = {}
    preassigned: list[Task] = []
    for task in tasks:
        if task.node_id:
            preassigned.append(task)
        else:
            groups.setdefault((task.service_id, task.spec_version), []).append(task)
    patches: list[PatchTask] = []
    for task in preassigned:
        request = request_for(task, revision_of(task), service_of(task.service_id))
        found = confirm(request, task.node_id, infos)
        patches.append(_patch(task, found, 0, CONFIRMED_MESSAGE, now_ns))
    for members in groups.values():
        members.sort(key=lambda task: (task.slot, task.id))
        request = request_for(members[0], revision_of(members[0]), service_of(members[0].service_id))
        found = place(request, len(members), infos)
        for position, task in enumerate(members):
            patches.append(_patch(task, found, position, ASSIGNED_MESSAGE, now_ns))
    return [patch for patch in patches if patch is not _UNCHANGED]


def hold_back(
    tasks: Iterable[Task], service_of: Callable[[str], Service | None], wait_of: Callable[[Service], str], now_ns: int
) -> tuple[list[Task], list[PatchTask]]:
    """Return the tasks that may be given a node, and what is to be said of those that wait.

    `wait_of` says what a service's tasks wait for; usually nothing.
    """
    waits: dict[str, str] = {}
    free, patches = [], []
    for task in tasks:
        if task.service_id not in waits:
            service = service_of(task.service_id)
            waits[task.service_id] = wait_of(service) if service is not None else ""
        if waits[task.service_id]:
            patches.append(_patch(task, Placement(node_ids=(), explanation=waits[task.service_id]), 0, "", now_ns))
        else:
            free.append(task)
    return free, [patch for patch in patches if patch is not _UNCHANGED]


_UNCHANGED = PatchTask(id="")


def _patch(task: Task, found: Placement, position: int, message: str, now_ns: int) -> PatchTask:
    if position < len(found.node_ids):
        return PatchTask(
            id=task.id,
            node_id=found.node_ids[position],
            status=TaskStatus(state=TaskState.ASSIGNED, timestamp_ns=now_ns, message=message),
            generic_resources=found.claims[position] or None,
        )
    explanation = found.explanation
    if task.status.err == explanation:
        return _UNCHANGED
    return PatchTask(
        id=task.id,
        status=TaskStatus(state=TaskState.PENDING, timestamp_ns=now_ns, message=task.status.message, err=explanation),
    )
