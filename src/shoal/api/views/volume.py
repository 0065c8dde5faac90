"""Volumes as Docker's JSON."""

from __future__ import annotations

from shoal.api.views.shared import Json, time_text
from shoal.core.volume import LOCAL_DRIVER
from shoal.model.volume import Volume, VolumeUsage


def volume_view(volume: Volume, directory: str) -> Json:
    """Return a volume as `GET /volumes/NAME` shows it; `directory` is where its data is."""
    return {
        # whole seconds, as Docker's
        "CreatedAt": time_text(volume.created_at_ns // 1_000_000_000 * 1_000_000_000),
        "Driver": LOCAL_DRIVER,
        "Labels": dict(volume.labels) or None,
        "Mountpoint": directory,
        "Name": volume.name,
        "Options": dict(volume.options) or None,
        "Scope": "local",
    }


def volume_usage_view(usage: VolumeUsage, directory: str) -> Json:
    """Return a volume as `GET /system/df` shows it."""
    sizes = {"Size": usage.size_bytes, "RefCount": usage.containers}
    return volume_view(usage.volume, directory) | {"UsageData": sizes}
