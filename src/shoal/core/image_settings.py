"""The settings of an image that is made of a container (`docker commit`): those of its image, and its own over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from shoal.core.validate.plain_container import command_words
from shoal.core.volume import is_anonymous
from shoal.model.container import ContainerConfig
from shoal.model.container_request import ContainerRequest

Settings = dict[str, Any]


def settings_of_container(image: Mapping[str, Any], config: ContainerConfig) -> Settings:
    """Return settings by Docker's names.

    Args:
        image: those of the container's image.
        config: what the container was made with.
    """
    own: Settings = {
        "User": config.user,
        "WorkingDir": config.working_dir,
        "StopSignal": config.stop_signal,
        "Env": list(config.env),
        "Labels": dict(config.labels),
        "Volumes": {mount.target: {} for mount in config.mounts if is_anonymous(mount)},
        "ExposedPorts": {port: {} for port in (config.plain.exposed_ports if config.plain is not None else ())},
    }
    if config.command is not None:
        own["Cmd"] = list(config.command)
    settings = merged_settings(image, own)
    if config.entrypoint is not None:
        # one of the container's own takes the image's command away, too
        settings["Entrypoint"] = list(config.entrypoint)
        settings["Cmd"] = list(config.command) if config.command is not None else None
    return settings


def settings_of_request(request: ContainerRequest) -> Settings:
    """Return the settings that a client sends with a commit. Raises InvalidArgument."""
    cmd, entrypoint = command_words(request.cmd, "Cmd"), command_words(request.entrypoint, "Entrypoint")
    settings: Settings = {
        "User": request.user,
        "WorkingDir": request.working_dir,
        "StopSignal": request.stop_signal,
        "Env": list(request.env),
        "Labels": dict(request.labels),
        "Volumes": {path: {} for path in request.volumes},
        "ExposedPorts": {port: {} for port in request.exposed_ports},
        "Cmd": list(cmd) if cmd is not None else None,
        "Entrypoint": list(entrypoint) if entrypoint is not None else None,
    }
    if request.healthcheck is not None:
        settings["Healthcheck"] = msgspec.to_builtins(request.healthcheck)
    return settings


def merged_settings(below: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """Return settings with others over them: maps and variables are merged, what is empty leaves the rest as it is."""
    settings = dict(below)
    for key, value in over.items():
        if value in (None, "", [], {}):
            continue
        if key == "Env":
            settings[key] = _merged_variables(settings.get(key) or (), value)
        elif isinstance(value, dict) and isinstance(settings.get(key), dict):
            settings[key] = {**settings[key], **value}
        else:
            settings[key] = value
    return settings


def _merged_variables(below: Iterable[str], over: Iterable[str]) -> list[str]:
    merged = {entry.partition("=")[0]: entry for entry in (*below, *over)}
    return list(merged.values())
