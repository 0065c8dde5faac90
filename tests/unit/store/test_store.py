from __future__ import annotations

import asyncio

import msgspec
import pytest

from shoal.errors import Conflict, InvalidArgument, NameConflict, NotFound, OutOfSequence
from shoal.lib.clock import ManualClock
from shoal.model.actions import (
    SWITCHING_LEVEL,
    Create,
    LogEntry,
    PatchNode,
    PatchService,
    PatchTask,
    Remove,
    Replace,
    SwitchTraffic,
)
from shoal.model.base import replace
from shoal.model.objects import (
    Attachment,
    Endpoint,
    Node,
    NodeStatus,
    Revision,
    Service,
    Task,
    TaskStatus,
    UpdateStatus,
    VirtualIP,
)
from shoal.model.specs import EndpointSpec, PortConfig, ServiceSpec
from shoal.model.states import NodeState, TaskState, UpdateState
from shoal.store.store import Store
from shoal.store.tables import Tables
from shoal.store.view import View
from tests.doubles.consensus import make_store


def service(id_: str, name: str, *ports: int, mode: str = "ingress") -> Service:
    endpoint = EndpointSpec(ports=tuple(PortConfig(target_port=80, published_port=p, publish_mode=mode) for p in ports))
    return Service(id=id_, spec=ServiceSpec(name=name, endpoint_spec=endpoint), spec_version=1)


def run(store: Store, *actions: object) -> int:
    return asyncio.run(store.update(lambda _view: actions))  # type: ignore[arg-type,return-value]


def test_create_sets_version_and_times() -> None:
    clock = ManualClock(now_ns=5)
    store = make_store(clock)
    index = run(store, Create(object=service("s1", "web")))
    found = store.view.get(Service, "s1")
    assert found is not None
    assert (found.meta.version, found.meta.created_at_ns, found.meta.updated_at_ns) == (index, 5, 5)
    clock.advance(1)
    run(store, Replace(object=found, expected_version=index))
    again = store.view.get(Service, "s1")
    assert again is not None
    assert again.meta.created_at_ns == 5
    assert again.meta.updated_at_ns == 1_000_000_005


def test_names_are_unique_whatever_their_case_and_a_failed_entry_leaves_nothing() -> None:
    store = make_store()
    run(store, Create(object=service("s1", "web")))
    with pytest.raises(NameConflict, match="service WEB already exists"):
        run(store, Create(object=service("s2", "other")), Create(object=service("s3", "WEB")))
    assert store.view.get(Service, "s2") is None
    assert store.view.by_name(Service, "other") is None
    assert store.view.revisions_of("s2") == ()


def test_stale_version_is_refused() -> None:
    store = make_store()
    index = run(store, Create(object=service("s1", "web")))
    with pytest.raises(OutOfSequence, match="update out of sequence"):
        run(store, Replace(object=service("s1", "web"), expected_version=index + 1))


def test_who_removes_what_must_exist_is_told_when_another_was_first() -> None:
    store = make_store()
    run(store, Create(object=service("s1", "web")))
    run(store, Remove(kind="service", id="s1", must_exist=True))
    with pytest.raises(NotFound, match="service s1 not found"):
        run(store, Remove(kind="service", id="s1", must_exist=True))
    run(store, Remove(kind="service", id="s1"))


def test_a_plan_that_refuses_is_asked_again_when_all_is_known() -> None:
    """A leader that was deposed without hearing of it would refuse by what was long ago."""
    store = make_store()

    async def late_news() -> int:
        store.apply(1, store.encode([Create(object=service("s1", "web"))]))
        return 1

    def plan(view: View) -> list[Remove]:
        if view.by_name(Service, "web") is None:
            raise NotFound("service web not found")
        return [Remove(kind="service", id="s1")]

    store.consensus.read_barrier = late_news  # type: ignore[method-assign]
    asyncio.run(store.update(plan))
    assert store.view.get(Service, "s1") is None


def test_published_ports_belong_to_one_service() -> None:
    store = make_store()
    run(store, Create(object=service("s1", "web", 80)))
    text = r"port '80' is already in use by service 'web' \(s1\) as an ingress port"
    with pytest.raises(InvalidArgument, match=text):
        run(store, Create(object=service("s2", "api", 80)))
    with pytest.raises(InvalidArgument, match=text):
        run(store, Create(object=service("s2", "api", 80, mode="host")))
    run(
        store,
        Create(object=service("s3", "dns", 53, mode="host")),
        Create(object=service("s4", "dns2", 53, mode="host")),
    )
    assert store.view.port_user("tcp", 80) is not None
    run(store, Remove(kind="service", id="s1"))
    assert store.view.port_user("tcp", 80) is None


