"""Services that run at times: labels as swarm-cronjob has them, and some of Shoal's own. Pure.

A run is an update that changes nothing but the count of forced updates (and, of a replicated service, the replicas): a
job runs anew, the tasks of another service are made anew. Which due times had their turn stands in the service, so that
another leader goes on from there.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Mapping

from cronsim import CronSim, CronSimError

from shoal.core.extensions import DEFAULTS, HISTORY, MISSED, TIME_ZONE
from shoal.errors import InvalidArgument
from shoal.model.base import Struct, replace
from shoal.model.specs import ReplicatedService, ServiceSpec

ENABLE = "swarm.cronjob.enable"
SCHEDULE = "swarm.cronjob.schedule"
SKIP_RUNNING = "swarm.cronjob.skip-running"
REPLICAS = "swarm.cronjob.replicas"
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
NANO = 1_000_000_000
# a due time that is later than this was missed: nobody led
LATE_NS = 60 * NANO
# what nobody looked at for longer is not gone through time by time
LOOK_BACK_NS = 2 * 24 * 3600 * NANO
STEPS_MOST = 200_000
# runs that are kept: their tasks stay in the store, their containers on the nodes
HISTORY_MOST = 100


class CronSettings(Struct):
    """When a service runs. `replicas`: tasks of a replicated service at a run. `catches_up`: a missed run is made."""

    schedule: str
    time_zone: str = "UTC"
    skips_running: bool = False
    replicas: int = 1
    catches_up: bool = False


class Due(Struct):
    """What a look at a schedule came to.

    `latest_ns`: the last due time that has come, None if none has since the last look. `next_ns`: the one after now,
    None if there is none.
    """

    latest_ns: int | None
    next_ns: int | None


def cron_settings(labels: Mapping[str, str]) -> CronSettings | None:
    """Return when a service runs; None for one that does not run at times.

    Raises:
        InvalidArgument: a label has a value it cannot have; it is named.
    """
    runs_kept(labels)
    if not _truth(labels, ENABLE):
        return None
    schedule = labels.get(SCHEDULE, "").strip()
    if not schedule:
        raise InvalidArgument(f"service label {ENABLE} needs {SCHEDULE}, such as 0 2 * * *")
    time_zone = labels.get(TIME_ZONE, DEFAULTS[TIME_ZONE])
    try:
        zone = zoneinfo.ZoneInfo(time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(
            f'service label {TIME_ZONE}: "{time_zone}" is no time zone, such as Europe/Berlin'
        ) from None
    try:
        CronSim(ALIASES.get(schedule, schedule), dt.datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        raise InvalidArgument(
            f'service label {SCHEDULE}: "{schedule}": {error}; write minute hour day month weekday, or seconds before'
        ) from None
    replicas = labels.get(REPLICAS, "1")
    if not (replicas.isascii() and replicas.isdigit()):
        raise InvalidArgument(f'service label {REPLICAS}: "{replicas}" is no number')
    return CronSettings(
        schedule=schedule,
        time_zone=time_zone,
        skips_running=_truth(labels, SKIP_RUNNING),
        replicas=int(replicas),
        catches_up=labels.get(MISSED, DEFAULTS[MISSED]) == "once",
    )


def runs_kept(labels: Mapping[str, str]) -> int | None:
    """Return how many runs before the last are kept, with their tasks and what these wrote; None: nothing is said.

    Raises:
        InvalidArgument: it is no number, or too many.
    """
    text = labels.get(HISTORY)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 3 or int(text) > HISTORY_MOST:
        raise InvalidArgument(f'service label {HISTORY}: "{text}" is no number of runs from 0 to {HISTORY_MOST}')
    return int(text)


def _truth(labels: Mapping[str, str], label: str) -> bool:
    value = labels.get(label, "false").lower()
    if value not in {"true", "false", "1", "0"}:
        raise InvalidArgument(f'service label {label}: "{labels[label]}" is neither true nor false')
    return value in {"true", "1"}


def look(settings: CronSettings, since_ns: int, now_ns: int) -> Due:
    """Return which due times have come since `since_ns`, and which comes next.

    Where clocks are set forward or back a due time comes once, as cron's (cronsim follows Debian's).
    """
    latest_ns: int | None = None
    if now_ns - since_ns > LOOK_BACK_NS:
        recent = look(settings, now_ns - LOOK_BACK_NS, now_ns)
        if recent.latest_ns is not None:
            return recent
    zone = zoneinfo.ZoneInfo(settings.time_zone)
    start = dt.datetime.fromtimestamp(since_ns // NANO, tz=zone)
    times = CronSim(ALIASES.get(settings.schedule, settings.schedule), start)
    for _ in range(STEPS_MOST):
        try:
            due_ns = int(next(times).timestamp()) * NANO
        except StopIteration:
            return Due(latest_ns=latest_ns, next_ns=None)
        if due_ns > now_ns:
            return Due(latest_ns=latest_ns, next_ns=due_ns)
        latest_ns = due_ns
    return Due(latest_ns=latest_ns, next_ns=now_ns + NANO)


def is_to_run(settings: CronSettings, due_ns: int, now_ns: int, is_running: bool) -> tuple[bool, str]:
    """Tell whether a due time is to be run, and why or why not."""
    if now_ns - due_ns > LATE_NS and not settings.catches_up:
        return False, f"a run was missed {(now_ns - due_ns) // NANO} s ago: it is skipped ({MISSED})"
    if is_running and settings.skips_running:
        return False, f"a run is due while one is under way: it is skipped ({SKIP_RUNNING})"
    return True, "a run is due"


def spec_of_run(spec: ServiceSpec, settings: CronSettings) -> ServiceSpec:
    """Return the spec that makes a service run once more."""
    template = replace(spec.task_template, force_update=spec.task_template.force_update + 1)
    mode = spec.mode
    if mode.replicated is not None:
        mode = replace(mode, replicated=ReplicatedService(replicas=settings.replicas))
    return replace(spec, task_template=template, mode=mode)
