"""What creating and updating a service means for the store: plain functions from a view to the service to write."""

from __future__ import annotations

from shoal.core.container import check_placeholders
from shoal.core.defaults import is_job
from shoal.core.networks import NO_DRIVER, driver_of
from shoal.core.orchestrate.phase import awaits_promotion
from shoal.core.orchestrate.update import promoted
from shoal.core.payload_versions import pinned
from shoal.core.privileges import check_allowed, parse_allowed, parse_privileges
from shoal.core.validate.service import prepare_service
from shoal.errors import InvalidArgument, NotBuilt, NotFound
from shoal.manager.lookup import find_network
from shoal.model.actions import PatchService
from shoal.model.base import Struct, replace
from shoal.model.container_spec import ConfigReference, ContainerSpec, PullOptions, SecretReference
from shoal.model.objects import Config, JobStatus, Revision, Secret, Service, UpdateStatus
from shoal.model.specs import NetworkAttachmentConfig, ServiceMode, ServiceSpec
from shoal.model.states import UpdateState
from shoal.store.view import View

AUTH_FROM_SPEC = "spec"
AUTH_FROM_PREVIOUS_SPEC = "previous-spec"
ROLLBACK_PREVIOUS = "previous"
ROLLBACK_MESSAGE = "manually requested rollback"


class ServiceUpdate(Struct):
    """An update as it was asked for.

    `version` is the version the client read; `rollback` is empty, `none` or `previous` (then `spec` is not looked
    at); `registry_auth` empty means: keep what the spec named by `registry_auth_from` has.
    """

    version: int
    spec: ServiceSpec
    registry_auth: str = ""
    registry_auth_from: str = ""
    rollback: str = ""


def new_service(view: View, service_id: str, spec: ServiceSpec, registry_auth: str, now_ns: int) -> Service:
    """Return the service that `spec` asks for. Raises InvalidArgument, NotFound (a network), NotBuilt."""
    prepared = _prepare(view, _with_auth(spec, registry_auth))
    job_status = JobStatus(last_execution_ns=now_ns) if is_job(prepared) else None
    return Service(id=service_id, spec=prepared, spec_version=1, job_status=job_status)


def updated_service(view: View, service: Service, update: ServiceUpdate, now_ns: int) -> Service:
    """Return `service` as it is after `update` (docker-swarm.md 4.3).

    Raises:
        InvalidArgument: the spec is bad, or there is no previous spec to go back to.
        NotBuilt: another name or mode, as in Docker.
        NotFound: an unknown network.
    """
    if update.rollback == ROLLBACK_PREVIOUS:
        return _rolled_back(view, service, now_ns)
    if update.rollback not in ("", "none"):
        raise InvalidArgument(f'unrecognized rollback option {update.rollback}: use "previous" or "none"')
    auth = update.registry_auth or _kept_auth(view, service, update.registry_auth_from)
    spec = _prepare(view, _with_auth(update.spec, auth))
    if spec.name != service.spec.name:
        raise NotBuilt("renaming services is not supported")
    if _mode_word(spec.mode) != _mode_word(service.spec.mode):
        raise NotBuilt("service mode change is not allowed")
    changed = spec != service.spec
    return replace(
        service,
        spec=spec if changed else service.spec,
        spec_version=next_spec_version(view, service) if changed else service.spec_version,
        previous_spec_version=service.spec_version,
        update_status=None,
        job_status=next_run(service, now_ns),
    )


def _rolled_back(view: View, service: Service, now_ns: int) -> Service:
    previous = view.revision(service.id, service.previous_spec_version) if service.previous_spec_version else None
    if previous is None:
        raise InvalidArgument(f"service {service.id} does not have a previous spec")
    return _gone_back(view, service, previous, ROLLBACK_MESSAGE, now_ns)


def rolled_back_to(view: View, service: Service, spec_version: int, now_ns: int) -> Service:
    """Return `service` on its way back to the revision of that number.

    Raises:
        InvalidArgument: it has that spec, the revision is not kept (any more), or a secret or config of it is gone.
        Forbidden: it asks for what the swarm does not allow any more.
    """
    revision = view.revision(service.id, spec_version)
    if revision is None:
        kept = ", ".join(str(each.spec_version) for each in view.revisions_of(service.id))
        raise InvalidArgument(f"service {service.spec.name} has no revision {spec_version}: kept are {kept}")
    if spec_version == service.spec_version:
        raise InvalidArgument(f"revision {spec_version} is what service {service.spec.name} has: name an earlier one")
    container = revision.spec.task_template.container_spec
    if container is not None:
        _check_payloads(view, container)
    return _gone_back(view, service, revision, f"{ROLLBACK_MESSAGE} to revision {spec_version}", now_ns)


def _gone_back(view: View, service: Service, revision: Revision, message: str, now_ns: int) -> Service:
    check_privileges(view, revision.spec)
    same = revision.spec == service.spec
    started = UpdateStatus(state=UpdateState.ROLLBACK_STARTED, started_at_ns=now_ns, message=message)
    return replace(
        service,
        spec=revision.spec,
        spec_version=service.spec_version if same else next_spec_version(view, service),
        previous_spec_version=service.spec_version,
        # a job's new run is no rolling update: a status would never come to its end
        update_status=None if is_job(service.spec) else started,
        job_status=next_run(service, now_ns),
    )


def promotion_of(service: Service, now_ns: int) -> PatchService:
    """Return what lets the update of a service go on to the slots that are no canaries.

    Raises:
        InvalidArgument: it awaits no promotion.
    """
    if not awaits_promotion(service):
        status = service.update_status
        state = f"its update is {status.state}" if status is not None else "no update of it is under way"
        raise InvalidArgument(f"service {service.spec.name} awaits no promotion: {state}")
    return PatchService(id=service.id, spec_version=service.spec_version, update_status=promoted(now_ns))


