"""Tasks that wait for other services, by the real loops."""

from __future__ import annotations

import asyncio
from pathlib import Path

from shoal.model.actions import Replace
from shoal.model.base import replace
from shoal.model.objects import Service
from shoal.model.states import TaskState
from tests.doubles.cluster import running_cluster
from tests.doubles.swarm import service_spec

LABEL = "shoal.depends-on"


def test_an_update_that_waits_for_another_service_takes_no_replica_down(tmp_path: Path) -> None:
    async def body() -> None:
        async with running_cluster(tmp_path, 1) as cluster:
            id_ = await cluster.create(service_spec("web", 1))
            await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs")
            (old,) = cluster.wanted_running(id_)
            service = cluster.store.view.get(Service, id_)
            assert service is not None
            spec = replace(service_spec("web", 1, force_update=1), labels={LABEL: "db"})
            changed = replace(service, spec=spec, spec_version=2, previous_spec_version=1)
            await cluster.store.update(lambda _view: [Replace(object=changed)])
            reason = "waits for service db, which is not there"
            await cluster.until(lambda: any(t.status.err == reason for t in cluster.tasks(id_)), "it says why")
            # the loops have had their turn when another service runs
            other = await cluster.create(service_spec("other", 1))
            await cluster.until(lambda: len(cluster.wanted_running(other)) == 1, "another runs")
            assert [task.id for task in cluster.wanted_running(id_)] == [old.id]
            (successor,) = (task for task in cluster.tasks(id_) if task.spec_version == 2)
            assert (successor.status.state, successor.node_id) == (TaskState.PENDING, "")
            await cluster.create(service_spec("db", 1))
            await cluster.until(
                lambda: [task.id for task in cluster.wanted_running(id_)] == [successor.id],
                "its successor runs",
            )

    asyncio.run(body())
