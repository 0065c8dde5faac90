"""Health checks as Docker has them: what is run, when the next one is due, what a result means. Runs nothing."""

from __future__ import annotations

from shoal.model.base import Struct, replace
from shoal.model.container import Health, HealthResult, HealthStatus
from shoal.model.container_spec import HealthConfig

NANOSECONDS_PER_SECOND = 1_000_000_000
DEFAULT_INTERVAL_NS = 30 * NANOSECONDS_PER_SECOND
DEFAULT_TIMEOUT_NS = 30 * NANOSECONDS_PER_SECOND
DEFAULT_START_INTERVAL_NS = 5 * NANOSECONDS_PER_SECOND
DEFAULT_RETRIES = 3
RESULTS_KEPT = 5
OUTPUT_BYTES_MOST = 4096
# Later checks come up to this part of an interval earlier or later: a thousand that began together must not stay so.
JITTER = 0.1
NO_RESULT_CODE = -1
NONE_TEST = "NONE"
SHELL = ("/bin/sh", "-c")


class Check(Struct):
    """A check with all defaults filled in."""

    arguments: tuple[str, ...]
    interval_ns: int
    timeout_ns: int
    start_period_ns: int
    start_interval_ns: int
    retries: int


def merged(asked: HealthConfig | None, of_image: HealthConfig | None) -> HealthConfig | None:
    """Return what a container has: what was asked for, the image's where nothing was."""
    if asked is None or of_image is None:
        return asked or of_image
    if asked.test[:1] == (NONE_TEST,):
        return asked
    return HealthConfig(
        test=asked.test or of_image.test,
        interval=asked.interval or of_image.interval,
        timeout=asked.timeout or of_image.timeout,
        start_period=asked.start_period or of_image.start_period,
        start_interval=asked.start_interval or of_image.start_interval,
        retries=asked.retries or of_image.retries,
    )


def check_of(config: HealthConfig | None) -> Check | None:
    """Return what is to be run for a container of this configuration, None if nothing."""
    if config is None or not config.test or config.test[0] in (NONE_TEST, ""):
        return None
    kind, arguments = config.test[0], config.test[1:]
    if kind == "CMD-SHELL":
        arguments = (*SHELL, *arguments[:1])
    elif kind != "CMD":
        # as Docker takes a list without one of its words
        arguments = config.test
    if not arguments:
        return None
    return Check(
        arguments=arguments,
        interval_ns=config.interval or DEFAULT_INTERVAL_NS,
        timeout_ns=config.timeout or DEFAULT_TIMEOUT_NS,
        start_period_ns=config.start_period,
        start_interval_ns=config.start_interval or DEFAULT_START_INTERVAL_NS,
        retries=config.retries or DEFAULT_RETRIES,
    )


def next_delay_seconds(check: Check, health: Health, age_ns: int, chance: float, is_adopted: bool = False) -> float:
    """Return how long to wait for the next check.

    Args:
        check: what is checked.
        health: what is known.
        age_ns: how long the container has run.
        chance: between 0 and 1.
        is_adopted: the container ran before its first check was to be made here: those of a node spread out.
    """
    starting = health.status == HealthStatus.STARTING and age_ns < check.start_period_ns
    interval_ns = min(check.start_interval_ns, check.interval_ns) if starting else check.interval_ns
    if is_adopted:
        return interval_ns * chance / NANOSECONDS_PER_SECOND
    spread = JITTER * (2 * chance - 1) if health.log else 0.0
    return interval_ns * (1 + spread) / NANOSECONDS_PER_SECOND


def after_result(check: Check, health: Health, result: HealthResult, started_at_ns: int) -> Health:
    """Return a container's health after a check.

    Args:
        check: what was checked.
        health: what was known.
        result: how it went.
        started_at_ns: when the container started.
    """
    log = (*health.log, result)[-RESULTS_KEPT:]
    if result.exit_code == 0:
        return Health(status=HealthStatus.HEALTHY, log=log)
    in_start_period = result.started_at_ns - started_at_ns < check.start_period_ns
    if health.status == HealthStatus.STARTING and in_start_period:
        return replace(health, log=log)
    streak = health.failing_streak + 1
    status = HealthStatus.UNHEALTHY if streak >= check.retries else health.status
    return Health(status=status, failing_streak=streak, log=log)


def shown_output(data: bytes) -> str:
    """Return what is kept of a check's output."""
    text = data[:OUTPUT_BYTES_MOST].decode(errors="replace")
    return f"{text}..." if len(data) > OUTPUT_BYTES_MOST else text
