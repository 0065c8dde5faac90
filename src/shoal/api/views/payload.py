"""Secrets and configs as Docker's JSON; a secret's data never leaves."""

from __future__ import annotations

from shoal.api.views.shared import Json, meta_view, plain, with_labels
from shoal.model.objects import Config, Secret


def secret_view(secret: Secret) -> Json:
    """Return a secret without its data."""
    spec = with_labels(plain(secret.spec))
    spec.pop("Data", None)
    return meta_view(secret.id, secret.meta) | {"Spec": spec}


def config_view(config: Config) -> Json:
    """Return a config with its data in base 64."""
    return meta_view(config.id, config.meta) | {"Spec": with_labels(plain(config.spec))}
