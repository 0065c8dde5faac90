from __future__ import annotations

from itertools import product

import pytest

from shoal.core.taskfsm import TRANSITIONS, Detail, Event, Instruction, advance, decide
from shoal.model.objects import ContainerStatus, TaskStatus
from shoal.model.specs import PortConfig
from shoal.model.states import TaskState

OBSERVED = [state for state in TaskState if state is not TaskState.REMOVE]


@pytest.mark.parametrize("key", sorted(TRANSITIONS), ids=str)
def test_every_transition_of_the_table_moves_forward_and_says_what_comes_next(key: tuple[TaskState, Event]) -> None:
    state, event = key
    status, instruction = advance(TaskStatus(state=state, message="before"), event, 7)
    assert (status.state, instruction) == TRANSITIONS[key]
    assert status.state >= state
    assert status.timestamp_ns == 7
    assert status.state.is_terminal is (instruction is Instruction.CLEAN)


@pytest.mark.parametrize(
    ("state", "event"), sorted(set(product(TaskState, Event)) - set(TRANSITIONS)), ids=lambda value: value.name
)
def test_nothing_else_can_happen(state: TaskState, event: Event) -> None:
    with pytest.raises(ValueError, match=f"a task that is {state.word} cannot have {event.value}"):
        advance(TaskStatus(state=state), event, 0)


def test_from_every_state_of_a_node_a_task_can_be_stopped_and_nothing_leaves_an_end() -> None:
    on_node = [state for state in OBSERVED if TaskState.ASSIGNED <= state <= TaskState.RUNNING]
    assert {state for state, event in TRANSITIONS if event is Event.STOPPED} == set(on_node)
    assert not [state for state, _ in TRANSITIONS if state.is_terminal]


@pytest.mark.parametrize(("state", "desired"), list(product(OBSERVED, TaskState)), ids=lambda value: value.name)
def test_what_is_to_be_done(state: TaskState, desired: TaskState) -> None:
    """By docker-swarm.md 4.1: ended is ended; SHUTDOWN and beyond stop; READY waits prepared; else it goes on."""
    if state.is_terminal:
        expected = Instruction.NOTHING
    elif desired >= TaskState.SHUTDOWN:
        expected = Instruction.STOP
    elif desired < TaskState.RUNNING and state >= TaskState.READY:
        expected = Instruction.NOTHING
    else:
        expected = Instruction.PROCEED
    assert decide(state, desired) is expected


def test_what_goes_on_has_a_transition() -> None:
    for state, desired in product(OBSERVED, (TaskState.READY, TaskState.RUNNING)):
        if state >= TaskState.ASSIGNED and decide(state, desired) is Instruction.PROCEED:
            assert (state, Event.PROCEED) in TRANSITIONS


def test_details_are_kept_until_they_change_and_errors_are_of_one_event() -> None:
    port = (PortConfig(published_port=80),)
    container = ContainerStatus(container_id="c", pid=1)
    start = TaskStatus(state=TaskState.PREPARING, err="old")
    ready, _ = advance(start, Event.PREPARED, 1, Detail(container=container, host_ports=port))
    starting, _ = advance(ready, Event.PROCEED, 2)
    assert (starting.container, starting.host_ports, starting.err) == (container, port, "")
    failed, _ = advance(starting, Event.REFUSED, 3, Detail(err="no such file"))
    assert (failed.state, failed.err, failed.message) == (TaskState.FAILED, "no such file", "starting")
