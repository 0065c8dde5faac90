"""Filters, spread and words of the scheduler (docker-swarm.md 4.5)."""

from __future__ import annotations

from collections import Counter

import pytest

from shoal.core.constraint import parse
from shoal.core.schedule.filters import Request
from shoal.core.schedule.nodes import FAILURE_WINDOW_NS, NodeInfo, survey
from shoal.core.schedule.place import confirm, explain, place
from shoal.core.schedule.resources import Needs, needs_of
from shoal.model.base import replace
from shoal.model.objects import Node, NodeDescription, NodeStatus, Revision, Service, Task, TaskStatus
from shoal.model.specs import (
    EndpointSpec,
    GenericResource,
    NodeSpec,
    Placement,
    Platform,
    PortConfig,
    ResourceRequirements,
    Resources,
    ServiceSpec,
    TaskSpec,
)
from shoal.model.states import NodeState, TaskState
from tests.doubles.swarm import PureSwarm, service_spec


def node(id_: str, *, state: NodeState = NodeState.READY, availability: str = "active", **labels: str) -> Node:
    description = NodeDescription(
        platform=Platform(architecture="x86_64", os="linux"),
        resources=Resources(
            nano_cpus=2_000_000_000,
            memory_bytes=1 << 30,
            generic_resources=(
                GenericResource(discrete_resource_spec={"Kind": "ssd", "Value": 2}),
                GenericResource(named_resource_spec={"Kind": "gpu", "Value": "a"}),
                GenericResource(named_resource_spec={"Kind": "gpu", "Value": "b"}),
            ),
        ),
    )
    spec = NodeSpec(availability=availability, labels=labels)
    return Node(id=id_, spec=spec, status=NodeStatus(state=state), description=description)


def infos(*nodes: Node) -> dict[str, NodeInfo]:
    return {one.id: NodeInfo(one) for one in nodes}


def request(**fields: object) -> Request:
    return Request(service_id="s", spec_version=1, **({"needs": Needs()} | fields))  # type: ignore[arg-type]


def chosen(wanted: Request, count: int, known: dict[str, NodeInfo]) -> Counter[str]:
    return Counter(place(wanted, count, known).node_ids)


@pytest.mark.parametrize(
    ("bad", "wanted", "words"),
    [
        (node("n1", state=NodeState.DOWN), request(), "1 node not available for new tasks"),
        (node("n1", availability="pause"), request(), "1 node not available for new tasks"),
        (node("n1", availability="drain"), request(), "1 node not available for new tasks"),
        (node("n1"), request(needs=Needs(nano_cpus=3_000_000_000)), "insufficient resources on 1 node"),
        (node("n1"), request(needs=Needs(memory_bytes=2 << 30)), "insufficient resources on 1 node"),
        (node("n1"), request(needs=Needs(generic=(("gpu", 3),))), "insufficient resources on 1 node"),
        (node("n1"), request(needs=Needs(generic=(("tpu", 1),))), "insufficient resources on 1 node"),
        (
            node("n1"),
            request(constraints=parse(("node.id==n2",))),
            "scheduling constraints not satisfied on 1 node",
        ),
        (node("n1"), request(platforms=(Platform(architecture="arm64"),)), "unsupported platform on 1 node"),
        (node("n1"), request(platforms=(Platform(os="windows"),)), "unsupported platform on 1 node"),
        (node("n1"), request(is_encrypted=True), "no WireGuard for encrypted networks on 1 node"),
    ],
)
def test_each_filter_and_its_words(bad: Node, wanted: Request, words: str) -> None:
    placement = place(wanted, 1, infos(bad))
    assert placement.node_ids == ()
    assert placement.explanation.startswith(f"no suitable node ({words})")
    preassigned = confirm(wanted, "n1", infos(bad))
    assert (preassigned.node_ids, preassigned.explanation) == ((), placement.explanation)


def test_words_are_sorted_by_how_many_nodes_they_are_about() -> None:
    known = infos(node("n1", state=NodeState.DOWN), node("n2"), node("n3"), node("n4", disk="ssd"))
    wanted = request(constraints=parse(("node.labels.disk==ssd",)), platforms=(Platform(os="windows"),))
    assert place(wanted, 1, known).explanation == (
        "no suitable node (scheduling constraints not satisfied on 2 nodes; "
        "1 node not available for new tasks; unsupported platform on 1 node)"
    )
    assert place(request(), 1, {}).explanation == "no suitable node"


