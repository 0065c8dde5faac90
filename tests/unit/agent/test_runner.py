from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from shoal.agent import runner as runner_module
from shoal.agent.runner import TaskRunner
from shoal.engine.protocol import PullProgress, RegistryCredentials
from shoal.errors import NotFound
from shoal.lib.supervise import cancel_and_wait
from shoal.model.base import replace
from shoal.model.container import Health, HealthStatus
from shoal.model.container_spec import HealthConfig, ReferenceFileTarget, SecretReference
from shoal.model.messages import Assignments
from shoal.model.netstate import Sandbox, SandboxRequest
from shoal.model.objects import Secret
from shoal.model.specs import SecretSpec
from shoal.model.states import TaskState
from tests.unit.agent.bench import Bench, revision, task

S = TaskState


def run(body: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        await body(Bench())

    asyncio.run(main())


def test_a_task_runs_and_ends_with_its_exit_code() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner()
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.RUNNING)
        assert bench.seen == [S.ACCEPTED, S.PREPARING, S.READY, S.STARTING, S.RUNNING]
        assert set(bench.network.attached) == {"t1"}
        assert runner.status.container is not None
        bench.engine.finish(runner.status.container.container_id, 7)
        await running
        assert (runner.status.state, runner.status.err) == (S.FAILED, "task: non-zero exit (7)")
        assert runner.status.container.exit_code == 7
        assert bench.network.attached == {}, "its network is given back"
        assert len(bench.engine.list()) == 1, "its container stays for its log"
        await runner.remove()
        assert bench.engine.list() == ()

    run(body)


@pytest.mark.parametrize(("allowed", "state"), [((), S.REJECTED), (("host-pid",), S.RUNNING), (None, S.RUNNING)])
def test_what_the_swarm_does_not_allow_any_more_is_rejected(allowed: tuple[str, ...] | None, state: TaskState) -> None:
    async def body(bench: Bench) -> None:
        made_from = revision()
        made_from = replace(made_from, spec=replace(made_from.spec, labels={"shoal.pid-mode": "host"}))
        runner = TaskRunner(bench.parts, task(), made_from, bench._note, bench._remembered)
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.PREPARING)
        for _ in range(20):
            await asyncio.sleep(0)
        assert runner.status.state == S.PREPARING, "a manager's word is waited for"
        bench.parts.policy.take(allowed)
        await bench.until(lambda: runner.status.state >= S.RUNNING)
        assert runner.status.state == state
        assert ("service label shoal.pid-mode: this swarm does not allow it" in runner.status.err) == (allowed == ())
        await cancel_and_wait(running)

    run(body)


def test_a_clean_exit_is_complete() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner()
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.RUNNING)
        bench.engine.finish(bench.engine.list()[0].id, 0)
        await running
        assert (runner.status.state, runner.status.message, runner.status.err) == (S.COMPLETE, "finished", "")

    run(body)


def test_a_task_that_should_be_ready_waits_prepared_until_it_is_its_turn() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner(task(desired_state=S.READY))
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.READY)
        assert bench.engine.list()[0].state.status == "created"
        runner.desire(S.RUNNING)
        await bench.until(lambda: runner.status.state == S.RUNNING)
        runner.desire(S.READY)
        assert runner.task.desired_state == S.RUNNING, "what is desired is never lowered"
        runner.desire(S.SHUTDOWN)
        await running
        assert runner.status.state == S.SHUTDOWN

    run(body)


def test_an_image_that_is_nowhere_rejects_the_task() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner(image="nosuch")
        await runner.run()
        assert (runner.status.state, runner.status.err) == (S.REJECTED, "No such image: nosuch")
        assert bench.network.attached == {}

    run(body)


def test_a_start_that_is_refused_fails_the_task() -> None:
    async def body(bench: Bench) -> None:
        bench.engine.refuse_start = "exec: no such file"
        runner = bench.runner()
        await runner.run()
        assert (runner.status.state, runner.status.err) == (S.FAILED, "exec: no such file")
        assert bench.network.attached == {}

    run(body)


