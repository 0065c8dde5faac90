"""Images as Docker's JSON."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.api.views.shared import Json, plain, time_text
from shoal.core.platform import architecture_of
from shoal.engine.protocol import PullProgress
from shoal.lib.clock import NANOSECONDS_PER_SECOND
from shoal.model.container import HistoryStep, ImageRecord, RemoteManifest

# what every image was shown with that only containers have
_CONTAINER_SETTINGS: Json = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}


def image_summary_view(image: ImageRecord, container_count: int = -1, shared_bytes: int = -1) -> Json:
    """Return an image as `GET /images/json` lists it; -1 means not counted."""
    return {
        "Containers": container_count,
        "Created": image.created_at_ns // NANOSECONDS_PER_SECOND,
        "Id": image.id,
        "Labels": image.labels or None,
        "ParentId": image.parent,
        "RepoDigests": list(image.digests),
        "RepoTags": list(image.tags),
        "SharedSize": shared_bytes,
        "Size": image.size_bytes,
    }


def image_view(image: ImageRecord, is_of_container: bool = False) -> Json:
    """Return an image as inspect shows it; `is_of_container`: with the settings of containers, as before API 1.50."""
    view: Json = {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": time_text(image.created_at_ns),
        "DockerVersion": "",
        "Author": image.author,
        "Config": {**(_CONTAINER_SETTINGS if is_of_container else {}), **_config_view(image)},
        "Architecture": architecture_of(image.architecture),
    }
    if image.variant:
        view["Variant"] = image.variant
    return view | {
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "Metadata": {"LastTagTime": time_text(image.tagged_at_ns)},
    }


def _config_view(image: ImageRecord) -> Json:
    view: Json = {
        "User": image.user,
        "Env": list(image.env) or None,
        "Cmd": list(image.command) if image.command is not None else None,
        "Volumes": {volume: {} for volume in image.volumes} or None,
        "WorkingDir": image.working_dir,
        "Entrypoint": list(image.entrypoint) if image.entrypoint is not None else None,
        "OnBuild": None,
        "Labels": image.labels or None,
    }
    if image.exposed_ports:
        view["ExposedPorts"] = {port: {} for port in image.exposed_ports}
    if image.stop_signal:
        view["StopSignal"] = image.stop_signal
    if image.healthcheck is not None:
        view["Healthcheck"] = plain(image.healthcheck)
    return view


def history_view(image: ImageRecord, steps: Sequence[HistoryStep]) -> list[Json]:
    """Return how an image was made, newest step first; only the last step is an image that there is."""
    return [
        {
            "Comment": step.comment,
            "Created": step.created_at_ns // NANOSECONDS_PER_SECOND,
            "CreatedBy": step.created_by,
            "Id": "<missing>" if number else image.id,
            "Size": step.size_bytes,
            "Tags": None if number else list(image.tags) or None,
        }
        for number, step in enumerate(steps)
    ]


def progress_view(step: PullProgress) -> Json:
    """Return a step of a pull as its client draws it."""
    view: Json = {"status": step.status}
    if step.id:
        view["id"] = step.id
    if step.total_bytes:
        view["progressDetail"] = {"current": step.current_bytes, "total": step.total_bytes}
    elif step.id:
        view["progressDetail"] = {}
    return view


def distribution_view(manifest: RemoteManifest) -> Json:
    """Return what a registry said of an image."""
    platforms: list[Json] = []
    for platform in manifest.platforms:
        view: Json = {"architecture": platform.architecture, "os": platform.os}
        if platform.os_version:
            view["os.version"] = platform.os_version
        if platform.variant:
            view["variant"] = platform.variant
        platforms.append(view)
    descriptor = {"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.size_bytes}
    return {"Descriptor": descriptor, "Platforms": platforms}
