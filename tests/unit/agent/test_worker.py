from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from shoal.agent.database import TaskDatabase, TaskRecord
from shoal.agent.worker import Worker
from shoal.model.container import ContainerConfig
from shoal.model.messages import Assignments
from shoal.model.objects import TaskStatus
from shoal.model.states import TaskState
from tests.unit.agent.bench import Bench, revision, task

S = TaskState


def run(tmp_path: Path, body: Callable[[Bench, Worker, TaskDatabase], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        worker, database = bench.worker(tmp_path)
        worker.start()
        try:
            await body(bench, worker, database)
        finally:
            await worker.stop()
            database.close()

    asyncio.run(main())


def state_of(worker: Worker, id_: str) -> TaskState | None:
    runner = worker.runner(id_)
    return runner.status.state if runner else None


def test_assignments_are_run_and_what_is_removed_is_taken_away(tmp_path: Path) -> None:
    async def body(bench: Bench, worker: Worker, database: TaskDatabase) -> None:
        worker.take(Assignments(sequence=1, complete=True, tasks=(task("t1"), task("t2")), revisions=(revision(),)))
        await bench.until(lambda: state_of(worker, "t1") == state_of(worker, "t2") == S.RUNNING)
        worker.take(Assignments(sequence=2, applies_to=1, removed_task_ids=("t1",)))
        await bench.until(lambda: len(bench.engine.list()) == 1)
        assert worker.runner("t1") is None
        assert set(bench.network.attached) == {"t2"}
        await bench.until(lambda: not worker._removing)
        await database.written()
        assert [record.task.id for record in database.load()] == ["t2"]

    run(tmp_path, body)


def test_a_complete_set_ends_what_it_does_not_name_and_strays(tmp_path: Path) -> None:
    async def body(bench: Bench, worker: Worker, _database: TaskDatabase) -> None:
        worker.take(Assignments(sequence=1, complete=True, tasks=(task("t1"),), revisions=(revision(),)))
        await bench.until(lambda: state_of(worker, "t1") == S.RUNNING)
        labels = {"com.docker.swarm.task.id": "stray", "com.docker.swarm.node.id": "n1"}
        await bench.engine.create(ContainerConfig(name="stray", image="busybox", labels=labels))
        other = labels | {"com.docker.swarm.node.id": "n2"}
        await bench.engine.create(ContainerConfig(name="of another node", image="busybox", labels=other))
        await bench.engine.create(ContainerConfig(name="of nobody", image="busybox"))
        worker.take(Assignments(sequence=1, complete=True))
        await bench.until(lambda: not worker._removing)
        assert sorted(each.config.name for each in bench.engine.list()) == ["of another node", "of nobody"]

    run(tmp_path, body)


def test_a_task_that_ended_here_and_is_forgotten_is_not_run_again(tmp_path: Path) -> None:
    async def body(bench: Bench, worker: Worker, _database: TaskDatabase) -> None:
        ended = task("t1", status=TaskStatus(state=S.FAILED), desired_state=S.SHUTDOWN)
        worker.take(Assignments(sequence=1, complete=True, tasks=(ended,), revisions=(revision(),)))
        assert worker.runner("t1") is None
        assert bench.engine.list() == ()

    run(tmp_path, body)


def test_reports_go_one_at_a_time_with_the_newest_word(tmp_path: Path) -> None:
    async def body(bench: Bench, worker: Worker, _database: TaskDatabase) -> None:
        worker.take(Assignments(sequence=1, complete=True, tasks=(task("t1"),), revisions=(revision(),)))
        first = await worker.next_report()
        assert [report.task_id for report in first.reports] == ["t1"]
        await bench.until(lambda: state_of(worker, "t1") == S.RUNNING)
        waiting = asyncio.create_task(worker.next_report())
        await asyncio.sleep(0)
        assert not waiting.done(), "one report is under way at a time"
        worker.acknowledge(first.sequence - 1)
        await asyncio.sleep(0)
        assert not waiting.done(), "an older word acknowledges nothing"
        worker.acknowledge(first.sequence)
        second = await asyncio.wait_for(waiting, 5)
        assert [report.status.state for report in second.reports] == [S.RUNNING]
        assert second.sequence == first.sequence + 1
        worker.report_all()
        third = await asyncio.wait_for(worker.next_report(), 5)
        assert [report.status.state for report in third.reports] == [S.RUNNING], "a new session hears all anew"

    run(tmp_path, body)


def test_a_node_goes_on_without_a_manager_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench()
        worker, database = bench.worker(tmp_path)
        worker.start()
        worker.take(Assignments(sequence=1, complete=True, tasks=(task("t1"),), revisions=(revision(),)))
        await bench.until(lambda: state_of(worker, "t1") == S.RUNNING)
        await worker.stop()
        database.close()
        container = bench.engine.list()[0].id
        again, database = bench.worker(tmp_path)
        again.start()
        assert state_of(again, "t1") == S.RUNNING
        bench.engine.finish(container, 1)
        await bench.until(lambda: state_of(again, "t1") == S.FAILED)
        await again.stop()
        database.close()

    asyncio.run(main())


def test_the_database_writes_the_last_word_of_each_task(tmp_path: Path) -> None:
    async def main() -> None:
        database = TaskDatabase(tmp_path / "worker" / "tasks.sqlite")
        for state in (S.ACCEPTED, S.RUNNING):
            database.set(TaskRecord(task=task("t1", status=TaskStatus(state=state)), revision=revision()))
        database.set(TaskRecord(task=task("t2"), revision=revision()))
        database.forget("t2")
        assert database.load() == ()
        database.close()
        again = TaskDatabase(tmp_path / "worker" / "tasks.sqlite")
        records = again.load()
        assert [(each.task.id, each.task.status.state) for each in records] == [("t1", S.RUNNING)]
        again.close()

    asyncio.run(main())
