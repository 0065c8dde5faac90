"""What holds when a spec does not say (docker-swarm.md 3.5, 4.2, 4.3): one place for every default."""

from __future__ import annotations

from shoal.model.base import Struct, replace
from shoal.model.objects import Cluster
from shoal.model.specs import ServiceSpec, TaskSpec, UpdateConfig

SECOND_NS = 1_000_000_000
RESTART_DELAY_NS = 5 * SECOND_NS
UPDATE_MONITOR_NS = 5 * SECOND_NS
STOP_GRACE_SECONDS = 10.0
TASK_HISTORY_LIMIT = 5
OLD_TASK_WAIT_NS = 60 * SECOND_NS
HEARTBEAT_PERIOD_NS = 5 * SECOND_NS

DEFAULT_UPDATE_CONFIG = UpdateConfig(
    parallelism=1, failure_action="pause", monitor=UPDATE_MONITOR_NS, order="stop-first"
)


class Restart(Struct):
    """A restart policy with every default filled in; 0 attempts or window means no bound."""

    condition: str
    delay_ns: int
    max_attempts: int
    window_ns: int


def restart_policy(spec: TaskSpec) -> Restart:
    """Return the restart policy of a task spec."""
    policy = spec.restart_policy
    if policy is None:
        return Restart(condition="any", delay_ns=RESTART_DELAY_NS, max_attempts=0, window_ns=0)
    return Restart(
        condition=policy.condition or "any",
        delay_ns=RESTART_DELAY_NS if policy.delay is None else policy.delay,
        max_attempts=policy.max_attempts or 0,
        window_ns=policy.window or 0,
    )


def update_config(spec: ServiceSpec, rollback: bool) -> UpdateConfig:
    """Return how an update (or a rollback) proceeds. In an explicit object a parallelism of 0 means all at once."""
    config = spec.rollback_config if rollback else spec.update_config
    if config is None:
        return DEFAULT_UPDATE_CONFIG
    return replace(
        config,
        failure_action=config.failure_action or "pause",
        monitor=config.monitor or UPDATE_MONITOR_NS,
        order=config.order or "stop-first",
    )


def replicas_of(spec: ServiceSpec) -> int:
    """Return the number of replicas a replicated service wants."""
    replicated = spec.mode.replicated
    return 1 if replicated is None or replicated.replicas is None else replicated.replicas


def is_replicated(spec: ServiceSpec) -> bool:
    """Whether a service has replicas; a service without a mode has."""
    mode = spec.mode
    return mode.replicated is not None or (mode.global_ is None and not is_job(spec))


def is_job(spec: ServiceSpec) -> bool:
    """Whether a service's tasks run to completion."""
    return spec.mode.replicated_job is not None or spec.mode.global_job is not None


def task_history_limit(cluster: Cluster | None) -> int:
    """Return how many tasks a slot keeps; negative keeps all."""
    limit = cluster.spec.orchestration.task_history_retention_limit if cluster else None
    return TASK_HISTORY_LIMIT if limit is None else limit