def next_spec_version(view: View, service: Service) -> int:
    """Return a number that no revision of the service has: revisions are immutable and found by it."""
    held = [revision.spec_version for revision in view.revisions_of(service.id)]
    return max([service.spec_version, *held]) + 1


def next_run(service: Service, now_ns: int) -> JobStatus | None:
    """Return the status of the next run: any update of a job, even an equal one, starts it anew."""
    if service.job_status is None:
        return None
    return JobStatus(iteration=service.job_status.iteration + 1, last_execution_ns=now_ns)


def _mode_word(mode: ServiceMode) -> str:
    if mode.replicated is not None:
        return "replicated"
    if mode.global_ is not None:
        return "global"
    return "replicated-job" if mode.replicated_job is not None else "global-job"


def _prepare(view: View, spec: ServiceSpec) -> ServiceSpec:
    spec = _with_networks(view, spec)
    prepared = prepare_service(spec)
    check_placeholders(prepared)
    _refuse_ingress(view, prepared)
    check_privileges(view, prepared)
    container = prepared.task_template.container_spec
    if container is not None:
        _check_payloads(view, container)
        container = pinned(container, _payload_versions(view, container))
        prepared = replace(prepared, task_template=replace(prepared.task_template, container_spec=container))
    return prepared


def check_privileges(view: View, spec: ServiceSpec) -> None:
    """Refuse a spec that asks for what the swarm does not allow (any more). Raises Forbidden."""
    cluster = view.cluster()
    allowed = parse_allowed(cluster.spec.labels) if cluster is not None else frozenset()
    check_allowed(parse_privileges(spec.labels), allowed)


def _payload_versions(view: View, container: ContainerSpec) -> dict[str, int]:
    """Return the versions that the data of a container's secrets and configs has now."""
    secrets = (view.get(Secret, each.secret_id) for each in container.secrets)
    configs = (view.get(Config, each.config_id) for each in container.configs)
    return {each.id: each.data_version for each in (*secrets, *configs) if each is not None}


def _with_auth(spec: ServiceSpec, registry_auth: str) -> ServiceSpec:
    """Return `spec` with these credentials; what a client writes into PullOptions itself is not taken."""
    container = spec.task_template.container_spec
    if container is None:
        return spec
    options = PullOptions(registry_auth=registry_auth) if registry_auth else None
    return replace(
        spec, task_template=replace(spec.task_template, container_spec=replace(container, pull_options=options))
    )


def _kept_auth(view: View, service: Service, source: str) -> str:
    if source in ("", AUTH_FROM_SPEC):
        return _auth_of(service.spec)
    if source != AUTH_FROM_PREVIOUS_SPEC:
        raise InvalidArgument(f'unsupported registryAuthFrom value: "{source}": use "spec" or "previous-spec"')
    previous = view.revision(service.id, service.previous_spec_version) if service.previous_spec_version else None
    if previous is None:
        raise InvalidArgument(f"service {service.id} does not have a previous spec")
    return _auth_of(previous.spec)


def _auth_of(spec: ServiceSpec) -> str:
    container = spec.task_template.container_spec
    return container.pull_options.registry_auth if container is not None and container.pull_options else ""


def _with_networks(view: View, spec: ServiceSpec) -> ServiceSpec:
    """Return `spec` with networks named by id. Raises NotFound."""
    attachments = spec.task_template.networks or spec.networks
    if not attachments:
        return spec
    resolved: dict[str, NetworkAttachmentConfig] = {}
    for attachment in attachments:
        network = find_network(view, attachment.target)
        if attachment.driver_opts and driver_of(network.spec) in ("host", NO_DRIVER):
            raise InvalidArgument(
                f"TaskTemplate.Networks.{attachment.target}.DriverOpts: there is no link to give options to: "
                "leave them out"
            )
        resolved.setdefault(network.id, replace(attachment, target=network.id))
    return replace(spec, networks=(), task_template=replace(spec.task_template, networks=tuple(resolved.values())))


def _refuse_ingress(view: View, spec: ServiceSpec) -> None:
    for attachment in spec.task_template.networks:
        network = find_network(view, attachment.target)
        if network.spec.ingress:
            raise InvalidArgument(f'Service cannot be explicitly attached to the ingress network "{network.spec.name}"')


def _check_payloads(view: View, container: ContainerSpec) -> None:
    """Refuse references to secrets and configs that are not there under that id and name."""
    missing_secrets = [each.secret_name for each in container.secrets if not _secret_exists(view, each)]
    missing_configs = [each.config_name for each in container.configs if not _config_exists(view, each)]
    for word, missing in (("secret", missing_secrets), ("config", missing_configs)):
        if missing:
            plural = "s" if len(missing) > 1 else ""
            raise InvalidArgument(f"{word}{plural} not found: {', '.join(missing)}")


def _secret_exists(view: View, reference: SecretReference) -> bool:
    found = view.get(Secret, reference.secret_id)
    return found is not None and found.spec.name == reference.secret_name


def _config_exists(view: View, reference: ConfigReference) -> bool:
    found = view.get(Config, reference.config_id)
    return found is not None and found.spec.name == reference.config_name


def require_service(view: View, service_id: str) -> Service:
    """Return the service of that id. Raises NotFound: it went away meanwhile."""
    service = view.get(Service, service_id)
    if service is None:
        raise NotFound(f"service {service_id} not found")
    return service
