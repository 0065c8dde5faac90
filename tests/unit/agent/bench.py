"""One node with a fake engine, for tests of its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoal.agent.database import TaskDatabase
from shoal.agent.images import ImageSource
from shoal.agent.runner import NodeParts, TaskRunner
from shoal.agent.worker import Worker
from shoal.engine.fake import FakeEngine
from shoal.lib.clock import ManualClock
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.objects import NodeDescription, Revision, Task, TaskStatus
from shoal.model.specs import ServiceSpec, TaskSpec
from shoal.model.states import TaskState
from tests.doubles.cluster import FakeNetwork, NoOwnNetworks

WAIT_SECONDS = 10.0


def revision(version: int = 1, image: str = "busybox", **container: Any) -> Revision:
    spec = ServiceSpec(name="web", task_template=TaskSpec(container_spec=ContainerSpec(image=image, **container)))
    return Revision(id=f"s.{version}", service_id="s", spec_version=version, spec=spec)


def task(id_: str = "t1", **more: object) -> Task:
    value = Task(
        id=id_, service_id="s", spec_version=1, slot=1, node_id="n1", status=TaskStatus(state=TaskState.ASSIGNED)
    )
    return replace(value, **more)


class Bench:
    def __init__(self) -> None:
        clock, ids = ManualClock(), Ids()
        self.engine = FakeEngine(clock, ids)
        self.network = FakeNetwork()
        images = ImageSource(self.engine, True)
        self.parts = NodeParts("n1", NodeDescription, self.engine, self.network, images, clock, NoOwnNetworks())
        self.seen: list[TaskState] = []
        self.errors: list[str] = []

    def runner(self, one: Task | None = None, image: str = "busybox", **container: Any) -> TaskRunner:
        made_from = revision(image=image, **container)
        return TaskRunner(self.parts, one or task(), made_from, self._note, self._remembered)

    async def _remembered(self) -> None:
        """Nothing is written down here."""

    def worker(self, directory: Path) -> tuple[Worker, TaskDatabase]:
        database = TaskDatabase(directory / "tasks.sqlite")
        return Worker(self.parts, database, report_burst_seconds=0), database

    def _note(self, changed: Task) -> None:
        self.seen.append(changed.status.state)
        if changed.status.err:
            self.errors.append(changed.status.err)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; everything here moves on by the loop's turns alone."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - there is no one event for every condition
                await asyncio.sleep(0)