def test_tasks_on_encrypted_networks_go_to_nodes_with_a_key() -> None:
    able = node("n2")
    able = replace(able, description=replace(able.description, wireguard_key="k"))
    assert chosen(request(is_encrypted=True), 2, infos(node("n1"), able)) == {"n2": 2}


@pytest.mark.parametrize("platform", [Platform(), Platform(architecture="amd64", os="linux"), Platform(os="linux")])
def test_platforms_that_fit(platform: Platform) -> None:
    assert chosen(request(platforms=(platform,)), 1, infos(node("n1"))) == {"n1": 1}


@pytest.mark.parametrize(
    ("machine", "image", "fits"),
    [
        ("armv7l", "arm", True), ("armv6l", "arm", True), ("i686", "386", True), ("aarch64", "arm64", True),
        ("arm64", "aarch64", True), ("riscv64", "riscv64", True),
        ("armv7l", "arm64", False), ("aarch64", "arm", False), ("x86_64", "386", False),
    ],
)  # fmt: skip
def test_architectures_are_the_same_by_the_kernels_name_and_by_gos(machine: str, image: str, fits: bool) -> None:
    description = replace(node("n1").description, platform=Platform(architecture=machine, os="linux"))
    one = replace(node("n1"), description=description)
    wanted = request(platforms=(Platform(architecture=image, os="linux"),))
    assert chosen(wanted, 1, infos(one)) == ({"n1": 1} if fits else {})


def test_resources_are_used_up_by_reservations() -> None:
    wanted = request(needs=Needs(nano_cpus=800_000_000, generic=(("ssd", 1),)))
    placement = place(wanted, 5, infos(node("n1"), node("n2")))
    assert Counter(placement.node_ids) == {"n1": 2, "n2": 2}
    assert placement.explanation == (
        "no suitable node (insufficient resources on 2 nodes): CPUs: 0.8 asked, 0.4 left at most"
    )


def test_the_scarcest_resource_is_the_one_that_most_nodes_lack() -> None:
    wanted = request(needs=Needs(nano_cpus=1, memory_bytes=2 << 30, generic=(("ssd", 1), ("tpu", 1))))
    known = infos(node("n1"), node("n2"))
    assert explain(wanted, known).endswith("): memory: 2GiB asked, 1GiB left at most")
    assert explain(request(needs=Needs(generic=(("gpu", 3),))), known).endswith("): gpu: 3 asked, 2 left at most")


def test_named_resources_are_given_to_one_task_each() -> None:
    wanted = request(needs=Needs(generic=(("gpu", 1), ("ssd", 1))))
    known = infos(node("n1"))
    ssd = GenericResource(discrete_resource_spec={"Kind": "ssd", "Value": 1})

    def gpu(name: str) -> GenericResource:
        return GenericResource(named_resource_spec={"Kind": "gpu", "Value": name})

    assert place(wanted, 3, known).claims == ((gpu("a"), ssd), (gpu("b"), ssd))
    # what is taken already, by a task that is there
    taken = NodeInfo(node("n1"))
    taken.add("other", Needs(generic=(("gpu", 1),)), claimed=(gpu("a"),))
    assert place(wanted, 2, {"n1": taken}).claims == ((gpu("b"), ssd),)


def test_host_ports_and_bounds_a_node() -> None:
    ports = request(needs=Needs(host_ports=(("tcp", 80),)))
    placement = place(ports, 3, infos(node("n1"), node("n2")))
    assert Counter(placement.node_ids) == {"n1": 1, "n2": 1}
    assert placement.explanation == "no suitable node (host-mode port already in use on 2 nodes)"
    placement = place(request(max_replicas=2), 5, infos(node("n1"), node("n2")))
    assert Counter(placement.node_ids) == {"n1": 2, "n2": 2}
    assert placement.explanation == "no suitable node (max replicas per node limit exceed)"


def test_fewer_tasks_of_the_service_come_before_fewer_tasks() -> None:
    known = infos(node("n1"), node("n2"), node("n3"))
    known["n1"].add("s", Needs())
    for _ in range(3):
        known["n2"].add("other", Needs())
    assert place(request(), 1, dict(known)).node_ids == ("n3",)
    assert place(request(), 1, dict(known)).node_ids == ("n2",), "n1 and n3 have one of the service"