def test_tasks_only_move_forward() -> None:
    store = make_store()
    run(store, Create(object=service("s1", "web")), Create(object=Task(id="t1", service_id="s1", spec_version=1)))
    run(store, PatchTask(id="t1", status=TaskStatus(state=TaskState.RUNNING), node_id="n1"))
    run(store, PatchTask(id="t1", status=TaskStatus(state=TaskState.PREPARING), node_id="n2"))
    run(store, PatchTask(id="t1", desired_state=TaskState.SHUTDOWN))
    index = run(store, PatchTask(id="t1", desired_state=TaskState.RUNNING), PatchTask(id="gone"))
    task = store.view.get(Task, "t1")
    assert task is not None
    assert (task.status.state, task.node_id, task.desired_state) == (TaskState.RUNNING, "n1", TaskState.SHUTDOWN)
    assert task.meta.version < index, "a patch that changes nothing writes nothing"
    assert [t.id for t in store.view.tasks_of_node("n1")] == ["t1"]


def test_unassigned_tasks_are_found_by_their_state() -> None:
    store = make_store()
    run(store, *(Create(object=Task(id=id_, service_id="s1", spec_version=1)) for id_ in ("t1", "t2", "t3")))
    run(store, PatchTask(id="t2", status=TaskStatus(state=TaskState.PENDING)))
    run(store, PatchTask(id="t3", status=TaskStatus(state=TaskState.ASSIGNED), node_id="n1"))
    assert [task.id for task in store.view.unassigned_tasks(TaskState.NEW)] == ["t1"]
    assert [task.id for task in store.view.unassigned_tasks(TaskState.PENDING)] == ["t2"]
    assert store.view.unassigned_tasks(TaskState.ASSIGNED) == ()


def test_addresses_are_never_given_twice_and_come_back_when_a_task_ends() -> None:
    store = make_store()
    attachment = (Attachment(network_id="net", addresses=("10.0.0.5/24",)),)
    run(store, Create(object=service("s1", "web")))
    run(
        store,
        PatchService(
            id="s1",
            spec_version=1,
            endpoint=Endpoint(virtual_ips=(VirtualIP(network_id="net", address="10.0.0.2/24"),)),
        ),
    )
    for id_ in ("t1", "t2"):
        run(store, Create(object=Task(id=id_, service_id="s1", spec_version=1)))
    run(store, PatchTask(id="t1", attachments=attachment))
    assert store.view.addresses_in_use("net") == {"10.0.0.2", "10.0.0.5"}
    with pytest.raises(Conflict, match=r"address 10\.0\.0\.5 of network net is in use by t1"):
        run(store, PatchTask(id="t2", attachments=attachment))
    with pytest.raises(Conflict, match="in use by s1"):
        run(store, PatchTask(id="t2", attachments=(Attachment(network_id="net", addresses=("10.0.0.2/24",)),)))
    run(store, PatchTask(id="t1", status=TaskStatus(state=TaskState.FAILED)))
    run(store, PatchTask(id="t2", attachments=attachment))
    # what is written about the ended one is no claim of it
    run(store, PatchTask(id="t1", desired_state=TaskState.REMOVE))
    assert store.view.get(Task, "t1").desired_state == TaskState.REMOVE  # type: ignore[union-attr]


def test_revisions_live_as_long_as_a_task_holds_them_or_they_are_recent() -> None:
    store = make_store()
    run(store, Create(object=service("s1", "web")), Create(object=Task(id="t1", service_id="s1", spec_version=1)))
    for version in range(2, 15):
        run(store, Replace(object=replace(service("s1", "web"), spec_version=version)))
    assert [r.spec_version for r in store.view.revisions_of("s1")] == [1, *range(5, 15)]
    run(store, Remove(kind="task", id="t1"))
    assert [r.spec_version for r in store.view.revisions_of("s1")] == list(range(5, 15))
    run(store, Create(object=Task(id="t2", service_id="s1", spec_version=14)))
    run(store, Remove(kind="service", id="s1"))
    assert [r.spec_version for r in store.view.revisions_of("s1")] == [14]
    run(store, Remove(kind="task", id="t2"))
    assert store.view.count(Revision) == 0


