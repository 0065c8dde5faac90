"""Services that run at times."""

from __future__ import annotations

import datetime as dt

import pytest

from shoal.core.cron import CronSettings, cron_settings, is_to_run, look, spec_of_run
from shoal.errors import InvalidArgument
from shoal.model.specs import ReplicatedJob, ServiceMode, ServiceSpec
from tests.doubles.swarm import service_spec

NANO = 1_000_000_000
EVERY_MINUTE = {"swarm.cronjob.enable": "true", "swarm.cronjob.schedule": "* * * * *"}


def at(text: str) -> int:
    return int(dt.datetime.fromisoformat(f"2026-{text}+00:00").timestamp()) * NANO


def test_labels_as_swarm_cronjob_has_them() -> None:
    assert cron_settings({}) is None
    assert cron_settings({"swarm.cronjob.schedule": "not read"}) is None
    labels = EVERY_MINUTE | {"swarm.cronjob.skip-running": "true", "swarm.cronjob.replicas": "3"}
    assert cron_settings(labels) == CronSettings(schedule="* * * * *", skips_running=True, replicas=3)
    assert cron_settings(EVERY_MINUTE | {"shoal.cron.missed": "once", "shoal.cron.timezone": "Asia/Shanghai"}) == (
        CronSettings(schedule="* * * * *", time_zone="Asia/Shanghai", catches_up=True)
    )


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"swarm.cronjob.enable": "true"}, "needs swarm.cronjob.schedule"),
        ({"swarm.cronjob.enable": "perhaps"}, '"perhaps" is neither true nor false'),
        (EVERY_MINUTE | {"swarm.cronjob.schedule": "61 * * * *"}, 'swarm.cronjob.schedule: "61 * * * *"'),
        (EVERY_MINUTE | {"swarm.cronjob.schedule": "0 0 30 2 *"}, "Bad day-of-month"),
        (EVERY_MINUTE | {"swarm.cronjob.schedule": "* *"}, "write minute hour day month weekday"),
        (EVERY_MINUTE | {"swarm.cronjob.replicas": "-1"}, 'swarm.cronjob.replicas: "-1" is no number'),
        (EVERY_MINUTE | {"swarm.cronjob.skip-running": "2"}, "swarm.cronjob.skip-running"),
        ({"shoal.cron.history": "101"}, 'shoal.cron.history: "101" is no number of runs from 0 to 100'),
        ({"shoal.cron.history": "-1"}, 'shoal.cron.history: "-1"'),
        (EVERY_MINUTE | {"shoal.cron.timezone": "Mars/Base"}, '"Mars/Base" is no time zone'),
    ],
)
def test_what_is_refused_by_name(labels: dict[str, str], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        cron_settings(labels)
    assert text in caught.value.message


@pytest.mark.parametrize(
    ("schedule", "zone", "since", "now", "latest", "following"),
    [
        ("* * * * *", "UTC", "11-26T10:00:30", "11-26T10:00:59", None, "11-26T10:01:00"),
        ("* * * * *", "UTC", "11-26T10:00:00", "11-26T10:01:00", "11-26T10:01:00", "11-26T10:02:00"),
        ("0 2 * * *", "UTC", "11-01T00:00:00", "11-26T10:00:00", "11-26T02:00:00", "11-27T02:00:00"),
        ("@monthly", "UTC", "01-15T00:00:00", "11-26T10:00:00", "11-01T00:00:00", "12-01T00:00:00"),
        ("30 9 * * *", "Asia/Shanghai", "11-26T00:00:00", "11-26T02:00:00", "11-26T01:30:00", "11-27T01:30:00"),
        # the night in which 02:30 is there twice: once is enough
        ("30 2 * * *", "Europe/Berlin", "10-24T12:00:00", "10-25T12:00:00", "10-25T00:30:00", "10-26T01:30:00"),
        ("*/10 * * * * *", "UTC", "11-26T10:00:01", "11-26T10:00:25", "11-26T10:00:20", "11-26T10:00:30"),
    ],
)  # fmt: skip
def test_due_times(schedule: str, zone: str, since: str, now: str, latest: str | None, following: str | None) -> None:
    found = look(CronSettings(schedule=schedule, time_zone=zone), at(since), at(now))
    assert found.latest_ns == (at(latest) if latest else None)
    assert found.next_ns == (at(following) if following else None)


def test_a_due_time_has_its_turn_once() -> None:
    settings = CronSettings(schedule="* * * * *")
    since, runs = at("11-26T10:00:00"), []
    for second in range(0, 600, 7):
        now = at("11-26T10:00:00") + second * NANO
        due = look(settings, since, now)
        if due.latest_ns is not None:
            runs.append(due.latest_ns)
            since = due.latest_ns
    assert runs == [at(f"11-26T10:0{minute}:00") for minute in range(1, 10)]


def test_what_is_run_and_what_is_skipped() -> None:
    settings = CronSettings(schedule="* * * * *", skips_running=True)
    due = at("11-26T10:00:00")
    assert is_to_run(settings, due, due + NANO, is_running=False) == (True, "a run is due")
    assert not is_to_run(settings, due, due + NANO, is_running=True)[0]
    late = is_to_run(settings, due, due + 3600 * NANO, is_running=False)
    assert (late[0], "missed 3600 s ago" in late[1]) == (False, True)
    catching_up = CronSettings(schedule="* * * * *", catches_up=True)
    assert is_to_run(catching_up, due, due + 3600 * NANO, is_running=True)[0]


def test_a_run_is_a_forced_update() -> None:
    settings = CronSettings(schedule="* * * * *", replicas=2)
    run = spec_of_run(service_spec("web", 0), settings)
    assert run.mode.replicated is not None
    assert (run.mode.replicated.replicas, run.task_template.force_update) == (2, 1)
    job = ServiceSpec(name="job", mode=ServiceMode(replicated_job=ReplicatedJob(total_completions=5)))
    assert spec_of_run(job, settings).mode == job.mode
