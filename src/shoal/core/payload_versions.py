"""Versions of a secret's or config's data: a service keeps the one it was last updated with, so that it can go back.

A revision names the version it uses; nodes know a version under an id of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from shoal.model.base import replace
from shoal.model.container_spec import ConfigReference, ContainerSpec, SecretReference
from shoal.model.objects import Config, PayloadVersion, Secret

Payload = TypeVar("Payload", Secret, Config)

_MARK = "@"


def id_on_node(id_: str, version: int) -> str:
    """Return what a node calls a version of a secret or config."""
    return f"{id_}{_MARK}{version}" if version else id_


def from_id_on_node(text: str) -> tuple[str, int]:
    """Return id and version."""
    id_, mark, version = text.partition(_MARK)
    return id_, int(version) if mark else 0


def secret_key(reference: SecretReference) -> str:
    """Return what a node calls the secret of a reference."""
    return id_on_node(reference.secret_id, reference.version)


def config_key(reference: ConfigReference) -> str:
    """Return what a node calls the config of a reference."""
    return id_on_node(reference.config_id, reference.version)


def at_version(payload: Payload | None, version: int) -> Payload | None:
    """Return a secret or config with the data of a version, as nodes are told of it; None if that is gone."""
    if payload is None:
        return None
    data = {payload.data_version: payload.spec.data} | {each.version: each.data for each in payload.earlier}
    if version not in data:
        return None
    spec = replace(payload.spec, data=data[version])
    return replace(payload, id=id_on_node(payload.id, version), spec=spec, earlier=(), data_version=version)


def with_new_data(payload: Payload, data: bytes, used: Iterable[int]) -> Payload:
    """Return a secret or config with other data; of its versions those in `used` are kept, and the one before."""
    kept = {payload.data_version, *used}
    versions = (*payload.earlier, PayloadVersion(version=payload.data_version, data=payload.spec.data))
    return replace(
        payload,
        spec=replace(payload.spec, data=data),
        data_version=payload.data_version + 1,
        earlier=tuple(each for each in versions if each.version in kept),
    )


def pinned(container: ContainerSpec, versions: dict[str, int]) -> ContainerSpec:
    """Return a container's spec whose references name these versions, by the ids of secrets and configs."""
    return replace(
        container,
        secrets=tuple(replace(each, version=versions.get(each.secret_id, each.version)) for each in container.secrets),
        configs=tuple(replace(each, version=versions.get(each.config_id, each.version)) for each in container.configs),
    )
