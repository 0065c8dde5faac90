"""What a service gets when it does not say: shown by `insertDefaults`, used by whoever needs a value."""

from __future__ import annotations

from shoal.model.base import replace
from shoal.model.container_spec import DNSConfig
from shoal.model.specs import Placement, ResourceRequirements, RestartPolicy, ServiceSpec, UpdateConfig

STOP_GRACE_PERIOD_NS = 10_000_000_000
RESTART_DELAY_NS = 5_000_000_000
UPDATE_MONITOR_NS = 5_000_000_000
DEFAULT_UPDATE = UpdateConfig(
    parallelism=1, failure_action="pause", monitor=UPDATE_MONITOR_NS, max_failure_ratio=0.0, order="stop-first"
)
DEFAULT_RESTART = RestartPolicy(condition="any", delay=RESTART_DELAY_NS, max_attempts=0)


def insert_defaults(spec: ServiceSpec) -> ServiceSpec:
    """Return `spec` with every default written out, as `GET /services/{id}?insertDefaults=true` shows it."""
    task = spec.task_template
    container = task.container_spec
    if container is not None:
        if container.stop_grace_period is None:
            container = replace(container, stop_grace_period=STOP_GRACE_PERIOD_NS)
        if container.dns_config is None:
            container = replace(container, dns_config=DNSConfig())
    policy = task.restart_policy or DEFAULT_RESTART
    if policy.delay is None:
        policy = replace(policy, delay=RESTART_DELAY_NS)
    task = replace(
        task,
        container_spec=container,
        resources=task.resources or ResourceRequirements(),
        restart_policy=policy,
        placement=task.placement or Placement(),
    )
    is_job = spec.mode.replicated_job is not None or spec.mode.global_job is not None
    return replace(
        spec,
        task_template=task,
        update_config=spec.update_config if is_job else _with_monitor(spec.update_config),
        rollback_config=spec.rollback_config if is_job else _with_monitor(spec.rollback_config),
    )


def _with_monitor(config: UpdateConfig | None) -> UpdateConfig:
    if config is None:
        return DEFAULT_UPDATE
    return config if config.monitor else replace(config, monitor=UPDATE_MONITOR_NS)
