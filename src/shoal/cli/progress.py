"""How far a service has come: of its spec, tasks and nodes the state of each task. Pure (docker-swarm.md 1.0)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Json = Mapping[str, Any]

# the way of a task, in order; what comes after running is an end
STATES = ("new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running")
ENDED = ("complete", "shutdown", "failed", "rejected", "remove", "orphaned")
_RANK = {state: rank for rank, state in enumerate((*STATES, *ENDED), start=1)}
_DONE = _RANK["complete"]
MOST_LINES = 20
# how the message of an update that waits for its promotion begins (docs/reference/extensions.md)
AWAITING_PROMOTION = "awaiting promotion"
DEFAULT_MONITOR_NS = 5_000_000_000


class Slot(NamedTuple):
    """A task that should run: its number or node, how far it is, and what went wrong last."""

    name: str
    state: str
    error: str = ""


class Progress(NamedTuple):
    """`running` of `wanted` tasks run (of a job: are complete); `slots` say how far each is."""

    running: int
    wanted: int
    slots: tuple[Slot, ...] = ()
    # a global service without tasks: they are not made yet, or no node fits
    waiting: bool = False
    job: bool = False

    @property
    def converged(self) -> bool:
        """Whether as many run as should, and none besides."""
        return not self.waiting and self.running == self.wanted and len(self.slots) <= self.wanted


def is_job(service: Json) -> bool:
    """Whether a service's tasks end by themselves."""
    mode = service["Spec"].get("Mode") or {}
    return "ReplicatedJob" in mode or "GlobalJob" in mode


def monitor_ns(service: Json) -> int:
    """Return how long a service must hold before it counts as converged."""
    return int((service["Spec"].get("UpdateConfig") or {}).get("Monitor") or DEFAULT_MONITOR_NS)


def promotion_awaited(service: Json) -> str:
    """Return what an update says that stands still after its canaries, as it was asked to; else empty."""
    status = service.get("UpdateStatus") or {}
    message = str(status.get("Message", ""))
    return message if status.get("State") == "paused" and message.startswith(AWAITING_PROMOTION) else ""


def failure_of(service: Json) -> str:
    """Return why an update has stopped, empty while it has not."""
    status = service.get("UpdateStatus") or {}
    if status.get("State") == "paused":
        return f"service update paused: {status.get('Message', '')}"
    if status.get("State") == "rollback_paused":
        return f"service rollback paused: {status.get('Message', '')}"
    return ""


def measure(service: Json, tasks: Sequence[Json], nodes: Sequence[Json]) -> Progress:
    """Count.

    Args:
        service: as the API gives it.
        tasks: its tasks that are up to date.
        nodes: all nodes: what was on a node that is down does not count.
    """
    live = {node["ID"]: node for node in nodes if node["Status"]["State"] != "down"}
    mode = service["Spec"].get("Mode") or {}
    if is_job(service):
        return _measure_job(service, tasks, live)
    by_slot: dict[str, Json] = {}
    for task in tasks:
        node_id = task.get("NodeID", "")
        if _RANK.get(task["DesiredState"], 0) > _RANK["running"] or (node_id and node_id not in live):
            continue
        key = node_id if "Global" in mode else str(task.get("Slot", 0))
        other = by_slot.get(key)
        if not key or (other is not None and _is_newer(other, task)):
            continue
        by_slot[key] = task
    if "Global" in mode:
        names = {key: (live[key].get("Description") or {}).get("Hostname") or key for key in by_slot}
        slots = tuple(_slot(names[key], by_slot[key]) for key in sorted(by_slot, key=lambda key: names[key]))
        wanted = len(by_slot)
    else:
        wanted = int((mode.get("Replicated") or {}).get("Replicas", 1))
        slots = tuple(_slot(key, by_slot[key]) for key in sorted(by_slot, key=int))
    running = sum(slot.state == "running" for slot in slots)
    return Progress(running=running, wanted=wanted, slots=slots, waiting="Global" in mode and not slots)


def _measure_job(service: Json, tasks: Sequence[Json], live: Mapping[str, Json]) -> Progress:
    """Count the completions of a job's present run."""
    mode = service["Spec"]["Mode"]
    is_global = "GlobalJob" in mode
    iteration = ((service.get("JobStatus") or {}).get("JobIteration") or {}).get("Index", 0)
    by_slot: dict[str, Json] = {}
    for task in tasks:
        if (task.get("JobIteration") or {}).get("Index", 0) != iteration or _RANK.get(task["DesiredState"], 0) > _DONE:
            continue
        node_id = task.get("NodeID", "")
        key = node_id if is_global else str(task.get("Slot", 0) + 1)
        is_complete = task["Status"]["State"] == "complete"
        if (node_id and node_id not in live and not is_complete) or (
            key in by_slot and by_slot[key]["Status"]["State"] == "complete"
        ):
            continue
        by_slot[key] = task
    names = {key: ((live.get(key) or {}).get("Description") or {}).get("Hostname") or key for key in by_slot}
    order = sorted(by_slot, key=(lambda key: names[key]) if is_global else int)
    slots = tuple(_slot(names[key] if is_global else key, by_slot[key]) for key in order)
    total = len(by_slot) if is_global else int(mode["ReplicatedJob"].get("TotalCompletions", 1))
    complete = sum(slot.state == "complete" for slot in slots)
    return Progress(running=complete, wanted=total, slots=slots, waiting=is_global and not slots, job=True)


def _is_newer(one: Json, other: Json) -> bool:
    return (_RANK.get(one["Status"]["State"], 0) <= _RANK["running"], one["CreatedAt"]) > (
        _RANK.get(other["Status"]["State"], 0) <= _RANK["running"],
        other["CreatedAt"],
    )


def _slot(name: str, task: Json) -> Slot:
    return Slot(name=name, state=task["Status"]["State"], error=task["Status"].get("Err", ""))


def describe(progress: Progress, bar_width: int = 0) -> list[str]:
    """Return the lines that show a state: one for all, one a task while there are few.

    Args:
        progress: the state.
        bar_width: of the bar a task, which shows how far it is on its way; 0 for none.
    """
    if progress.waiting:
        return ["overall progress: waiting for new tasks"]
    what = "complete" if progress.job else "tasks"
    lines = [f"{'job' if progress.job else 'overall'} progress: {progress.running} out of {progress.wanted} {what}"]
    if progress.wanted <= MOST_LINES:
        for slot in progress.slots[:MOST_LINES]:
            place = f"{slot.name}/{progress.wanted}" if slot.name.isdecimal() else slot.name
            told = slot.error or _bar(slot.state, bar_width)
            lines.append(f"{place}: {slot.state.ljust(9)} {told}".rstrip())
    return lines


def _bar(state: str, width: int) -> str:
    """Draw how far a state is from running; none for what has ended otherwise than it should."""
    if not width or _RANK.get(state, _DONE + 1) > _DONE:
        return ""
    full = width * min(_RANK[state], len(STATES)) // len(STATES)
    return f"[{'=' * (full - 1)}>{' ' * (width - full)}]"
