"""Services as Docker's JSON: which fields are always there, which only when set (docker-swarm.md 3.5 and trap 8)."""

from __future__ import annotations

from typing import Any

from shoal.api.views.shared import Json, meta_view, plain, time_text, with_labels
from shoal.core.insert_defaults import insert_defaults
from shoal.model.objects import JobStatus, Service, Task, UpdateStatus
from shoal.model.specs import PortConfig, ServiceSpec, TaskSpec
from shoal.model.states import TaskState


def service_view(
    service: Service,
    previous: ServiceSpec | None,
    *,
    with_defaults: bool = False,
    status: Json | None = None,
) -> Json:
    """Return a service.

    Args:
        service: the service.
        previous: its previous spec, if it has one.
        with_defaults: write defaults out (`insertDefaults`).
        status: the counts of `service_status`, where asked for.
    """
    spec = insert_defaults(service.spec) if with_defaults else service.spec
    view = meta_view(service.id, service.meta)
    view["Spec"] = service_spec_view(spec)
    if previous is not None:
        view["PreviousSpec"] = service_spec_view(insert_defaults(previous) if with_defaults else previous)
    view["Endpoint"] = _endpoint_view(service)
    if service.update_status is not None:
        view["UpdateStatus"] = _update_status_view(service.update_status)
    if status is not None:
        view["ServiceStatus"] = status
    if service.job_status is not None:
        view["JobStatus"] = _job_status_view(service.job_status)
    return view


def service_spec_view(spec: ServiceSpec) -> Json:
    """Return a spec as inspect shows it; credentials are never in it."""
    view = with_labels(plain(spec))
    view.pop("Networks", None)
    view["TaskTemplate"] = task_spec_view(spec.task_template) | {"Runtime": spec.task_template.runtime or "container"}
    view["Mode"] = plain(spec.mode)
    for key, config in (("UpdateConfig", spec.update_config), ("RollbackConfig", spec.rollback_config)):
        if config is not None:
            view[key] = {
                **plain(config),
                "Parallelism": config.parallelism,
                "MaxFailureRatio": _number(config.max_failure_ratio),
            }
    return view


def task_spec_view(task: TaskSpec) -> Json:
    """Return a task's spec as tasks show it: without the runtime."""
    view = plain(task)
    view.pop("Runtime", None)
    view["ForceUpdate"] = task.force_update
    container = view.get("ContainerSpec")
    if container is not None:
        container.pop("PullOptions", None)
        _complete_container(container)
    for preference in view.get("Placement", {}).get("Preferences", ()):
        if "Spread" in preference:
            preference["Spread"].setdefault("SpreadDescriptor", "")
    order = ("ContainerSpec", "Resources", "RestartPolicy", "Placement", "Networks", "LogDriver", "ForceUpdate")
    return {key: view[key] for key in order if key in view}


def _complete_container(container: Json) -> None:
    """Put in what Docker always writes."""
    privileges = container.get("Privileges")
    if privileges is not None:
        container["Privileges"] = {
            "CredentialSpec": None,
            "SELinuxContext": None,
            **privileges,
            "NoNewPrivileges": privileges.get("NoNewPrivileges", False),
        }
    for ulimit in container.get("Ulimits", ()):
        for key, zero in (("Name", ""), ("Hard", 0), ("Soft", 0)):
            ulimit.setdefault(key, zero)
    for list_name, keys in (("Secrets", ("SecretID", "SecretName")), ("Configs", ("ConfigID", "ConfigName"))):
        for reference in container.get(list_name, ()):
            for key in keys:
                reference.setdefault(key, "")
            target = reference.get("File")
            if target is not None:
                reference["File"] = {"Name": "", "UID": "", "GID": "", "Mode": 0} | target


def _number(value: float) -> float | int:
    """Write a whole ratio without a point, as Go does."""
    return int(value) if value == int(value) else value


def port_view(port: PortConfig) -> Json:
    """Return a published port."""
    return plain(port)


def _endpoint_view(service: Service) -> Json:
    endpoint = service.endpoint
    if not endpoint.mode:
        return {"Spec": {}}
    spec: Json = {"Mode": endpoint.mode}
    if service.spec.endpoint_spec is not None and service.spec.endpoint_spec.ports:
        spec["Ports"] = [port_view(port) for port in service.spec.endpoint_spec.ports]
    view: Json = {"Spec": spec}
    if endpoint.ports:
        view["Ports"] = [port_view(port) for port in endpoint.ports]
    if endpoint.virtual_ips:
        view["VirtualIPs"] = [{"NetworkID": ip.network_id, "Addr": ip.address} for ip in endpoint.virtual_ips]
    return view


def _update_status_view(status: UpdateStatus) -> Json:
    view: Json = {"State": str(status.state)}
    if status.started_at_ns:
        view["StartedAt"] = time_text(status.started_at_ns)
    if status.completed_at_ns:
        view["CompletedAt"] = time_text(status.completed_at_ns)
    if status.message:
        view["Message"] = status.message
    return view


def _job_status_view(status: JobStatus) -> Json:
    return {"JobIteration": iteration_view(status.iteration), "LastExecution": time_text(status.last_execution_ns)}


def iteration_view(iteration: int) -> Json:
    """Return a job's iteration, which Go leaves empty at 0."""
    return {"Index": iteration} if iteration else {}


def service_status(service: Service, tasks: tuple[Task, ...], down_nodes: frozenset[str]) -> Json:
    """Count what runs, what should and what is complete, as `GET /services?status=true` does.

    Args:
        service: the service.
        tasks: all its tasks.
        down_nodes: ids of nodes that are down: what they last said of their tasks does not count.
    """
    running = completed = desired = 0
    mode = service.spec.mode
    iteration = service.job_status.iteration if service.job_status else None
    for task in tasks:
        if iteration is not None and task.job_iteration != iteration:
            continue
        state = task.status.state
        if state == TaskState.RUNNING and task.node_id not in down_nodes:
            running += 1
        if state == TaskState.COMPLETE:
            completed += 1
        is_global = mode.global_ is not None and task.desired_state == TaskState.RUNNING
        is_global_job = mode.global_job is not None and (
            task.desired_state == TaskState.COMPLETE and state != TaskState.COMPLETE
        )
        if is_global or is_global_job:
            desired += 1
    if mode.replicated is not None:
        desired = mode.replicated.replicas or 0
    elif mode.replicated_job is not None:
        desired = mode.replicated_job.max_concurrent or 0
    counts: dict[str, Any] = {"RunningTasks": running, "DesiredTasks": desired, "CompletedTasks": completed}
    return counts
