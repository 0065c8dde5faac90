"""After any disturbance the loops come to rest where exactly what is wanted runs, and there is nothing left to do."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.core.orchestrate.phase import awaits_promotion
from shoal.core.orchestrate.update import promoted
from shoal.model.base import replace
from shoal.model.specs import EndpointSpec, PortConfig, RestartPolicy, UpdateConfig
from shoal.model.states import Availability, NodeState, TaskState
from tests.doubles.swarm import BAD_IMAGE, LOOPS, SECOND, PureSwarm, job_spec, service_spec
from tests.property.test_updates import HOST_PORT, TEMPLATES, check_places

NODES = ("n1", "n2", "n3")
CANARY = {"shoal.update.canary": "1"}
WHOLE = {"shoal.update.canary": "100%"}
BLUE_GREEN = {"shoal.update.strategy": "blue-green"}
AUTO = {"shoal.rebalance": "auto"}
node_names = st.sampled_from(NODES)
disturbances = st.one_of(
    st.tuples(st.just("scale"), st.integers(0, 6)),
    st.tuples(st.just("image"), st.sampled_from(["a", "b", BAD_IMAGE])),
    st.tuples(st.just("fail"), st.integers(0, 9)),
    st.tuples(st.just("exit"), st.integers(0, 9)),
    st.tuples(st.just("down"), node_names),
    st.tuples(st.just("up"), node_names),
    st.tuples(st.just("drain"), node_names),
    st.tuples(st.just("pause"), node_names),
    st.tuples(st.just("active"), node_names),
    st.tuples(st.just("remove"), node_names),
    st.tuples(st.just("add"), node_names),
    st.tuples(st.just("decide"), st.sampled_from(LOOPS)),
    st.tuples(st.just("work"), st.integers(1, 4)),
    st.tuples(st.just("time"), st.integers(0, 7)),
    st.tuples(st.just("rounds"), st.integers(1, 30)),
    st.tuples(st.just("promote"), st.just(0)),
    st.tuples(st.just("rollback"), st.just(0)),
    st.tuples(st.just("rebalance"), st.just(0)),
    st.tuples(st.just("label"), st.sampled_from([CANARY, WHOLE, BLUE_GREEN, AUTO, {}])),
)
update_configs = st.builds(
    UpdateConfig,
    parallelism=st.integers(0, 3),
    delay=st.sampled_from([0, SECOND]),
    monitor=st.sampled_from([0, SECOND]),
    failure_action=st.sampled_from(["pause", "continue", "rollback"]),
    max_failure_ratio=st.sampled_from([0.0, 0.5]),
    order=st.sampled_from(["stop-first", "start-first"]),
)


def disturb(swarm: PureSwarm, id_: str, kind: str, argument: object) -> None:  # noqa: C901
    nodes = swarm.tables.nodes.rows
    match kind, argument:
        case "scale", int(replicas):
            if swarm.service(id_).spec.mode.replicated is not None:
                swarm.scale(id_, replicas)
        case "image", str(image):
            swarm.set_image(id_, image)
        case (("fail" | "exit"), int(number)):
            running = swarm.tasks(id_, TaskState.RUNNING)
            if running:
                swarm.finish(running[number % len(running)], code=1 if kind == "fail" else 0)
        case "promote", _ if awaits_promotion(swarm.service(id_)):
            swarm.patch_service(id_, update_status=promoted(swarm.now_ns))
        case "rollback", _:
            swarm.roll_back(id_)
        case "rebalance", _:
            swarm.patch_service(id_, rebalancing=True)
        case "label", dict(labels):
            # a canary that is no whole one does not go with blue-green
            swarm.update(id_, lambda spec: replace(spec, labels=labels))
        case "decide", str(loop):
            swarm.decide((loop,))
        case "work", int(times):
            for _ in range(times):
                swarm.work()
        case "time", int(seconds):
            swarm.now_ns += seconds * SECOND
        case "rounds", int(times):
            for _ in range(times):
                swarm.round()
        case "add", str(name) if name not in nodes:
            swarm.add_node(name)
            swarm.silent.discard(name)
        case _, str(name) if name in nodes:
            match kind:
                case "down":
                    swarm.set_state(name, NodeState.DOWN)
                case "up":
                    swarm.set_state(name, NodeState.READY)
                case "remove":
                    swarm.remove_node(name)
                case "drain" | "pause" | "active":
                    swarm.set_availability(name, Availability(kind))


def check_rest(swarm: PureSwarm, id_: str) -> None:
    service = swarm.service(id_)
    wanted = swarm.wanted(id_)
    nodes = swarm.tables.nodes.rows
    waiting = [task for task in wanted if task.status.state != TaskState.RUNNING]
    # On a paused node the tasks of global services stay as they were: waiting for the node, or failed.
    assert all(not task.slot and nodes[task.node_id].spec.availability == "pause" for task in waiting)
    usable = {n for n, node in nodes.items() if node.status.state == "ready" and node.spec.availability != "drain"}
    assert {task.node_id for task in wanted} <= usable
    replicated = service.spec.mode.replicated
    if replicated is not None:
        assert len({task.slot for task in wanted}) == len(wanted) == replicated.replicas
    else:
        active = {n for n in usable if nodes[n].spec.availability == "active"}
        # Beside a task that runs on a paused node its successor may wait (start-first): two never run.
        for group in (waiting, [task for task in wanted if task not in waiting]):
            assert len({task.node_id for task in group}) == len(group)
        places = [task.node_id for task in wanted]
        assert active <= set(places)
    for name in LOOPS:
        assert swarm.plan(name) == ([], []), name
    live = {
        address.partition("/")[0]
        for task in swarm.tasks(id_)
        if task.status.state <= TaskState.RUNNING
        for attachment in task.attachments
        for address in attachment.addresses
    }
    virtual = {vip.address.partition("/")[0] for vip in service.endpoint.virtual_ips}
    assert swarm.view.addresses_in_use("ingress-id") == live | virtual
    assert len(swarm.tasks(id_)) <= 5 * (6 + len(NODES)), "history is bounded"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    replicas=st.one_of(st.none(), st.integers(0, 5)),
    config=st.one_of(st.none(), update_configs),
    policy=st.sampled_from([None, RestartPolicy(delay=0), RestartPolicy(delay=3 * SECOND)]),
    published=st.booleans(),
    labels=st.sampled_from([{}, CANARY, WHOLE | BLUE_GREEN, BLUE_GREEN | AUTO, AUTO]),
    room=st.sampled_from(["plenty", "plenty", "resources", "max replicas", "host port"]),
    steps=st.lists(disturbances, max_size=40),
)
def test_what_is_wanted_runs_in_the_end(
    replicas: int | None,
    config: UpdateConfig | None,
    policy: RestartPolicy | None,
    published: bool,
    labels: dict[str, str],
    room: str,
    steps: list[tuple[str, object]],
) -> None:
    swarm = PureSwarm(3)
    spec = service_spec("web", replicas, restart_policy=policy, **TEMPLATES.get(room, {}))
    spec = replace(spec, update_config=config, labels=labels)
    if room == "host port":
        spec = replace(spec, endpoint_spec=HOST_PORT)
    elif published:
        spec = replace(spec, endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=80),)))
    id_ = swarm.create(spec)
    for kind, argument in steps:
        disturb(swarm, id_, kind, argument)
        wanted = swarm.wanted(id_)
        places = [task.slot or task.node_id for task in wanted]
        assert all(places.count(place) <= 2 for place in places), "one, and a successor that starts first"
        check_places(swarm, id_, 2)
    # The disturbances end: one node at least can run tasks, and the image is one that can be run.
    if not any(node.spec.availability == "active" for node in swarm.tables.nodes.rows.values()):
        disturb(swarm, id_, "add", "n1")
        disturb(swarm, id_, "active", "n1")
    for name in swarm.tables.nodes.rows:
        swarm.set_state(name, NodeState.READY)
    if replicas is not None and room != "plenty":
        disturb(swarm, id_, "scale", 1)  # as many as there is room for
    swarm.update(id_, lambda spec: replace(spec, labels={}))
    swarm.set_image(id_, "final")
    swarm.settle()
    check_rest(swarm, id_)
    current = swarm.service(id_)
    assert not any(task.withheld for task in swarm.running(id_))
    for task in swarm.wanted(id_):
        paused = swarm.node(task.node_id).spec.availability == "pause"
        container = swarm.view.revision_of(task).spec.task_template.container_spec
        assert container is not None
        assert container.image == "final" or (paused and current.spec.mode.global_ is not None)


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    at_once=st.one_of(st.none(), st.integers(1, 3)),
    total=st.integers(1, 5),
    delay_ns=st.sampled_from([0, 3 * SECOND]),
    steps=st.lists(disturbances, max_size=30),
)
def test_a_job_is_complete_in_the_end(
    at_once: int | None, total: int, delay_ns: int, steps: list[tuple[str, object]]
) -> None:
    swarm = PureSwarm(3)
    id_ = swarm.create(job_spec(at_once, total, restart_policy=RestartPolicy(delay=delay_ns)))
    for kind, argument in steps:
        disturb(swarm, id_, kind, argument)
        done, busy = job_places(swarm, id_)
        assert at_once is None or len(busy - done) <= at_once, "no more at a time than asked for"
    for name in NODES:
        disturb(swarm, id_, "add", name)
        disturb(swarm, id_, "active", name)
        disturb(swarm, id_, "up", name)
    swarm.bad_images.clear()
    swarm.settle()
    for _ in range(2 * total):
        for task in swarm.running(id_):
            swarm.finish(task, 0)
        swarm.settle()
    done, busy = job_places(swarm, id_)
    assert done == (set(NODES) if at_once is None else set(range(total)))
    assert busy <= done
    assert swarm.tasks(id_, TaskState.RUNNING) == []
    assert all(swarm.plan(name) == ([], []) for name in LOOPS)


def job_places(swarm: PureSwarm, id_: str) -> tuple[set[int | str], set[int | str]]:
    """Where a job's present run is complete, and where it has a task that is wanted."""
    service = swarm.service(id_)
    assert service.job_status is not None
    is_global = service.spec.mode.global_job is not None
    tasks = [task for task in swarm.tasks(id_) if task.job_iteration == service.job_status.iteration]
    place = {task.id: task.node_id if is_global else task.slot for task in tasks}
    done = {place[task.id] for task in tasks if task.status.state == TaskState.COMPLETE}
    return done, {place[task.id] for task in tasks if task.is_wanted}
