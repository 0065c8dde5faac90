"""A ServiceSpec as it is stored: its one written form, and what is refused (docker-swarm.md 3.5).

The order of the checks is Docker's: first what its daemon converts, then what its manager validates.
"""

from __future__ import annotations

from shoal.core.constraint import check_keys, parse
from shoal.core.cron import cron_settings
from shoal.core.dependencies import parse_dependencies
from shoal.core.endpoint_options import ignored_options, parse_link_options, refuse_same_interfaces
from shoal.core.extensions import BLUE_GREEN, STRATEGY, parse_extensions
from shoal.core.privileges import parse_privileges
from shoal.core.validate.container import normalise_container, validate_container, validate_references
from shoal.core.validate.names import validate_dns_name
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.base import replace
from shoal.model.specs import (
    EndpointSpec,
    Limit,
    PortConfig,
    ReplicatedJob,
    ReplicatedService,
    Resources,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

MIN_NANO_CPUS = 1_000_000
MIN_MEMORY_BYTES = 4 * 1024 * 1024
MAX_PORT = 65_535
# Docker has no bound; a slip of the finger must not fill the managers' memory
MAX_REPLICAS = 1_000_000
RESTART_CONDITIONS = ("none", "on-failure", "any")
FAILURE_ACTIONS = ("pause", "continue", "rollback")
UPDATE_ORDERS = ("stop-first", "start-first")
PROTOCOLS = ("tcp", "udp", "sctp")
PUBLISH_MODES = ("ingress", "host")
ENDPOINT_MODES = ("vip", "dnsrr")


def prepare_service(spec: ServiceSpec) -> ServiceSpec:
    """Return `spec` normalised and validated: what is stored, compared and shown.

    Args:
        spec: as the client sent it; its name must be settled.

    Raises:
        InvalidArgument: with Docker's text.
        NotBuilt: a runtime outside the product.
    """
    normal = normalise_service(spec)
    validate_service(normal)
    return normal


def normalise_service(spec: ServiceSpec) -> ServiceSpec:
    """Return `spec` with words in their one form and Docker's stored defaults. Raises InvalidArgument, NotBuilt."""
    task = _normalise_task(spec.task_template)
    if not task.networks and spec.networks:
        # the field of API versions before 1.25
        task = replace(task, networks=spec.networks)
    return replace(
        spec,
        task_template=task,
        networks=(),
        update_config=_normalise_update(spec.update_config),
        rollback_config=_normalise_update(spec.rollback_config),
        endpoint_spec=_normalise_endpoint(spec.endpoint_spec),
        mode=_normalise_mode(spec.mode),
    )


def _normalise_task(task: TaskSpec) -> TaskSpec:
    runtime = task.runtime or "container"
    if runtime == "plugin":
        raise NotBuilt('service runtime "plugin" is not supported: Shoal runs containers only')
    if runtime == "attachment":
        raise InvalidArgument('service runtime "attachment" cannot be created through this API')
    if runtime != "container":
        raise InvalidArgument("unsupported runtime")
    if task.container_spec is None or task.plugin_spec is not None or task.network_attachment_spec is not None:
        raise InvalidArgument("mismatched Runtime and *Spec fields")
    return replace(
        task,
        runtime=runtime,
        container_spec=normalise_container(task.container_spec),
        restart_policy=_normalise_restart(task.restart_policy),
    )


def _normalise_restart(policy: RestartPolicy | None) -> RestartPolicy | None:
    if policy is None:
        return None
    condition = policy.condition or "any"
    if condition not in RESTART_CONDITIONS:
        raise InvalidArgument(f'invalid RestartCondition: "{policy.condition}"')
    return replace(policy, condition=condition, max_attempts=policy.max_attempts or 0)


def _normalise_update(config: UpdateConfig | None) -> UpdateConfig | None:
    if config is None:
        return None
    action = config.failure_action or "pause"
    if action not in FAILURE_ACTIONS:
        raise InvalidArgument(f"unrecognized update failure action {config.failure_action}")
    order = config.order or "stop-first"
    if order not in UPDATE_ORDERS:
        raise InvalidArgument(f"unrecognized update order {config.order}")
    return replace(config, failure_action=action, order=order)


def _normalise_endpoint(endpoint: EndpointSpec | None) -> EndpointSpec | None:
    if endpoint is None:
        return None
    mode = (endpoint.mode or "vip").lower()
    if mode not in ENDPOINT_MODES:
        raise InvalidArgument(f'invalid resolution mode: "{endpoint.mode}": use vip or dnsrr')
    return replace(endpoint, mode=mode, ports=tuple(_normalise_port(port) for port in endpoint.ports))


def _normalise_port(port: PortConfig) -> PortConfig:
    protocol = (port.protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise InvalidArgument(f'invalid protocol of a published port: "{port.protocol}": use tcp, udp or sctp')
    mode = (port.publish_mode or "ingress").lower()
    if mode not in PUBLISH_MODES:
        raise InvalidArgument(f'invalid publish mode of a port: "{port.publish_mode}": use ingress or host')
    for word, number in (("target", port.target_port), ("published", port.published_port)):
        if number > MAX_PORT:
            raise InvalidArgument(f"invalid {word} port {number}: ports go from 1 to {MAX_PORT}")
    return replace(port, protocol=protocol, publish_mode=mode)


def _normalise_mode(mode: ServiceMode) -> ServiceMode:
    named = [each for each in (mode.replicated, mode.global_, mode.replicated_job, mode.global_job) if each is not None]
    if len(named) > 1:
        raise InvalidArgument("must specify only one service mode")
    if not named:
        return ServiceMode(replicated=ReplicatedService(replicas=1))
    if mode.replicated is not None and mode.replicated.replicas is None:
        return ServiceMode(replicated=ReplicatedService(replicas=1))
    if mode.replicated_job is not None:
        job = mode.replicated_job
        at_once = 1 if job.max_concurrent is None else job.max_concurrent
        total = at_once if job.total_completions is None else job.total_completions
        return ServiceMode(replicated_job=ReplicatedJob(max_concurrent=at_once, total_completions=total))
    return mode


def validate_service(spec: ServiceSpec) -> None:
    """Check a normalised spec. Raises InvalidArgument with Docker's text."""
    validate_dns_name(spec.name)
    if parse_extensions(spec.labels).is_blue_green:
        _validate_blue_green(spec)
    cron_settings(spec.labels)
    parse_dependencies(spec.labels)
    parse_privileges(spec.labels)
    _validate_task(spec.task_template)
    _validate_mode(spec)
    _validate_update("update", spec.update_config)
    _validate_update("rollback", spec.rollback_config)
    _validate_endpoint(spec.endpoint_spec)


def _validate_blue_green(spec: ServiceSpec) -> None:
    """Refuse what does not go over with the rest: what is asked of a task directly, and what has no updates."""
    if spec.mode.replicated_job is not None or spec.mode.global_job is not None:
        raise InvalidArgument(f"service label {STRATEGY}: a job has no update to be {BLUE_GREEN}; remove it")
    ports = spec.endpoint_spec.ports if spec.endpoint_spec is not None else ()
    if any(port.publish_mode == "host" for port in ports):
        raise InvalidArgument(
            f"service label {STRATEGY}: a port published with mode=host leads to its task at once, not when all "
            f"traffic goes over: publish it with mode=ingress, or update by {STRATEGY}=rolling"
        )


def _validate_task(task: TaskSpec) -> None:
    if task.resources is not None:
        _validate_resources(task.resources.limits)
        _validate_resources(task.resources.reservations)
        limits = task.resources.limits
        if limits is not None and limits.pids < 0:
            raise InvalidArgument(f"invalid pids limit {limits.pids}: use 0 for no limit")
    policy = task.restart_policy
    if policy is not None:
        if policy.delay is not None and policy.delay < 0:
            raise InvalidArgument("TaskSpec: restart-delay cannot be negative")
        if policy.window is not None and policy.window < 0:
            raise InvalidArgument("TaskSpec: restart-window cannot be negative")
    if task.placement is not None:
        check_keys(parse(task.placement.constraints))
    refuse_same_interfaces(
        parse_link_options(each.driver_opts, f"TaskTemplate.Networks.{each.target}.DriverOpts")
        for each in task.networks
    )
    container = task.container_spec
    if container is not None:
        validate_references(container)
        validate_container(container)


def _validate_resources(resources: Limit | Resources | None) -> None:
    if resources is None:
        return
    if resources.nano_cpus != 0 and resources.nano_cpus < MIN_NANO_CPUS:
        raise InvalidArgument(f"invalid cpu value {_shortest(resources.nano_cpus / 1e9)}: Must be at least 0.001")
    if resources.memory_bytes != 0 and resources.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument(f"invalid memory value {resources.memory_bytes}: Must be at least 4MiB")


def _shortest(number: float) -> str:
    """Write a number as Go's %g does for numbers of this size."""
    return repr(number).removesuffix(".0")


def warnings_of(spec: ServiceSpec) -> list[str]:
    """Return what whoever wrote a spec should know of it: what is kept, and means nothing here."""
    return [
        text
        for each in spec.task_template.networks
        for text in ignored_options(each.driver_opts, f"TaskTemplate.Networks.{each.target}.DriverOpts")
    ]


def _validate_mode(spec: ServiceSpec) -> None:
    mode = spec.mode
    counts: list[int | None] = []
    if mode.replicated is not None:
        counts.append(mode.replicated.replicas)
    if mode.replicated_job is not None:
        counts += [mode.replicated_job.max_concurrent, mode.replicated_job.total_completions]
    if any(count is not None and count > MAX_REPLICAS for count in counts):
        raise InvalidArgument(f"invalid number of replicas: a service has at most {MAX_REPLICAS}")
    if (mode.replicated_job is not None or mode.global_job is not None) and spec.update_config is not None:
        raise InvalidArgument("Jobs may not have an update config: leave UpdateConfig out")


def _validate_update(word: str, config: UpdateConfig | None) -> None:
    if config is None:
        return
    if config.delay < 0:
        raise InvalidArgument(f"TaskSpec: {word}-delay cannot be negative")
    if config.monitor < 0:
        raise InvalidArgument(f"TaskSpec: {word}-monitor cannot be negative")
    if not 0 <= config.max_failure_ratio <= 1:
        raise InvalidArgument(f"TaskSpec: {word}-maxfailureratio cannot be less than 0 or bigger than 1")


def _validate_endpoint(endpoint: EndpointSpec | None) -> None:
    if endpoint is None:
        return
    seen: set[tuple[str, str, int]] = set()
    for port in endpoint.ports:
        if endpoint.mode == "dnsrr" and port.publish_mode == "ingress":
            raise InvalidArgument("EndpointSpec: port published with ingress mode can't be used with dnsrr mode")
        key = (port.publish_mode, port.protocol, port.published_port)
        if port.published_port and key in seen:
            raise InvalidArgument("EndpointSpec: duplicate published ports provided")
        seen.add(key)
