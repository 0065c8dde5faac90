"""Secrets and configs on their way: to the nodes whose tasks need them, to nobody else, and away again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from shoal.model.actions import Create, Remove
from shoal.model.container_spec import ConfigReference, ContainerSpec, ReferenceFileTarget, SecretReference
from shoal.model.objects import Config, Secret, Service
from shoal.model.specs import ConfigSpec, Placement, SecretSpec, ServiceSpec, TaskSpec
from tests.doubles.cluster import FakeCluster, FakeNode, running_cluster

FILE = ReferenceFileTarget(name="f", mode=0o400)
USES = ContainerSpec(
    image="busybox",
    secrets=(SecretReference(secret_id="sid", secret_name="s", file=FILE),),
    configs=(ConfigReference(config_id="cid", config_name="c", file=FILE),),
)


def using(name: str, node: FakeNode) -> ServiceSpec:
    placement = Placement(constraints=(f"node.id=={node.id}",))
    return ServiceSpec(name=name, task_template=TaskSpec(container_spec=USES, placement=placement))


def held(node: FakeNode) -> tuple[list[str], list[str]]:
    payloads = node.worker._parts.payloads.held
    return sorted(payloads.secrets), sorted(payloads.configs)


def test_only_nodes_that_need_them_have_them_and_only_for_so_long(tmp_path: Path) -> None:
    async def run() -> None:
        async with running_cluster(tmp_path, 2) as cluster:
            await body(cluster)

    async def body(cluster: FakeCluster) -> None:
        secret = Secret(id="sid", spec=SecretSpec(name="s", data=b"geheim-4711"))
        config = Config(id="cid", spec=ConfigSpec(name="c", data=b"x"))
        await cluster.store.update(lambda _view: [Create(object=secret), Create(object=config)])
        first, second = cluster.nodes
        one = await cluster.create(using("one", first))
        two = await cluster.create(using("two", first))
        await cluster.until(running(cluster, one, two), "both run")
        assert (held(first), held(second)) == ((["sid"], ["cid"]), ([], []))
        files = first.engine.list()[0].config.files
        assert [(file.path, file.content) for file in files] == [("/run/secrets/f", b"geheim-4711"), ("/f", b"x")]
        await cluster.store.update(lambda _view: [Remove(kind="service", id=one)])
        await cluster.until(lambda: not cluster.tasks(one), "one is gone")
        assert held(first) == (["sid"], ["cid"]), "two needs them still"
        await cluster.store.update(lambda _view: [Remove(kind="service", id=two)])
        await cluster.until(lambda: held(first) == ([], []), "nobody needs them any more")
        third = await cluster.create(using("three", second))
        await cluster.until(running(cluster, third), "it runs")
        assert (held(first), held(second)) == (([], []), (["sid"], ["cid"]))
        for path in tmp_path.iterdir():
            assert b"geheim" not in path.read_bytes()

    asyncio.run(run())


def running(cluster: FakeCluster, *service_ids: str) -> Callable[[], bool]:
    return lambda: all(cluster.wanted_running(id_) for id_ in service_ids) and bool(cluster.store.view.find(Service))