def test_a_task_that_is_unwanted_while_its_image_is_pulled_stops_at_once() -> None:
    async def body(bench: Bench) -> None:
        pulling = asyncio.Event()

        async def slow(_reference: str, _credentials: RegistryCredentials | None = None) -> AsyncIterator[PullProgress]:
            pulling.set()
            await asyncio.Event().wait()
            yield PullProgress(status="")

        bench.engine.images.pull = slow  # type: ignore[method-assign,assignment]
        runner = bench.runner(image="nosuch")
        running = asyncio.create_task(runner.run())
        await pulling.wait()
        runner.desire(S.SHUTDOWN)
        await asyncio.wait_for(running, 5)
        assert runner.status.state == S.SHUTDOWN
        assert bench.engine.list() == ()
        await cancel_and_wait(*(bench.parts.images._pulls.values()))

    run(body)


def test_what_only_went_wrong_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "RETRY_FIRST_SECONDS", 0.001)

    async def body(bench: Bench) -> None:
        attach, failures = bench.network.attach, [OSError(28, "No space left on device"), OSError(5, "again")]

        async def attach_later(request: SandboxRequest) -> Sandbox:
            if failures:
                raise failures.pop()
            return await attach(request)

        bench.network.attach = attach_later  # type: ignore[method-assign]
        runner = bench.runner()
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.RUNNING)
        assert (failures, runner.status.err) == ([], "")
        assert len(bench.engine.list()) == 1
        await cancel_and_wait(running)

    run(body)


def test_a_restarted_daemon_takes_up_what_is_there() -> None:
    async def body(bench: Bench) -> None:
        first = bench.runner()
        running = asyncio.create_task(first.run())
        await bench.until(lambda: first.status.state == S.RUNNING)
        await cancel_and_wait(running)
        container = bench.engine.list()[0]
        assert container.state.status == "running", "a daemon that stops lets containers run"
        # The last word it wrote down may be older than what had happened.
        for state in (S.PREPARING, S.STARTING, S.RUNNING):
            known = task(status=first.status.__class__(state=state))
            second = bench.runner(known)
            running = asyncio.create_task(second.run())
            await bench.until(lambda second=second: second.status.state == S.RUNNING)  # type: ignore[misc]
            assert [each.id for each in bench.engine.list()] == [container.id]
            await cancel_and_wait(running)

    run(body)


def test_a_container_that_was_made_before_the_power_went_is_wired_again() -> None:
    async def body(bench: Bench) -> None:
        first = bench.runner(task(desired_state=S.READY))
        running = asyncio.create_task(first.run())
        await bench.until(lambda: first.status.state == S.READY)
        await cancel_and_wait(running)
        bench.network.attached.clear()
        second = bench.runner(first.task)
        second.desire(S.RUNNING)
        running = asyncio.create_task(second.run())
        await bench.until(lambda: second.status.state == S.RUNNING)
        assert set(bench.network.attached) == {first.task.id}
        assert len(bench.engine.list()) == 1
        await cancel_and_wait(running)

    run(body)


def test_a_container_that_ended_while_no_daemon_ran_is_told() -> None:
    async def body(bench: Bench) -> None:
        first = bench.runner()
        running = asyncio.create_task(first.run())
        await bench.until(lambda: first.status.state == S.RUNNING)
        await cancel_and_wait(running)
        bench.engine.finish(bench.engine.list()[0].id, 3)
        second = bench.runner(first.task)
        await second.run()
        assert (second.status.state, second.status.err) == (S.FAILED, "task: non-zero exit (3)")

    run(body)


def test_a_container_that_was_taken_away_is_told() -> None:
    async def body(bench: Bench) -> None:
        first = bench.runner()
        running = asyncio.create_task(first.run())
        await bench.until(lambda: first.status.state == S.RUNNING)
        await cancel_and_wait(running)
        await bench.engine.remove(bench.engine.list()[0].id, force=True)
        second = bench.runner(first.task)
        await second.run()
        assert (second.status.state, second.status.err) == (S.FAILED, "the task's container is gone")

    run(body)


