"""What a service gets when it does not say: written out for `insertDefaults`."""

from __future__ import annotations

from shoal.core.defaults import (
    DEFAULT_UPDATE_CONFIG,
    RESTART_DELAY_NS,
    SECOND_NS,
    STOP_GRACE_SECONDS,
    UPDATE_MONITOR_NS,
    is_job,
)
from shoal.model.base import replace
from shoal.model.container_spec import DNSConfig
from shoal.model.specs import Placement, ResourceRequirements, RestartPolicy, ServiceSpec, UpdateConfig

DEFAULT_RESTART = RestartPolicy(condition="any", delay=RESTART_DELAY_NS, max_attempts=0)


def insert_defaults(spec: ServiceSpec) -> ServiceSpec:
    """Return `spec` with every default written out, as `GET /services/{id}?insertDefaults=true` shows it."""
    task = spec.task_template
    container = task.container_spec
    if container is not None:
        if container.stop_grace_period is None:
            container = replace(container, stop_grace_period=int(STOP_GRACE_SECONDS * SECOND_NS))
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
    return replace(
        spec,
        task_template=task,
        update_config=spec.update_config if is_job(spec) else _with_monitor(spec.update_config),
        rollback_config=spec.rollback_config if is_job(spec) else _with_monitor(spec.rollback_config),
    )


def _with_monitor(config: UpdateConfig | None) -> UpdateConfig:
    if config is None:
        return DEFAULT_UPDATE_CONFIG
    return config if config.monitor else replace(config, monitor=UPDATE_MONITOR_NS)
