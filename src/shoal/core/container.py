"""From a task to the container that runs it: names, labels, placeholders, limits (docker-swarm.md 4.1)."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.core.payload_files import Payloads, container_files
from shoal.core.privileges import parse_privileges
from shoal.core.template import Context, expand
from shoal.errors import InvalidArgument
from shoal.model.base import replace
from shoal.model.container import ContainerConfig
from shoal.model.container_spec import Driver, Mount
from shoal.model.objects import NodeDescription, Revision, Task
from shoal.model.specs import Limit, ServiceSpec, TaskSpec

TASK_ID_LABEL = "com.docker.swarm.task.id"
NODE_ID_LABEL = "com.docker.swarm.node.id"
SERVICE_ID_LABEL = "com.docker.swarm.service.id"
SERVICE_NAME_LABEL = "com.docker.swarm.service.name"
TASK_NAME_LABEL = "com.docker.swarm.task.name"
TASK_LABEL = "com.docker.swarm.task"


def task_name(service_name: str, task: Task) -> str:
    """Return the full name of a task, which is its container's name: `web.1.ID`, or `web.NODE.ID` without slots."""
    return f"{service_name}.{task.slot or task.node_id}.{task.id}"


def container_config(
    task: Task,
    revision: Revision,
    node_id: str,
    description: NodeDescription,
    image_id: str = "",
    payloads: Payloads | None = None,
) -> ContainerConfig:
    """Return what the engine is to create for a task, without its network.

    Raises:
        InvalidArgument: a placeholder that stands for nothing.
        NotFound: a secret or config that the node does not have.
        NotBuilt: a part of the spec that this version cannot give a container.
    """
    spec = revision.spec.task_template.container_spec
    if spec is None:
        raise InvalidArgument("the task has no ContainerSpec: only containers can be run")
    context = _context(task, revision, node_id, description)
    privileges = spec.privileges
    seccomp = privileges.seccomp if privileges else None
    grace_ns = spec.stop_grace_period
    config = ContainerConfig(
        name=context.task_name,
        image=spec.image,
        image_id=image_id,
        entrypoint=spec.command or None,
        command=spec.args or None,
        env=(*(expand(line, context, "ContainerSpec.Env") for line in spec.env), *_resource_lines(task)),
        working_dir=spec.dir,
        user=spec.user,
        groups=spec.groups,
        hostname=expand(spec.hostname, context, "ContainerSpec.Hostname"),
        labels=spec.labels | _labels(context),
        mounts=tuple(_expand_mount(mount, context) for mount in spec.mounts),
        files=container_files(spec, payloads or Payloads(), context),
        tty=spec.tty,
        open_stdin=spec.open_stdin,
        init=bool(spec.init),
        read_only=spec.read_only,
        stop_signal=spec.stop_signal,
        stop_timeout_seconds=None if grace_ns is None else grace_ns / 1e9,
        capability_add=spec.capability_add,
        capability_drop=spec.capability_drop,
        seccomp_mode=seccomp.mode if seccomp else "",
        seccomp_profile=seccomp.profile if seccomp else "",
        no_new_privileges=bool(privileges and privileges.no_new_privileges),
        sysctls=spec.sysctls,
        ulimits=spec.ulimits,
        oom_score_adj=spec.oom_score_adj,
        healthcheck=spec.healthcheck,
        hosts=spec.hosts,
        dns_nameservers=spec.dns_config.nameservers if spec.dns_config else (),
        dns_search=spec.dns_config.search if spec.dns_config else (),
        dns_options=spec.dns_config.options if spec.dns_config else (),
    )
    return _with_limits_and_log(_with_privileges(config, revision.spec), revision.spec.task_template)


def _with_privileges(config: ContainerConfig, spec: ServiceSpec) -> ContainerConfig:
    asked = parse_privileges(spec.labels)
    return replace(
        config,
        privileged=asked.privileged,
        devices=asked.devices,
        shm_bytes=asked.shm_bytes,
        host_namespaces=asked.host_namespaces,
    )


def _resource_lines(task: Task) -> Iterator[str]:
    """Yield what tells a container of its generic resources: names or how many (docker-swarm.md 4.7)."""
    values: dict[str, list[str]] = {}
    for resource in task.generic_resources:
        given = resource.named_resource_spec or resource.discrete_resource_spec or {}
        values.setdefault(str(given.get("Kind", "")), []).append(str(given.get("Value", "")))
    for kind, names in values.items():
        yield f"DOCKER_RESOURCE_{kind.upper().replace('-', '_')}={','.join(names)}"


def _with_limits_and_log(config: ContainerConfig, template: TaskSpec) -> ContainerConfig:
    limits = (template.resources.limits if template.resources else None) or Limit()
    log_driver = template.log_driver or Driver()
    return replace(
        config,
        nano_cpus=limits.nano_cpus,
        memory_bytes=limits.memory_bytes,
        pids_limit=limits.pids,
        log_driver=log_driver.name or config.log_driver,
        log_options=log_driver.options,
    )


def check_placeholders(spec: ServiceSpec) -> None:
    """Refuse a spec whose placeholders no task could fill in, before it has tasks. Raises InvalidArgument."""
    container = spec.task_template.container_spec
    if container is None:
        return
    context = Context(
        service_id="id", service_name=spec.name, service_labels=spec.labels, node_id="id", node_hostname="host",
        node_architecture="x86_64", node_os="linux", task_id="id", task_name="name", task_slot="1",
    )  # fmt: skip
    for line in container.env:
        expand(line, context, "ContainerSpec.Env")
    expand(container.hostname, context, "ContainerSpec.Hostname")
    for mount in container.mounts:
        _expand_mount(mount, context)


def _context(task: Task, revision: Revision, node_id: str, description: NodeDescription) -> Context:
    return Context(
        service_id=task.service_id,
        service_name=revision.spec.name,
        service_labels=revision.spec.labels,
        node_id=node_id,
        node_hostname=description.hostname,
        node_architecture=description.platform.architecture,
        node_os=description.platform.os,
        task_id=task.id,
        task_name=task_name(revision.spec.name, task),
        task_slot=str(task.slot) if task.slot else node_id,
    )


def _labels(context: Context) -> dict[str, str]:
    return {
        TASK_LABEL: "",
        TASK_ID_LABEL: context.task_id,
        TASK_NAME_LABEL: context.task_name,
        NODE_ID_LABEL: context.node_id,
        SERVICE_ID_LABEL: context.service_id,
        SERVICE_NAME_LABEL: context.service_name,
    }


def _expand_mount(mount: Mount, context: Context) -> Mount:
    options = mount.volume_options
    if options is not None:
        driver = options.driver_config
        if driver is not None:
            options_of_driver = _expand_values(driver.options, context, "VolumeOptions.DriverConfig.Options")
            driver = replace(driver, options=options_of_driver)
        labels = _expand_values(options.labels, context, "VolumeOptions.Labels")
        options = replace(options, labels=labels, driver_config=driver)
    return replace(
        mount,
        source=expand(mount.source, context, "Mounts.Source"),
        target=expand(mount.target, context, "Mounts.Target"),
        volume_options=options,
    )


def _expand_values(values: dict[str, str], context: Context, field: str) -> dict[str, str]:
    return {key: expand(value, context, f"{field}.{key}") for key, value in values.items()}
