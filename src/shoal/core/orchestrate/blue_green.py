"""Updates that give all traffic to the new tasks at once (shoal.update.strategy=blue-green).

The old tasks (blue) are left alone while the new ones (green) come up beside them, withheld from every balancer and
name. When all of those run, one action of the store gives traffic to them and stops the others: at one index, so all
nodes hear of it as one version of the network. Who is which stands in the tasks, so that another leader goes on.
"""

from __future__ import annotations

from collections.abc import Iterator

from shoal.core.orchestrate.phase import withholds
from shoal.core.orchestrate.plan import Plan
from shoal.core.orchestrate.update_progress import Turn
from shoal.model.actions import SwitchTraffic
from shoal.model.objects import Task, UpdateStatus
from shoal.model.states import TaskState


def is_ahead(turn: Turn) -> bool:
    """Whether traffic is to go over: tasks are outdated, or withheld from it."""
    return withholds(turn.service) and any(task.withheld or turn.is_dirty(task) for task in _active(turn))


def tidy(plan: Plan, turn: Turn) -> None:
    """Take back new tasks that nothing will come of; give traffic to those that do not wait for others any more.

    The spec has changed since they were made, the task beside them is up to date after all, or the strategy is another.
    """
    is_withholding, released = withholds(turn.service), []
    for slot in (*turn.slots.values(), *turn.resting.values()):
        is_current = any(not task.withheld and not turn.is_dirty(task) for task in slot.active)
        for task in slot.active:
            if task.withheld and (turn.is_dirty(task) or is_current):
                plan.desire(task, TaskState.SHUTDOWN, "traffic does not go over to it any more")
            elif task.withheld and not is_withholding:
                released.append(task.id)
    if released:
        action = SwitchTraffic(
            service_id=turn.service.id, spec_version=turn.service.spec_version, released_task_ids=tuple(released)
        )
        plan.add(action, f"{len(released)} tasks take traffic: the service is updated slot by slot now")


def give_up(plan: Plan, turn: Turn) -> None:
    """Take back the new tasks of an update that has failed: the old ones keep the traffic."""
    for slot in (*turn.slots.values(), *turn.resting.values()):
        if any(not task.withheld for task in slot.active):
            for task in slot.active:
                if task.withheld:
                    plan.desire(task, TaskState.SHUTDOWN, f"the {turn.word} stands still")


def switch(plan: Plan, turn: Turn, done: UpdateStatus) -> None:
    """Give all traffic to the new tasks, stop the old ones, and end the update: one action."""
    tasks = [task for task in _active(turn) if plan.is_wanted(task)]
    action = SwitchTraffic(
        service_id=turn.service.id,
        spec_version=turn.service.spec_version,
        released_task_ids=tuple(task.id for task in tasks if task.withheld),
        stopped_task_ids=tuple(task.id for task in tasks if not task.withheld and turn.is_dirty(task)),
        update_status=done,
    )
    plan.add(action, f"all traffic goes over to {len(action.released_task_ids)} new tasks")


def _active(turn: Turn) -> Iterator[Task]:
    for slot in (*turn.slots.values(), *turn.resting.values()):
        yield from slot.active
