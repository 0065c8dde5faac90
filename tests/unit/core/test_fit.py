"""Whether what is to be deployed would find nodes."""

from __future__ import annotations

from shoal.core.schedule.fit import Fit, plan_fit
from shoal.core.schedule.nodes import NodeInfo
from shoal.core.schedule.resources import Needs
from shoal.model.objects import Node, NodeDescription, NodeStatus, Service, Task, TaskStatus
from shoal.model.specs import (
    GlobalService,
    NodeSpec,
    Placement,
    ReplicatedService,
    ResourceRequirements,
    Resources,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from shoal.model.states import NodeState, TaskState

GIB = 1 << 30


def info(id_: str, memory: int, **labels: str) -> NodeInfo:
    description = NodeDescription(resources=Resources(nano_cpus=10**10, memory_bytes=memory))
    return NodeInfo(
        Node(
            id=id_,
            spec=NodeSpec(availability="active", labels=labels),
            status=NodeStatus(state=NodeState.READY),
            description=description,
        )
    )


def spec(name: str, memory: int, replicas: int | None, *constraints: str) -> ServiceSpec:
    mode = (
        ServiceMode(global_=GlobalService())
        if replicas is None
        else ServiceMode(replicated=ReplicatedService(replicas=replicas))
    )
    resources = ResourceRequirements(reservations=Resources(memory_bytes=memory))
    placement = Placement(constraints=constraints)
    return ServiceSpec(name=name, mode=mode, task_template=TaskSpec(resources=resources, placement=placement))


def fit(specs: list[ServiceSpec], infos: list[NodeInfo], service: Service | None = None, *tasks: Task) -> list[Fit]:
    return plan_fit(
        specs,
        {each.node.id: each for each in infos},
        lambda name: service if service is not None and service.spec.name == name else None,
        lambda _id: tasks,
    )


def test_services_share_the_room_in_turn():
    first, second = fit([spec("a", GIB, 3), spec("b", GIB, 3)], [info("n1", 2 * GIB), info("n2", 2 * GIB)])
    assert (first.placed, first.wanted, first.explanation) == (3, 3, "")
    assert (second.placed, second.wanted) == (1, 3)
    assert second.explanation.startswith("no suitable node (insufficient resources on 2 nodes)")


def test_what_a_service_has_makes_room_for_what_replaces_it():
    service = Service(id="s", spec=spec("a", GIB, 1))
    full = info("n1", GIB)
    full.add("s", Needs(memory_bytes=GIB))
    task = Task(
        id="t",
        service_id="s",
        spec_version=1,
        node_id="n1",
        status=TaskStatus(state=TaskState.RUNNING),
        desired_state=TaskState.RUNNING,
    )
    assert fit([spec("a", GIB, 1)], [full], service, task)[0].placed == 1
    again = info("n1", GIB)
    again.add("s", Needs(memory_bytes=GIB))
    assert fit([spec("b", GIB, 1)], [again], service, task)[0].placed == 0


def test_a_global_service_asks_the_nodes_it_is_meant_for():
    nodes = [info("n1", GIB, disk="ssd"), info("n2", 2 * GIB, disk="ssd"), info("n3", GIB)]
    (found,) = fit([spec("a", 2 * GIB, None, "node.labels.disk==ssd")], nodes)
    assert (found.placed, found.wanted) == (1, 2)
    assert found.explanation.startswith("no suitable node (insufficient resources on 1 node)")
