"""From containers' records to their runs: records read, what a run needs made, what the keeper is asked.

Blocking; called in a thread.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import structlog

from shoal.engine import records, rootfs, syscalls
from shoal.engine.devices import find_devices
from shoal.engine.images.images import LocalImages
from shoal.engine.log_forward import forward_settings
from shoal.engine.log_options import LogSettings, log_settings
from shoal.engine.oci import Places, make_spec
from shoal.engine.users import resolve
from shoal.engine.volumes import LocalVolumes
from shoal.errors import ShoalError
from shoal.model.container import Container

_log = structlog.get_logger(__name__)


def load_containers(layout: rootfs.Layout) -> list[Container]:
    """Return the containers that have records; what is left of others is taken away."""
    found = []
    for directory in sorted(layout.containers.iterdir()):
        container = records.load_container(directory)
        if container is None:
            _log.info("removing what is left of a container", container_id=directory.name, reason="it has no record")
            rootfs.discard(layout, directory.name)
        else:
            found.append(container)
    known = {container.id for container in found}
    for leftover in [*layout.bundles.iterdir(), *layout.secrets.iterdir()]:
        if leftover.name not in known:
            rootfs.discard(layout, leftover.name)
    return found


def prepare_run(layout: rootfs.Layout, images: LocalImages, volumes: LocalVolumes, container: Container) -> None:
    """Make what a run needs: root filesystem, files, spec, FIFOs. Raises ShoalError, InvalidArgument."""
    config, container_id = container.config, container.id
    rootfs.release(layout, container_id)
    records.forget_run(layout.directory(container_id))
    image = images.get(container.image_id)
    rootfs.check_binds(config)
    root = mount_root(layout, images, container)
    passwd, group = (syscalls.read_in_root(root, f"/etc/{name}") for name in ("passwd", "group"))
    identity = resolve(config.user or image.user, config.groups, passwd, group)
    binds = rootfs.write_etc_files(layout, container_id, config) + rootfs.file_binds(layout, container_id, config)
    directories = rootfs.make_volumes(layout, volumes, container_id, config, image, root)
    places = Places(
        root=str(root),
        cgroup=layout.cgroup(container_id),
        binds=binds,
        volumes=directories,
        devices=find_devices(config),
    )
    spec = make_spec(config, image, container_id, container.arguments, identity, places, layout.host)
    bundle = layout.bundle(container_id)
    (bundle / "config.json").write_text(json.dumps(spec))
    if not config.tty:
        for name in ("stdout", "stderr"):
            os.mkfifo(bundle / name, 0o600)


def mount_root(layout: rootfs.Layout, images: LocalImages, container: Container) -> Path:
    """Mount the root filesystem of a container that does not run; return where. Raises ShoalError."""
    return rootfs.mount_root(layout, container.id, layer_directories(images, container))


def layer_directories(images: LocalImages, container: Container) -> tuple[str, ...]:
    """Return the short names of the layers of a container's image, highest first. Raises ShoalError: they are gone."""
    image = images.get(container.image_id)
    layers = [images.content.index.layer(diff_id) for diff_id in reversed(image.layers)]
    if None in layers:
        raise ShoalError(f"the layers of image {container.image_id} are gone; pull it again")
    return tuple(layer.directory for layer in layers if layer is not None)


def run_request(layout: rootfs.Layout, container: Container) -> dict[str, Any]:
    """Return what the keeper is asked to run. Raises ShoalError: nobody takes its log."""
    settings: LogSettings = log_settings(container.config, container.log_path)
    return {
        "id": container.id,
        "directory": str(layout.directory(container.id)),
        "bundle": str(layout.bundle(container.id)),
        "runc_root": str(layout.runc_root),
        "memory_cgroup": layout.memory_cgroup(container.id),
        "terminal": container.config.tty,
        "open_stdin": container.config.open_stdin,
        "stdin_once": container.config.plain is not None and container.config.plain.stdin_once,
        "console_socket": str(layout.consoles / container.id[:12]),
        "log": {
            "path": settings.path,
            "max_bytes": settings.max_bytes,
            "max_files": settings.max_files,
            "forward": forward_settings(container),
        },
    }
