"""`GET /metrics`, read as Prometheus reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from shoal.model.container import ContainerConfig
from shoal.model.states import TaskState
from tests.doubles.http import Api, run_api
from tests.unit.api.test_routes import add_task, create

Sample = tuple[str, frozenset[tuple[str, str]]]


async def scrape(api: Api) -> dict[Sample, float]:
    reply = await api.call("GET", "/metrics")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(reply.body.decode())
    return {(sample.name, frozenset(sample.labels.items())): sample.value for one in families for sample in one.samples}


def key(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


def test_a_manager_tells_of_the_swarm_and_of_its_containers() -> None:
    async def test(api: Api) -> None:
        service_id = await create(api, Mode={"Replicated": {"Replicas": 3}})
        await add_task(api, service_id, "t1")
        await add_task(api, service_id, "t2", TaskState.PENDING, slot=2)
        api.daemon.engine.images.add("busybox:latest")
        await api.daemon.engine.create(ContainerConfig(name="web.1.t1", image="busybox"))
        found = await scrape(api)
        assert found[key("shoal_service_replicas", service="web")] == 3
        assert found[key("shoal_service_tasks_running", service="web")] == 1
        assert found[key("shoal_tasks", state="pending")] == 1
        assert found[key("shoal_containers", state="created")] == 1
        assert found[key("shoal_raft_is_leader")] == 1
        assert found[key("shoal_raft_applied_index")] == 7
        assert sum(value for (name, _), value in found.items() if name == "shoal_nodes") == 1

    run_api(test)


def test_a_worker_tells_of_itself_alone() -> None:
    async def test(api: Api) -> None:
        api.daemon.the_manager = None
        found = await scrape(api)
        assert not [name for name, _ in found if name.startswith(("shoal_raft", "shoal_service", "shoal_nodes"))]
        assert [name for name, _ in found if name == "shoal_node_info"]

    run_api(test)


def test_the_board_asks_for_metrics_that_there_are() -> None:
    async def test(api: Api) -> None:
        board = json.loads((Path(__file__).parents[3] / "packaging" / "grafana-board.json").read_text())
        asked = set(re.findall(r"shoal_[a-z_]+", " ".join(t["expr"] for p in board["panels"] for t in p["targets"])))
        text = (await api.call("GET", "/metrics")).body.decode()
        told = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
        assert asked
        assert asked <= told

    run_api(test)
