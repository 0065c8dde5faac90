"""The life of a task on its node, as a table (docker-swarm.md 4.1).

The observed state only moves forward. What is desired bounds how far a task may go: a task that should be READY is
prepared and waits; one that should be SHUTDOWN or gone is stopped.
"""

from __future__ import annotations

from enum import StrEnum

from shoal.model.base import Struct, replace
from shoal.model.objects import ContainerStatus, TaskStatus
from shoal.model.specs import PortConfig
from shoal.model.states import TaskState


class Event(StrEnum):
    """What happened to a task on its node."""

    PROCEED = "proceed"
    PREPARED = "prepared"
    STARTED = "started"
    REFUSED = "refused"
    EXITED_CLEANLY = "exited cleanly"
    EXITED_WITH_ERROR = "exited with error"
    STOPPED = "stopped"


class Instruction(StrEnum):
    """What the node is to do next."""

    PROCEED = "proceed"
    PREPARE = "prepare"
    START = "start"
    WAIT = "wait"
    STOP = "stop"
    CLEAN = "clean"
    NOTHING = "nothing"


_S, _E, _I = TaskState, Event, Instruction

TRANSITIONS: dict[tuple[TaskState, Event], tuple[TaskState, Instruction]] = {
    (_S.ASSIGNED, _E.PROCEED): (_S.ACCEPTED, _I.PROCEED),
    (_S.ACCEPTED, _E.PROCEED): (_S.PREPARING, _I.PREPARE),
    (_S.PREPARING, _E.PROCEED): (_S.PREPARING, _I.PREPARE),
    (_S.PREPARING, _E.PREPARED): (_S.READY, _I.PROCEED),
    (_S.PREPARING, _E.REFUSED): (_S.REJECTED, _I.CLEAN),
    (_S.READY, _E.PROCEED): (_S.STARTING, _I.START),
    (_S.STARTING, _E.PROCEED): (_S.STARTING, _I.START),
    (_S.STARTING, _E.STARTED): (_S.RUNNING, _I.WAIT),
    (_S.STARTING, _E.REFUSED): (_S.FAILED, _I.CLEAN),
    # before its health check has passed for the first time
    (_S.STARTING, _E.EXITED_WITH_ERROR): (_S.FAILED, _I.CLEAN),
    (_S.RUNNING, _E.PROCEED): (_S.RUNNING, _I.WAIT),
    (_S.RUNNING, _E.EXITED_CLEANLY): (_S.COMPLETE, _I.CLEAN),
    (_S.RUNNING, _E.EXITED_WITH_ERROR): (_S.FAILED, _I.CLEAN),
} | {
    (state, _E.STOPPED): (_S.SHUTDOWN, _I.CLEAN)
    for state in (_S.ASSIGNED, _S.ACCEPTED, _S.PREPARING, _S.READY, _S.STARTING, _S.RUNNING)
}

MESSAGES: dict[TaskState, str] = {
    _S.ACCEPTED: "accepted",
    _S.PREPARING: "preparing",
    _S.READY: "prepared",
    _S.STARTING: "starting",
    _S.RUNNING: "started",
    _S.COMPLETE: "finished",
    _S.SHUTDOWN: "shutdown",
}


class Detail(Struct):
    """What an event brings along."""

    err: str = ""
    container: ContainerStatus | None = None
    host_ports: tuple[PortConfig, ...] | None = None


def decide(state: TaskState, desired: TaskState) -> Instruction:
    """Return what to do with a task in `state` of which `desired` is wanted."""
    if state.is_terminal:
        return Instruction.NOTHING
    if desired >= TaskState.SHUTDOWN:
        return Instruction.STOP
    if state >= TaskState.READY and desired < TaskState.RUNNING:
        return Instruction.NOTHING
    return Instruction.PROCEED


def advance(
    status: TaskStatus, event: Event, now_ns: int, detail: Detail | None = None
) -> tuple[TaskStatus, Instruction]:
    """Return the status after an event, and what to do next.

    Args:
        status: the present status.
        event: what happened.
        now_ns: time of the node, shown to people.
        detail: error text, container and ports the event brings; what it leaves out stays.

    Raises:
        ValueError: the event cannot happen in this state: a fault of the caller.
    """
    key = (status.state, event)
    if key not in TRANSITIONS:
        raise ValueError(f"a task that is {status.state.word} cannot have {event.value}")
    state, instruction = TRANSITIONS[key]
    assert state >= status.state, "the state of a task only moves forward"
    detail = detail or Detail()
    changed = replace(
        status,
        state=state,
        timestamp_ns=now_ns,
        # a failed task keeps the message of what it was doing; the error says the rest
        message=MESSAGES.get(state, status.message),
        err=detail.err,
        container=detail.container or status.container,
        host_ports=status.host_ports if detail.host_ports is None else detail.host_ports,
    )
    return changed, instruction
