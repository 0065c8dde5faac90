"""Secrets and configs: made, updated, removed (docker-swarm.md 3.7, 4.12)."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.core.validate.payload import validate_config, validate_secret
from shoal.errors import InvalidArgument, OutOfSequence
from shoal.lib.ids import Ids
from shoal.manager.lookup import find_config, find_secret
from shoal.manager.payload_rollout import roll_out
from shoal.model.actions import Action, Create, Remove, Replace
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.objects import Config, Secret, Service
from shoal.model.specs import ConfigSpec, SecretSpec
from shoal.store.store import Store
from shoal.store.view import View

ONLY_LABELS_AND_DATA = "only updates to Labels and Data are allowed"


class Payloads:
    """The writes of a manager about secrets and configs."""

    def __init__(self, store: Store, ids: Ids) -> None:
        self._store = store
        self._ids = ids

    async def create_secret(self, spec: SecretSpec, actor: str = "") -> str:
        """Make a secret and return its id. Raises InvalidArgument, NameConflict, NotBuilt (drivers)."""
        validate_secret(spec)
        made = Secret(id=self._ids.new(), spec=spec)
        await self._store.update(lambda _view: [Create(object=made)], actor)
        return made.id

    async def create_config(self, spec: ConfigSpec, actor: str = "") -> str:
        """Make a config and return its id. Raises InvalidArgument, NameConflict."""
        validate_config(spec)
        made = Config(id=self._ids.new(), spec=spec)
        await self._store.update(lambda _view: [Create(object=made)], actor)
        return made.id

    async def update_secret(self, reference: str, version: int, spec: SecretSpec, actor: str = "") -> None:
        """Write a secret's labels, and data if there is other data: services that use it are rolled on to it.

        Raises NotFound, InvalidArgument (another name, bad data), OutOfSequence.
        """

        def plan(view: View) -> Sequence[Action]:
            secret = find_secret(view, reference)
            if spec.name != secret.spec.name:
                raise InvalidArgument(ONLY_LABELS_AND_DATA)
            if secret.meta.version != version:
                raise OutOfSequence
            changed, services = secret, list[Action]()
            if spec.data not in (b"", secret.spec.data):
                changed, services = roll_out(view, secret, spec.data)
            changed = replace(changed, spec=replace(changed.spec, labels=spec.labels))
            return [Replace(object=changed, expected_version=version), *services]

        await self._store.update(plan, actor)

    async def update_config(self, reference: str, version: int, spec: ConfigSpec, actor: str = "") -> None:
        """Write a config's labels, and data if there is other data: services that use it are rolled on to it.

        Raises NotFound, InvalidArgument (another name, bad data), OutOfSequence.
        """

        def plan(view: View) -> Sequence[Action]:
            config = find_config(view, reference)
            if spec.name != config.spec.name:
                raise InvalidArgument(ONLY_LABELS_AND_DATA)
            if config.meta.version != version:
                raise OutOfSequence
            changed, services = config, list[Action]()
            if spec.data not in (b"", config.spec.data):
                changed, services = roll_out(view, config, spec.data)
            changed = replace(changed, spec=replace(changed.spec, labels=spec.labels))
            return [Replace(object=changed, expected_version=version), *services]

        await self._store.update(plan, actor)

    async def remove_secret(self, reference: str, actor: str = "") -> None:
        """Remove a secret. Raises NotFound, InvalidArgument (a service uses it)."""

        def plan(view: View) -> Sequence[Action]:
            secret = find_secret(view, reference)
            _refuse_if_used(view, "secret", secret.id, secret.spec.name)
            return [Remove(kind="secret", id=secret.id, must_exist=True)]

        await self._store.update(plan, actor)

    async def remove_config(self, reference: str, actor: str = "") -> None:
        """Remove a config. Raises NotFound, InvalidArgument (a service uses it)."""

        def plan(view: View) -> Sequence[Action]:
            config = find_config(view, reference)
            _refuse_if_used(view, "config", config.id, config.spec.name)
            return [Remove(kind="config", id=config.id, must_exist=True)]

        await self._store.update(plan, actor)


def _refuse_if_used(view: View, word: str, id_: str, name: str) -> None:
    users: list[str] = []
    for service in view.find(Service):
        container = service.spec.task_template.container_spec
        if container is not None and id_ in _references(container, word):
            users.append(service.spec.name)
    if users:
        plural = "s" if len(users) > 1 else ""
        raise InvalidArgument(f"{word} '{name}' is in use by the following service{plural}: {', '.join(sorted(users))}")


def _references(container: ContainerSpec, word: str) -> tuple[str, ...]:
    if word == "secret":
        return tuple(reference.secret_id for reference in container.secrets)
    return tuple(reference.config_id for reference in container.configs)