def test_a_patch_for_an_older_spec_is_ignored() -> None:
    store = make_store()
    run(store, Create(object=replace(service("s1", "web"), spec_version=2)))
    run(store, PatchService(id="s1", spec_version=1, endpoint=Endpoint(mode="vip")))
    found = store.view.get(Service, "s1")
    assert found is not None
    assert found.endpoint == Endpoint()


@pytest.mark.parametrize(("spec_version", "is_switched"), [(1, True), (2, False)])
def test_traffic_goes_over_at_one_index_or_not_at_all(spec_version: int, is_switched: bool) -> None:
    store = make_store()
    old, new = (Task(id=id_, service_id="s1", spec_version=1, withheld=id_ == "new") for id_ in ("old", "new"))
    run(store, Create(object=service("s1", "web")), Create(object=old), Create(object=new))
    done = UpdateStatus(state=UpdateState.COMPLETED)
    switch = SwitchTraffic(
        service_id="s1",
        spec_version=spec_version,
        released_task_ids=("new", "gone"),
        stopped_task_ids=("old", "gone"),
        update_status=done,
    )
    entry = msgspec.msgpack.decode(store.encode([switch]), type=LogEntry)
    assert (entry.feature_level, entry.actions) == (SWITCHING_LEVEL, (switch,))
    run(store, switch)
    found = {task.id: task for task in store.view.find(Task)}
    assert (found["old"].is_wanted, found["new"].withheld) == (not is_switched, not is_switched)
    after = store.view.get(Service, "s1")
    assert after is not None
    assert after.update_status == (done if is_switched else None)
    if is_switched:
        assert found["old"].meta.version == found["new"].meta.version == after.meta.version


def test_snapshot_is_what_was_there_when_it_began_and_restores_all() -> None:
    store = make_store()
    run(store, Create(object=service("s1", "web", 80)), Create(object=Node(id="n1")))
    run(store, PatchNode(id="n1", status=NodeStatus(state=NodeState.READY)))
    chunks = store.snapshot()
    first = next(chunks)
    run(store, Create(object=service("s2", "later")))
    snapshot = [first, *chunks]
    other = make_store()
    follower = other.follow()
    other.restore(snapshot)
    assert other.view.by_name(Service, "web") == store.view.by_name(Service, "web")
    assert other.view.by_name(Service, "later") is None
    assert other.view.port_user("tcp", 80) is not None
    assert other.view.events()[-1].attributes == {"name": "", "state.new": "ready", "state.old": "unknown"}
    assert follower.take().gap
    found = other.view.get(Service, "s1")
    revision = other.view.revision("s1", 1)
    assert found is not None
    assert revision is not None
    assert found.spec is revision.spec


def test_batch_splits_what_no_entry_can_hold() -> None:
    store = make_store()
    actions = [Create(object=Task(id=f"t{n}", service_id="s", spec_version=1)) for n in range(2500)]
    asyncio.run(store.batch(lambda _view: actions))
    assert store.view.count(Task) == 2500
    assert store.consensus.applied_index >= 3


def test_a_follower_sees_each_change_once_and_a_gap_when_it_is_too_slow() -> None:
    async def scenario() -> None:
        store = make_store()
        follower = store.follow("service")
        await store.update(lambda _view: [Create(object=service("s1", "web")), Create(object=Node(id="n1"))])
        batch = await follower.wait()
        assert [(c.id, c.old) for c in batch.changes] == [("s1", None)]
        assert not follower.take().changes
        for number in range(20_001):
            store._feed.publish(_change(number))
        assert follower.take().gap

    asyncio.run(scenario())


def _change(number: int):  # type: ignore[no-untyped-def]
    from shoal.store.apply import Change

    return [Change(kind="service", id=str(number), old=None, new=None)]


def test_waiting_followers_end_with_their_timeout() -> None:
    async def scenario() -> None:
        follower = make_store().follow("task")
        assert (await follower.wait(timeout_seconds=0.01)).changes == ()

    asyncio.run(scenario())


def test_everything_lists_all_tables() -> None:
    tables = Tables()
    tables.nodes.put(Node(id="n1"))
    assert [value.id for value in tables.everything()] == ["n1"]


def test_a_spec_version_stands_for_one_spec() -> None:
    store = make_store()
    run(store, Create(object=service("s1", "web")))
    with pytest.raises(Conflict, match="another spec needs another spec version than 1"):
        run(store, Replace(object=service("s1", "web", 80)))
    found = store.view.get(Service, "s1")
    assert found is not None
    assert found.spec.endpoint_spec == EndpointSpec()
