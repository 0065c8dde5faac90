"""New data of a secret or config: the next version, and the services that use it rolled on to it.

Their own update policy leads them there, and a rollback leads back: a revision names the version it uses. Jobs keep
what they have until they are updated: a run must not begin anew by itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from shoal.core.defaults import is_job
from shoal.core.payload_versions import Payload, pinned, with_new_data
from shoal.core.validate.payload import validate_config, validate_secret
from shoal.errors import InvalidArgument
from shoal.manager.service_plans import next_spec_version
from shoal.model.actions import Action, Replace
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.objects import Revision, Secret, Service
from shoal.store.view import View

# an entry of the log holds a payload with all its versions
VERSIONS_BYTES_MOST = 1_000_000


def roll_out(view: View, payload: Payload, data: bytes) -> tuple[Payload, list[Action]]:
    """Return the payload with new data, and what is to be written about the services that use it.

    Raises:
        InvalidArgument: the data is refused, or its versions are too much for an entry of the log.
    """
    used = {version for service in view.find(Service) for version in _versions_used(view, service, payload)}
    changed = with_new_data(payload, data, used)
    if isinstance(changed, Secret):
        validate_secret(changed.spec)
    else:
        validate_config(changed.spec)
    total = len(data) + sum(len(each.data) for each in changed.earlier)
    if total > VERSIONS_BYTES_MOST:
        raise InvalidArgument(
            f"the versions of {payload.spec.name} that are in use hold {total} bytes, {VERSIONS_BYTES_MOST} at most: "
            "make another one and have the services use that"
        )
    versions = {payload.id: changed.data_version}
    return changed, [_rolled(view, service, versions) for service in view.find(Service) if _uses(service, payload)]


def _rolled(view: View, service: Service, versions: dict[str, int]) -> Action:
    template = service.spec.task_template
    assert template.container_spec is not None, "it uses a payload"
    template = replace(template, container_spec=pinned(template.container_spec, versions))
    changed = replace(
        service,
        spec=replace(service.spec, task_template=template),
        spec_version=next_spec_version(view, service),
        previous_spec_version=service.spec_version,
        update_status=None,
    )
    return Replace(object=changed, expected_version=service.meta.version)


def _uses(service: Service, payload: Payload) -> bool:
    return not is_job(service.spec) and bool(list(_versions_of(service, payload)))


def _versions_used(view: View, service: Service, payload: Payload) -> Iterator[int]:
    yield from _versions_of(service, payload)
    for revision in view.revisions_of(service.id):
        yield from _versions_of(revision, payload)


def _versions_of(holder: Service | Revision, payload: Payload) -> Iterator[int]:
    yield from _versions_in(holder.spec.task_template.container_spec, payload)


def _versions_in(container: ContainerSpec | None, payload: Payload) -> Iterator[int]:
    if container is not None:
        yield from (each.version for each in container.secrets if each.secret_id == payload.id)
        yield from (each.version for each in container.configs if each.config_id == payload.id)
