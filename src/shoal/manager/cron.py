"""The loop that runs services at their times (core/cron.py)."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from shoal.core.cron import CronSettings, cron_settings, is_to_run, look, spec_of_run
from shoal.errors import ShoalError
from shoal.lib.clock import Clock
from shoal.manager.loop import LeaderLoop, Round
from shoal.manager.service_plans import ServiceUpdate, updated_service
from shoal.model.actions import Replace
from shoal.model.base import replace
from shoal.model.objects import Service
from shoal.model.states import TaskState
from shoal.store.apply import Change
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)


def cron(store: Store, clock: Clock) -> LeaderLoop:
    """Run services at their times."""

    def keys_of_change(_view: View, change: Change) -> Iterable[str]:
        return (change.id,)

    def plan(view: View, keys: Iterable[str], now_ns: int) -> dict[str, Round]:
        return {service_id: plan_runs(view, service_id, now_ns) for service_id in keys}

    return LeaderLoop(
        name="cron",
        store=store,
        clock=clock,
        kinds=("service",),
        keys_of_change=keys_of_change,
        all_keys=lambda view: [service.id for service in view.find(Service)],
        plan=plan,
    )


def plan_runs(view: View, service_id: str, now_ns: int) -> Round:
    """Return what is to be written about a service's runs, and when it is to be looked at again."""
    service = view.get(Service, service_id)
    settings = _settings(service) if service is not None else None
    if service is None or settings is None:
        return Round()
    if not service.last_due_ns:
        # from now on: what was due before the label was there is no run
        first = replace(service, last_due_ns=now_ns)
        return Round(actions=(Replace(object=first, expected_version=service.meta.version),))
    due = look(settings, service.last_due_ns, now_ns)
    if due.latest_ns is None:
        return Round(wake_at_ns=due.next_ns)
    is_running = any(
        task.is_wanted and task.status.state <= TaskState.RUNNING for task in view.tasks_of_service(service_id)
    )
    runs, why = is_to_run(settings, due.latest_ns, now_ns, is_running)
    changed = _run(view, service, settings, now_ns) if runs else service
    written = Replace(object=replace(changed, last_due_ns=due.latest_ns), expected_version=service.meta.version)
    return Round(actions=(written,), wake_at_ns=due.next_ns, why=(f"{service.spec.name}: {why}",))


def _settings(service: Service) -> CronSettings | None:
    try:
        return cron_settings(service.spec.labels)
    except ShoalError as error:
        # checked when it was written: by a manager that knew other labels
        _log.warning("a service does not run at its times", service=service.spec.name, reason=error.message)
        return None


def _run(view: View, service: Service, settings: CronSettings, now_ns: int) -> Service:
    spec = spec_of_run(service.spec, settings)
    try:
        return updated_service(view, service, ServiceUpdate(version=service.meta.version, spec=spec), now_ns)
    except ShoalError as error:
        _log.warning("a run cannot be made", service=service.spec.name, reason=error.message)
        return service
