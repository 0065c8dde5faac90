"""Volumes of a node: data that outlives containers."""

from __future__ import annotations

from typing import Any

from shoal.model.base import Spec, Struct


class Volume(Struct):
    """A named volume of the local driver; `options` are the driver's (type, device, o), empty for a directory."""

    name: str
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    created_at_ns: int = 0


class VolumeUsage(Struct):
    """What a volume takes, and how many containers name it."""

    volume: Volume
    size_bytes: int = 0
    containers: int = 0


class VolumeRequest(Spec):
    """The body of `POST /volumes/create`; an empty name asks for a fresh one."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] = {}
    labels: dict[str, str] = {}
    cluster_volume_spec: dict[str, Any] | None = None
