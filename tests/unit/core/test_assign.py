"""What a node is told, and that a node that takes it knows exactly what is wanted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.core.assign import Sent, diff
from shoal.model.base import replace
from shoal.model.container_spec import ConfigReference, ContainerSpec, SecretReference
from shoal.model.messages import Assignments
from shoal.model.objects import Config, Revision, Secret, Task, TaskStatus
from shoal.model.specs import ServiceSpec, TaskSpec
from shoal.model.states import TaskState


def task(id_: str, version: int = 1, state: TaskState = TaskState.ASSIGNED, **more: object) -> Task:
    value = Task(id=id_, service_id="s", spec_version=version, status=TaskStatus(state=state))
    return replace(value, **more)


def revision_of(one: Task) -> Revision:
    id_ = f"s.{one.spec_version}"
    return Revision(id=id_, service_id="s", spec_version=one.spec_version, spec=ServiceSpec(name="web"))


def told(sent: Sent, *wanted: Task) -> Assignments:
    message = diff(sent, wanted, revision_of)
    assert message is not None
    return message


def test_the_whole_comes_first_and_then_differences() -> None:
    sent = Sent()
    first = told(sent)
    assert (first.complete, first.sequence, first.tasks) == (True, 1, ())
    second = told(sent, task("t1"), task("t2", state=TaskState.PENDING))
    assert (second.complete, second.applies_to, second.sequence) == (False, 1, 2)
    assert [one.id for one in second.tasks] == ["t1"], "what is not assigned yet is nobody's"
    assert [one.id for one in second.revisions] == ["s.1"]
    assert diff(sent, [task("t1")], revision_of) is None


def test_a_nodes_own_reports_do_not_come_back_to_it_but_what_is_desired_does() -> None:
    sent = Sent()
    told(sent, task("t1"))
    assert diff(sent, [task("t1", state=TaskState.RUNNING)], revision_of) is None
    stop = told(sent, task("t1", state=TaskState.RUNNING, desired_state=TaskState.SHUTDOWN))
    assert [one.desired_state for one in stop.tasks] == [TaskState.SHUTDOWN]
    assert stop.revisions == (), "a revision is sent once"


def test_what_is_gone_is_named_with_revisions_nobody_needs() -> None:
    sent = Sent()
    told(sent, task("t1"), task("t2", 2))
    message = told(sent, task("t2", 2))
    assert (message.removed_task_ids, message.removed_revision_ids) == (("t1",), ("s.1",))
    again = told(sent, task("t2", 2), task("t3", 1))
    assert [one.id for one in again.revisions] == ["s.1"], "a revision that was taken back is sent anew"


tasks = st.lists(
    st.builds(
        task,
        st.sampled_from(["a", "b", "c", "d"]),
        st.integers(1, 3),
        st.sampled_from([TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING]),
        desired_state=st.sampled_from([TaskState.READY, TaskState.RUNNING, TaskState.SHUTDOWN]),
    ),
    max_size=4,
    unique_by=lambda one: one.id,
)


@given(st.lists(tasks, max_size=8))
def test_a_node_that_takes_every_message_knows_what_is_wanted(states: list[list[Task]]) -> None:
    sent = Sent()
    known: dict[str, TaskState] = {}
    revisions: set[str] = set()
    versions: dict[str, int] = {}
    sequence = 0
    for wanted in states:
        # a task is made from one revision for good
        wanted = [replace(one, spec_version=versions.setdefault(one.id, one.spec_version)) for one in wanted]
        message = diff(sent, wanted, revision_of)
        if message is not None:
            assert message.applies_to == sequence
            sequence = message.sequence
            revisions |= {one.id for one in message.revisions}
            for one in message.tasks:
                assert revision_of(one).id in revisions, "a revision comes with or before its tasks"
                known[one.id] = one.desired_state
            for id_ in message.removed_task_ids:
                del known[id_]
            revisions -= set(message.removed_revision_ids)
        expected = {one.id: one.desired_state for one in wanted if one.status.state >= TaskState.ASSIGNED}
        assert known == expected
        assert revisions == {revision_of(one).id for one in wanted if one.id in expected}


def using(*names: str) -> ContainerSpec:
    secrets = tuple(SecretReference(secret_id=name, secret_name=name) for name in names)
    return ContainerSpec(secrets=secrets, configs=(ConfigReference(config_id="c", config_name="c"),))


def test_secrets_and_configs_come_once_and_go_with_the_last_task_that_needs_them() -> None:
    containers = {1: using("a", "b"), 2: using("b"), 3: ContainerSpec()}

    def made_of(one: Task) -> Revision:
        spec = ServiceSpec(task_template=TaskSpec(container_spec=containers[one.spec_version]))
        return replace(revision_of(one), spec=spec)

    def step(*wanted: Task) -> tuple[list[str], list[str], tuple[str, ...], tuple[str, ...]]:
        message = diff(
            sent, wanted, made_of,
            secret_of=lambda id_: Secret(id=id_), config_of=lambda id_: Config(id=id_) if id_ != "gone" else None,
        )  # fmt: skip
        assert message is not None
        return (
            [each.id for each in message.secrets], [each.id for each in message.configs],
            message.removed_secret_ids, message.removed_config_ids,
        )  # fmt: skip

    sent = Sent()
    assert step(task("t3", 3)) == ([], [], (), ()), "a node that needs none gets none"
    assert step(task("t3", 3), task("t1", 1)) == (["a", "b"], ["c"], (), ())
    assert step(task("t3", 3), task("t1", 1), task("t2", 1)) == ([], [], (), ())
    assert step(task("t3", 3), task("t2", 2)) == ([], [], (), ()), "t2 was known"
    assert step(task("t4", 2)) == ([], [], ("a",), ())
    assert step(task("t5", 3)) == ([], [], ("b",), ("c",))
    assert step(task("t6", 2)) == (["b"], ["c"], (), ())
    containers[4] = ContainerSpec(configs=(ConfigReference(config_id="gone", config_name="g"),))
    assert step(task("t7", 4)) == ([], [], ("b",), ("c",)), "what is gone from the store is not sent"