def test_a_node_where_it_failed_five_times_comes_last() -> None:
    known = infos(node("n1"), node("n2"))
    known["n1"].failures[("s", 1)] = 4
    assert place(request(), 1, known).node_ids == ("n1",), "four are none"
    known = infos(node("n1"), node("n2"))
    known["n1"].failures[("s", 1)] = 5
    assert chosen(request(), 3, known) == {"n2": 3}
    assert chosen(replace(request(), spec_version=2), 1, known) == {"n1": 1}, "another version starts afresh"


def test_spread_preferences_fill_branches_evenly() -> None:
    known = infos(node("n1", zone="a"), node("n2", zone="a"), node("n3", zone="b"), node("n4"))
    assert chosen(request(spread=("node.labels.zone",)), 6, known) == {"n1": 1, "n2": 1, "n3": 2, "n4": 2}


def test_nested_preferences_and_full_branches() -> None:
    known = infos(
        node("a1", zone="a", rack="1"),
        node("a2", zone="a", rack="2"),
        node("a3", zone="a", rack="2"),
        node("b1", zone="b"),
    )
    wanted = request(spread=("node.labels.zone", "node.labels.rack"))
    assert chosen(wanted, 8, known) == {"a1": 2, "a2": 1, "a3": 1, "b1": 4}
    known = infos(node("n1", zone="a"), node("n2", zone="b"), node("n3", zone="b"))
    wanted = request(spread=("node.labels.zone",), max_replicas=2)
    assert chosen(wanted, 6, known) == {"n1": 2, "n2": 2, "n3": 2}, "what is full gives to the others"


def test_a_node_that_is_gone_is_said() -> None:
    assert confirm(request(), "n9", {}).explanation == "no suitable node (its node is gone)"


def test_the_survey_counts_what_is_on_nodes() -> None:
    spec = ServiceSpec(
        task_template=TaskSpec(
            resources=ResourceRequirements(reservations=Resources(nano_cpus=1, memory_bytes=2)),
        ),
        endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=1, published_port=80, publish_mode="host"),)),
    )
    revision = Revision(id="s.1", service_id="s", spec_version=1, spec=spec)
    now = 10 * FAILURE_WINDOW_NS

    def task(state: TaskState, applied_at_ns: int = now, **more: object) -> Task:
        status = TaskStatus(state=state, applied_at_ns=applied_at_ns)
        return replace(Task(id="t", service_id="s", spec_version=1, node_id="n1", status=status), **more)

    tasks = [
        task(TaskState.PENDING),
        task(TaskState.RUNNING),
        task(TaskState.RUNNING, desired_state=TaskState.SHUTDOWN),
        task(TaskState.FAILED),
        task(TaskState.REJECTED),
        task(TaskState.SHUTDOWN),
        task(TaskState.FAILED, applied_at_ns=now - FAILURE_WINDOW_NS),
    ]
    info = survey([node("n1")], lambda _id: tasks, lambda _task: revision, lambda _id: None, now)["n1"]
    assert info.nano_cpus == 2_000_000_000 - 2
    assert info.memory_bytes == (1 << 30) - 4
    assert info.host_ports == {("tcp", 80): 2}
    assert (info.tasks_total, info.tasks_by_service["s"]) == (1, 1), (
        "one that stops holds its ports, but counts as gone"
    )
    assert info.failures == {("s", 1): 2}


def test_allocated_host_ports_count_with_the_asked() -> None:
    spec = ServiceSpec(endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=1, publish_mode="host"),)))
    assert needs_of(spec, Service(id="s", spec=spec)).host_ports == ()


def test_an_update_at_the_bound_of_a_node_goes_on_when_the_old_task_is_told_to_stop() -> None:
    swarm = PureSwarm(2)
    id_ = swarm.create(service_spec("web", 2, placement=Placement(max_replicas=1)))
    swarm.settle()
    swarm.set_image(id_, "new")
    swarm.settle()
    assert {task.spec_version for task in swarm.running(id_)} == {2}
    assert {task.node_id for task in swarm.running(id_)} == {"n1", "n2"}
