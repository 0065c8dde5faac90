"""The tasks of this node: takes assignments, keeps a runner a task, remembers and reports statuses."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import structlog

from shoal.agent.database import TaskDatabase, TaskRecord
from shoal.agent.runner import NodeParts, TaskRunner
from shoal.core.container import NODE_ID_LABEL, TASK_ID_LABEL
from shoal.core.taskfsm import MESSAGES
from shoal.errors import ShoalError
from shoal.lib.backoff import Backoff
from shoal.lib.supervise import cancel_and_wait
from shoal.model.base import replace
from shoal.model.messages import Assignments, ReportStatus, TaskReport
from shoal.model.objects import Revision, Task, TaskStatus, revision_id
from shoal.model.states import TaskState

_log = structlog.get_logger(__name__)

REMOVALS_AT_ONCE_MOST = 4
REPORT_BURST_SECONDS = 0.005


class Worker:
    """Runs what the node was assigned; goes on without a manager."""

    def __init__(
        self, parts: NodeParts, database: TaskDatabase, report_burst_seconds: float = REPORT_BURST_SECONDS
    ) -> None:
        self._report_burst_seconds = report_burst_seconds
        self._parts = parts
        self._database = database
        self._runners: dict[str, TaskRunner] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._removing: set[asyncio.Task[None]] = set()
        self._removal_turn = asyncio.Semaphore(REMOVALS_AT_ONCE_MOST)
        self._revisions: dict[str, Revision] = {}
        self._unreported: dict[str, TaskStatus] = {}
        self._in_flight: dict[str, TaskStatus] = {}
        self._report_sequence = 0
        self._report_wake = asyncio.Event()

    def start(self) -> None:
        """Take up the tasks this node had when it stopped."""
        for record in self._database.load():
            self._revisions[record.revision.id] = record.revision
            self._begin(record.task, record.revision)

    async def stop(self) -> None:
        """Let go of the tasks: their containers run on."""
        await cancel_and_wait(*self._running.values(), *self._removing)
        self._running.clear()

    def runner(self, task_id: str) -> TaskRunner | None:
        """Return the runner of a task, None if the node does not have it."""
        return self._runners.get(task_id)

    def take_policy(self, allowed: tuple[str, ...] | None) -> None:
        """Take what the swarm allows its services."""
        self._parts.policy.take(allowed)

    async def pull_ahead(self, revision: Revision) -> TaskStatus | None:
        """Have the image of tasks that are to come; returns the status of one that cannot have it."""
        try:
            await self._parts.images.find(revision)
        except ShoalError as error:
            now_ns = self._parts.clock.now_ns()
            refused = MESSAGES[TaskState.PREPARING]
            return TaskStatus(state=TaskState.REJECTED, timestamp_ns=now_ns, message=refused, err=error.message)
        return None

    def take(self, assignments: Assignments) -> None:
        """Take assignments from a manager."""
        self._parts.payloads.take(assignments)
        for revision in assignments.revisions:
            self._revisions[revision.id] = revision
        for task in assignments.tasks:
            runner = self._runners.get(task.id)
            if runner is not None:
                runner.desire(task.desired_state)
            elif task.status.state.is_terminal:
                # It ended on this node, and the node has forgotten it: there is nothing to run.
                continue
            else:
                self._begin(task, self._revisions[revision_id(task.service_id, task.spec_version)])
        removed = set(assignments.removed_task_ids)
        if assignments.complete:
            removed |= set(self._runners) - {task.id for task in assignments.tasks}
        for task_id in removed:
            self._forget(task_id)
        for id_ in assignments.removed_revision_ids:
            self._revisions.pop(id_, None)
        if assignments.complete:
            self._remove_strays()

    def _remove_strays(self) -> None:
        """Remove containers of tasks that neither this node nor the manager knows any more.

        They are left by a crash between the removal of a task's record and that of its container.
        """
        for container in self._parts.engine.list():
            labels = container.config.labels
            task_id = labels.get(TASK_ID_LABEL, "")
            if task_id and labels.get(NODE_ID_LABEL) == self._parts.node_id and task_id not in self._known():
                _log.info("removing a stray container", container=container.id, task=task_id)
                self._start_removal(self._remove_stray(container.id, task_id), task_id)

    def _known(self) -> set[str]:
        return set(self._runners) | {removal.get_name().removeprefix("remove ") for removal in self._removing}

    async def _remove_stray(self, container_id: str, task_id: str) -> None:
        await self._parts.engine.remove(container_id, force=True)
        await self._parts.network.detach(task_id)

    def _begin(self, task: Task, revision: Revision) -> None:
        if task.status.state < TaskState.ASSIGNED:
            task = replace(task, status=replace(task.status, state=TaskState.ASSIGNED))
        runner = TaskRunner(self._parts, task, revision, self._status_changed, self._database.written)
        self._runners[task.id] = runner
        self._running[task.id] = asyncio.create_task(runner.run(), name=f"task {task.id}")
        self._running[task.id].add_done_callback(_log_failure)
        self._database.set(TaskRecord(task=task, revision=revision))
        self._report(task)

    def _forget(self, task_id: str) -> None:
        runner = self._runners.pop(task_id, None)
        if runner is None:
            return
        running = self._running.pop(task_id, None)
        self._unreported.pop(task_id, None)
        self._start_removal(self._remove(runner, running), task_id)

    def _start_removal(self, work: Coroutine[None, None, None], task_id: str) -> None:
        removal = asyncio.create_task(work, name=f"remove {task_id}")
        self._removing.add(removal)
        removal.add_done_callback(self._removing.discard)
        removal.add_done_callback(_log_failure)

    async def _remove(self, runner: TaskRunner, running: asyncio.Task[None] | None) -> None:
        """Stop a task if it still runs, then take all of it away; tried until it succeeds."""
        runner.desire(TaskState.REMOVE)
        if running is not None:
            await asyncio.wait({running})
        backoff = Backoff()
        while True:
            try:
                async with self._removal_turn:
                    await runner.remove()
                break
            except Exception:
                delay = backoff.next_delay_seconds()
                _log.exception("a task could not be removed", task=runner.task.id, retry_seconds=delay)
                await asyncio.sleep(delay)
        self._database.forget(runner.task.id)

    # -- reports

    def _status_changed(self, task: Task) -> None:
        if task.id in self._runners:
            runner = self._runners[task.id]
            self._database.set(TaskRecord(task=task, revision=runner.revision))
            self._report(task)

    def _report(self, task: Task) -> None:
        self._unreported[task.id] = task.status
        self._report_wake.set()

    def report_all(self) -> None:
        """Report every task anew: a session has begun, and what was under way in the last one may be lost."""
        self._in_flight.clear()
        for runner in self._runners.values():
            self._report(runner.task)

    async def next_report(self) -> ReportStatus:
        """Return the next report, when there is something to report and nothing under way.

        One report is under way at a time; what changes meanwhile goes, in its newest form, into the next.
        """
        while True:
            while not self._unreported or self._in_flight:
                self._report_wake.clear()
                await self._report_wake.wait()
            # Tasks change in bursts: what changes in this moment shares a report, and so an entry of the log.
            await asyncio.sleep(self._report_burst_seconds)
            if self._unreported and not self._in_flight:
                break
        self._in_flight, self._unreported = self._unreported, {}
        self._report_sequence += 1
        reports = tuple(TaskReport(task_id=id_, status=status) for id_, status in self._in_flight.items())
        return ReportStatus(sequence=self._report_sequence, reports=reports)

    def acknowledge(self, sequence: int) -> None:
        """The manager has written down the report of this number."""
        if sequence >= self._report_sequence:
            self._in_flight.clear()
            self._report_wake.set()


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("a task's runner died", part=task.get_name(), exc_info=error)