@pytest.mark.parametrize("at", ["stop", "wait"])
def test_a_container_that_is_taken_away_while_its_task_stops_is_no_fault(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner()
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.RUNNING)

        async def gone(*_: object) -> None:
            await bench.engine.remove(bench.engine.list()[0].id, force=True)
            raise NotFound("No such container")

        monkeypatch.setattr(bench.engine, at, gone)
        runner.desire(S.SHUTDOWN)
        await running
        assert (runner.status.state, bench.errors) == (S.SHUTDOWN, [])
        assert bench.network.attached == {}

    run(body)


CHECKED = HealthConfig(test=("CMD", "true"))


def test_a_task_that_is_checked_runs_once_it_is_healthy() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner(healthcheck=CHECKED)
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.STARTING and bool(runner.status.container.pid))
        container = bench.engine.list()[0]
        bench.engine.set_health(container.id, Health(status=HealthStatus.HEALTHY))
        await bench.until(lambda: runner.status.state == S.RUNNING)
        bench.engine.set_health(container.id, Health(status=HealthStatus.UNHEALTHY))
        await running
        # the fake ends well when it is stopped: that it was unwell is what counts
        assert (runner.status.state, runner.status.err) == (S.FAILED, "task: dockerexec: unhealthy container")
        assert bench.engine.get(container.id).state.status == "exited"

    run(body)


def test_a_task_that_never_becomes_healthy_fails_without_having_run() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner(healthcheck=CHECKED)
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.STARTING and bool(bench.engine.list()[0].state.health))
        bench.engine.set_health(bench.engine.list()[0].id, Health(status=HealthStatus.UNHEALTHY))
        await running
        assert runner.status.state == S.FAILED
        assert S.RUNNING not in bench.seen

    run(body)


@pytest.mark.parametrize(("code", "state", "err"), [(0, S.COMPLETE, ""), (3, S.FAILED, "task: non-zero exit (3)")])
def test_a_task_may_end_before_its_first_check(code: int, state: TaskState, err: str) -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner(healthcheck=CHECKED)
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.STARTING and bool(bench.engine.list()[0].state.health))
        bench.engine.finish(bench.engine.list()[0].id, code)
        await running
        assert (runner.status.state, runner.status.err) == (state, err)

    run(body)


def test_a_task_that_becomes_unwanted_while_it_is_checked_is_stopped() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner(healthcheck=CHECKED)
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.STARTING and bool(bench.engine.list()[0].state.health))
        runner.desire(S.SHUTDOWN)
        await running
        assert runner.status.state == S.SHUTDOWN

    run(body)


SECRET = SecretReference(secret_id="x", secret_name="db", file=ReferenceFileTarget(name="db", mode=0o400))


def test_a_task_whose_secret_is_not_there_is_rejected_once_a_manager_has_spoken() -> None:
    async def body(bench: Bench) -> None:
        runner = bench.runner(secrets=(SECRET,))
        running = asyncio.create_task(runner.run())
        await bench.until(lambda: runner.status.state == S.PREPARING)
        assert bench.engine.list() == (), "a daemon that has just started waits for a manager"
        bench.parts.payloads.take(Assignments(sequence=1, complete=True))
        await running
        assert runner.status.state == S.REJECTED
        assert runner.status.err.startswith("secret db (x) not found")

    run(body)


def test_a_task_is_given_its_secret_and_the_database_is_not(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        worker, database = bench.worker(tmp_path)
        secret = Secret(id="x", spec=SecretSpec(name="db", data=b"geheim-4711"))
        given = Assignments(
            sequence=1, complete=True, tasks=(task(),), revisions=(revision(secrets=(SECRET,)),), secrets=(secret,)
        )
        worker.take(given)
        await bench.until(lambda: bool(bench.engine.list()))
        (file,) = bench.engine.list()[0].config.files
        assert (file.path, file.content, file.mode) == ("/run/secrets/db", b"geheim-4711", 0o400)
        await database.written()
        worker.take(Assignments(sequence=2, removed_task_ids=("t1",), removed_secret_ids=("x",)))
        assert bench.parts.payloads.held.secrets == {}
        await worker.stop()
        database.close()
        assert b"geheim" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())

    run(body)
