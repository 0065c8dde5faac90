"""Leader loops, dispatcher and agents together, over fake engines: what a service lives through."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from shoal.agent import agent
from shoal.model.actions import PatchNode, Remove, Replace
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.messages import OpenSession
from shoal.model.objects import Node, Revision, Service, Task
from shoal.model.specs import (
    EndpointSpec,
    GlobalService,
    Placement,
    PortConfig,
    ReplicatedService,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from shoal.model.states import Availability, TaskState, UpdateState
from tests.doubles.cluster import FakeCluster, running_cluster


def spec(name: str, replicas: int = 1, image: str = "busybox", **template: object) -> ServiceSpec:
    container = ContainerSpec(image=image, command=("sleep", "100"))
    return ServiceSpec(
        name=name,
        mode=ServiceMode(replicated=ReplicatedService(replicas=replicas)),
        task_template=TaskSpec(container_spec=container, **template),  # type: ignore[arg-type]
    )


def scenario(directory: Path, nodes: int, body: Callable[[FakeCluster], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running_cluster(directory, nodes) as cluster:
            await body(cluster)

    asyncio.run(run())


async def change(cluster: FakeCluster, service_id: str, new: Callable[[ServiceSpec], ServiceSpec]) -> None:
    service = cluster.store.view.get(Service, service_id)
    assert service is not None
    changed = replace(
        service,
        spec=new(service.spec),
        spec_version=service.spec_version + 1,
        previous_spec_version=service.spec_version,
        update_status=None,
    )
    await cluster.store.update(lambda _view: [Replace(object=changed, expected_version=service.meta.version)])


def scaled(replicas: int) -> Callable[[ServiceSpec], ServiceSpec]:
    mode = ServiceMode(replicated=ReplicatedService(replicas=replicas))
    return lambda old: replace(old, mode=mode)


def test_a_replicated_service_runs_scales_and_goes(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        id_ = await cluster.create(spec("web", 6))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 6, "six run")
        per_node = Counter(task.node_id for task in cluster.wanted_running(id_))
        assert per_node == {"node1": 2, "node2": 2, "node3": 2}
        assert sorted(task.slot for task in cluster.wanted_running(id_)) == [1, 2, 3, 4, 5, 6]
        await change(cluster, id_, scaled(8))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 8, "eight run")
        await change(cluster, id_, scaled(2))
        await cluster.until(lambda: len(cluster.tasks(id_)) == 2, "two are left, the others forgotten")
        assert {task.spec_version for task in cluster.tasks(id_)} == {1}, "scaling replaces no task"
        await cluster.store.update(lambda _view: [Remove(kind="service", id=id_)])
        await cluster.until(lambda: cluster.store.view.count(Task) == 0, "all tasks are gone")
        await cluster.until(lambda: cluster.store.view.count(Revision) == 0, "all revisions are gone")
        await cluster.until(lambda: not any(node.engine.list() for node in cluster.nodes), "containers are gone")
        assert not any(node.network.attached for node in cluster.nodes)

    scenario(tmp_path, 3, body)


def test_a_failed_task_is_replaced_after_its_delay_and_history_is_kept(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        id_ = await cluster.create(spec("web", 1, restart_policy=RestartPolicy(delay=50_000_000)))
        for round_ in range(8):
            await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, f"round {round_} runs")
            task = cluster.wanted_running(id_)[0]
            assert task.status.container is not None
            container_id = task.status.container.container_id
            cluster.nodes[0].engine.finish(container_id, 3)
            await cluster.until(
                lambda task=task: task.id not in {t.id for t in cluster.wanted_running(id_)}, "it ended"
            )  # type: ignore[misc]
            ended = cluster.store.view.get(Task, task.id)
            if ended is not None:
                assert (ended.status.state, ended.status.err) == (TaskState.FAILED, "task: non-zero exit (3)")
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs again")
        await cluster.until(lambda: len(cluster.tasks(id_)) == 5, "five tasks are kept")
        await cluster.until(lambda: len(cluster.nodes[0].engine.list()) == 5, "and their containers")

    scenario(tmp_path, 1, body)


def test_restarts_are_bounded(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        policy = RestartPolicy(condition="on-failure", delay=0, max_attempts=2)
        id_ = await cluster.create(spec("web", 1, restart_policy=policy))
        for _ in range(3):
            await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs")
            task = cluster.wanted_running(id_)[0]
            assert task.status.container is not None
            cluster.nodes[0].engine.finish(task.status.container.container_id, 1)
            await cluster.until(lambda: not cluster.wanted_running(id_), "it ended")
        await cluster.until(lambda: len(cluster.tasks(id_, TaskState.FAILED)) == 3, "three tries")
        await cluster.until(
            lambda: {t.desired_state for t in cluster.tasks(id_)} == {TaskState.SHUTDOWN}, "no more are wanted"
        )

    scenario(tmp_path, 1, body)


def test_a_global_service_follows_the_nodes(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        everywhere = replace(spec("everywhere"), mode=ServiceMode(global_=GlobalService()))
        id_ = await cluster.create(everywhere)
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 3, "one a node")
        assert {task.node_id for task in cluster.wanted_running(id_)} == {"node1", "node2", "node3"}
        node = cluster.store.view.get(Node, "node2")
        assert node is not None
        drained = replace(node, spec=replace(node.spec, availability=Availability.DRAIN))
        await cluster.store.update(lambda _view: [Replace(object=drained)])
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 2, "the drained node has none")
        node = cluster.store.view.get(Node, "node2")
        assert node is not None
        active = replace(node, spec=replace(node.spec, availability=Availability.ACTIVE))
        await cluster.store.update(lambda _view: [Replace(object=active)])
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 3, "it has one again")

    scenario(tmp_path, 3, body)


def test_drain_moves_replicas_at_once(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        id_ = await cluster.create(spec("web", 4))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 4, "four run")
        node = cluster.store.view.get(Node, "node1")
        assert node is not None
        drained = replace(node, spec=replace(node.spec, availability=Availability.DRAIN))
        await cluster.store.update(lambda _view: [Replace(object=drained)])

        def moved() -> bool:
            running = cluster.wanted_running(id_)
            return len(running) == 4 and {task.node_id for task in running} == {"node2"}

        await cluster.until(moved, "all four run on the other node")

    scenario(tmp_path, 2, body)


def test_why_a_task_waits_is_said_and_it_goes_on_when_it_can(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        placement = Placement(constraints=("node.labels.disk==ssd",))
        id_ = await cluster.create(spec("web", 1, placement=placement))
        text = "no suitable node (scheduling constraints not satisfied on 2 nodes)"
        await cluster.until(lambda: any(t.status.err == text for t in cluster.tasks(id_)), "the reason is told")
        node = cluster.store.view.get(Node, "node1")
        assert node is not None
        labelled = replace(node, spec=replace(node.spec, labels={"disk": "ssd"}))
        await cluster.store.update(lambda _view: [Replace(object=labelled)])
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs")
        assert cluster.wanted_running(id_)[0].status.err == ""

    scenario(tmp_path, 2, body)


def test_published_ports_reach_the_mesh_with_running_tasks_only(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        ports = (PortConfig(target_port=80, published_port=8080), PortConfig(target_port=53, protocol="udp"))
        web = replace(spec("web", 3), endpoint_spec=EndpointSpec(ports=ports))
        id_ = await cluster.create(web)
        mesh = cluster.nodes[0].network

        def balanced(count: int) -> bool:
            return len(mesh.ingress.ports) == 2 and all(len(p.backends) == count for p in mesh.ingress.ports)

        await cluster.until(lambda: balanced(3), "three backends")
        assert [(p.protocol, p.published_port) for p in mesh.ingress.ports] == [("tcp", 8080), ("udp", 30000)]
        service = cluster.store.view.get(Service, id_)
        assert service is not None
        assert len(service.endpoint.virtual_ips) == 1
        used = cluster.store.view.addresses_in_use("ingress-id")
        assert len(used) == 4
        await change(cluster, id_, scaled(1))
        await cluster.until(lambda: balanced(1), "one backend")
        await cluster.store.update(lambda _view: [Remove(kind="service", id=id_)])
        await cluster.until(lambda: mesh.ingress.ports == (), "no port")
        await cluster.until(lambda: not cluster.store.view.addresses_in_use("ingress-id"), "no address is leaked")

    scenario(tmp_path, 1, body)


def test_a_rolling_update_keeps_its_parallelism(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        config = UpdateConfig(parallelism=2, monitor=1_000_000, failure_action="pause")
        id_ = await cluster.create(replace(spec("web", 6), update_config=config))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 6, "six run")
        least = 6
        follower = cluster.store.follow("task")
        force = lambda old: replace(old, task_template=replace(old.task_template, force_update=1))  # noqa: E731
        await change(cluster, id_, force)

        def done() -> bool:
            nonlocal least
            follower.take()
            least = min(least, len(cluster.tasks(id_, TaskState.RUNNING)))
            service = cluster.store.view.get(Service, id_)
            status = service.update_status if service else None
            return status is not None and status.state == UpdateState.COMPLETED

        await cluster.until(done, "the update completes")
        assert {task.spec_version for task in cluster.wanted_running(id_)} == {2}
        assert len(cluster.wanted_running(id_)) == 6
        assert least >= 4, "never more than two slots at a time"

    scenario(tmp_path, 2, body)


def test_a_failing_update_pauses(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        config = UpdateConfig(parallelism=1, monitor=5_000_000_000, failure_action="pause")
        id_ = await cluster.create(replace(spec("web", 3), update_config=config))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 3, "three run")

        def broken(old: ServiceSpec) -> ServiceSpec:
            container = ContainerSpec(image="nosuch")
            return replace(old, task_template=replace(old.task_template, container_spec=container))

        await change(cluster, id_, broken)

        def paused() -> bool:
            service = cluster.store.view.get(Service, id_)
            status = service.update_status if service else None
            return status is not None and status.state == UpdateState.PAUSED

        await cluster.until(paused, "the update pauses")
        assert len(cluster.wanted_running(id_)) == 3, "an image that is not there costs no replica"
        rejected = cluster.tasks(id_, TaskState.REJECTED)
        assert rejected
        assert rejected[0].status.err == "No such image: nosuch"

    scenario(tmp_path, 1, body)


@pytest.mark.parametrize("pulls_ahead", [True, False])
def test_without_room_the_image_is_pulled_first_by_nodes_that_can(
    tmp_path: Path, pulls_ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening(**fields: Any) -> OpenSession:
        return OpenSession(**(fields | {"pulls_ahead": pulls_ahead}))

    monkeypatch.setattr(agent, "OpenSession", opening)

    async def body(cluster: FakeCluster) -> None:
        port = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080, publish_mode="host"),))
        update = UpdateConfig(parallelism=1, monitor=50_000_000)
        id_ = await cluster.create(replace(spec("web", 1), endpoint_spec=port, update_config=update))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs")
        first = cluster.wanted_running(id_)[0].id

        def with_image(image: str) -> Callable[[ServiceSpec], ServiceSpec]:
            return lambda old: replace(old, task_template=spec("web", 1, image).task_template)

        def state() -> UpdateState | None:
            service = cluster.store.view.get(Service, id_)
            return service.update_status.state if service is not None and service.update_status is not None else None

        if pulls_ahead:
            await change(cluster, id_, with_image("nosuch"))
            await cluster.until(lambda: state() == UpdateState.PAUSED, "it is paused")
            assert [task.id for task in cluster.wanted_running(id_)] == [first]
            refused = cluster.tasks(id_, TaskState.REJECTED)
            assert [(task.node_id, task.status.err) for task in refused] == [("node1", "No such image: nosuch")]
        await change(cluster, id_, lambda old: replace(with_image("busybox")(old), labels={"a": "b"}))
        await change(cluster, id_, lambda old: replace(old, task_template=replace(old.task_template, force_update=1)))
        await cluster.until(lambda: state() == UpdateState.COMPLETED, "it is updated")
        assert [task.id for task in cluster.wanted_running(id_)] != [first]

    scenario(tmp_path, 1, body)


def test_a_node_that_is_down_loses_its_replicas_to_others(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        id_ = await cluster.create(spec("web", 4))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 4, "four run")
        await cluster.nodes[0].stop()
        cluster.nodes[0].worker._runners.clear()
        node = cluster.store.view.get(Node, "node1")
        assert node is not None
        down = PatchNode(id="node1", status=replace(node.status, state="down"))
        await cluster.store.update(lambda _view: [down])
        await cluster.until(
            lambda: sum(task.node_id == "node2" for task in cluster.wanted_running(id_)) == 4, "all run on the other"
        )

    scenario(tmp_path, 2, body)


def test_the_end_of_a_task_is_on_disk_before_its_network_goes(tmp_path: Path) -> None:
    """Else a node killed in between starts the task again without a network."""

    async def body(cluster: FakeCluster) -> None:
        (node,) = cluster.nodes
        service_id = await cluster.create(spec("web", 2))
        await cluster.until(lambda: len(cluster.wanted_running(service_id)) == 2, "both run")
        ended_on_disk: list[bool] = []
        detach = node.network.detach

        async def look_and_detach(task_id: str) -> None:
            records = [record for record in node.database.load() if record.task.id == task_id]
            ended_on_disk.extend(record.task.status.state.is_terminal for record in records)
            await detach(task_id)

        node.network.detach = look_and_detach  # type: ignore[method-assign]
        await change(cluster, service_id, scaled(0))
        await cluster.until(lambda: not cluster.tasks(service_id), "none is left")
        await cluster.until(lambda: not node.network.attached, "the networks are gone")
        assert len(ended_on_disk) >= 2
        assert all(ended_on_disk)

    scenario(tmp_path, 1, body)
