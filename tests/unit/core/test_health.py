"""Health checks: what is run, when, and what results mean."""

from __future__ import annotations

import pytest

from shoal.core.health import Check, after_result, check_of, merged, next_delay_seconds, shown_output
from shoal.model.container import Health, HealthResult, HealthStatus
from shoal.model.container_spec import HealthConfig

S = 1_000_000_000
CHECK = Check(
    arguments=("x",), interval_ns=30 * S, timeout_ns=S, start_period_ns=20 * S, start_interval_ns=5 * S, retries=2
)
STARTING, HEALTHY, UNHEALTHY = HealthStatus.STARTING, HealthStatus.HEALTHY, HealthStatus.UNHEALTHY


def result(code: int, at_seconds: int = 100) -> HealthResult:
    return HealthResult(started_at_ns=at_seconds * S, ended_at_ns=at_seconds * S + 1, exit_code=code)


@pytest.mark.parametrize(
    ("test", "arguments"),
    [
        (("CMD", "a", "b"), ("a", "b")),
        (("CMD-SHELL", "a && b"), ("/bin/sh", "-c", "a && b")),
        (("a", "b"), ("a", "b")),
        (("NONE",), None),
        (("CMD",), None),
        ((), None),
    ],
)
def test_what_is_run(test: tuple[str, ...], arguments: tuple[str, ...] | None) -> None:
    check = check_of(HealthConfig(test=test))
    assert (check.arguments if check is not None else None) == arguments


def test_defaults_are_dockers() -> None:
    check = check_of(HealthConfig(test=("CMD", "x")))
    assert check == Check(
        arguments=("x",), interval_ns=30 * S, timeout_ns=30 * S, start_period_ns=0, start_interval_ns=5 * S, retries=3
    )
    assert check_of(None) is None


def test_what_is_asked_for_goes_over_the_image() -> None:
    of_image = HealthConfig(test=("CMD", "image"), interval=7, retries=9)
    assert merged(None, of_image) == of_image
    assert merged(HealthConfig(test=("NONE",)), of_image) == HealthConfig(test=("NONE",))
    both = merged(HealthConfig(interval=3, timeout=4), of_image)
    assert both == HealthConfig(test=("CMD", "image"), interval=3, timeout=4, retries=9)


def test_failures_in_the_start_period_do_not_count() -> None:
    health = after_result(CHECK, Health(), result(1, 10), 0)
    assert (health.status, health.failing_streak, len(health.log)) == (STARTING, 0, 1)
    health = after_result(CHECK, health, result(1, 21), 0)
    assert (health.status, health.failing_streak) == (STARTING, 1)
    assert after_result(CHECK, health, result(1, 51), 0).status == UNHEALTHY


def test_a_success_ends_the_start_period_and_the_streak() -> None:
    healthy = after_result(CHECK, Health(failing_streak=1), result(0, 5), 0)
    assert (healthy.status, healthy.failing_streak) == (HEALTHY, 0)
    once = after_result(CHECK, healthy, result(1, 6), 0)
    assert (once.status, once.failing_streak) == (HEALTHY, 1), "what was well is judged at once"
    assert after_result(CHECK, once, result(-1, 7), 0).status == UNHEALTHY


def test_five_results_are_kept() -> None:
    health = Health()
    for number in range(8):
        health = after_result(CHECK, health, result(0, number), 0)
    assert [each.started_at_ns // S for each in health.log] == [3, 4, 5, 6, 7]


def test_when_the_next_check_is_due() -> None:
    assert next_delay_seconds(CHECK, Health(), 0, 0.9) == 5, "while it starts, without jitter at first"
    assert next_delay_seconds(CHECK, Health(), 25 * S, 0.9) == 30
    seen = Health(status=HEALTHY, log=(result(0),))
    assert next_delay_seconds(CHECK, seen, 0, 0.0) == pytest.approx(27)
    assert next_delay_seconds(CHECK, seen, 0, 1.0) == pytest.approx(33)
    assert next_delay_seconds(CHECK, Health(), 99 * S, 0.5, is_adopted=True) == 15


def test_output_is_cut() -> None:
    assert shown_output(b"fine\xff") == "fine\ufffd"
    assert shown_output(b"x" * 5000) == "x" * 4096 + "..."
