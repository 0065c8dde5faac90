"""What a volume may be called and made of, and which containers use it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from shoal.errors import InvalidArgument, NotBuilt, NotFound
from shoal.model.base import replace
from shoal.model.container import ContainerConfig
from shoal.model.container_spec import Mount, VolumeOptions

# what a directory may be called, and room for a prefix while it is removed
MOST_NAME_BYTES = 240
LOCAL_DRIVER = "local"
# the label of a volume that nobody has named
ANONYMOUS = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
# what each option of the local driver needs beside it, as Docker's
_NEEDED = {"type": ("device",), "device": ("type",), "o": ("device", "type")}
# kinds of filesystems whose server's name the kernel does not look up
_WITH_ADDRESS = ("nfs", "nfs4", "cifs")


def check_volume(name: str, driver: str, options: Mapping[str, str]) -> None:
    """Refuse what the local driver does not make. Raises InvalidArgument, NotFound or NotBuilt in Docker's words."""
    if driver not in {"", LOCAL_DRIVER}:
        raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > MOST_NAME_BYTES:
        raise InvalidArgument(f"create {name[:40]}…: volume name is too long, at most {MOST_NAME_BYTES} characters")
    if len(name) == 1:
        raise InvalidArgument(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    for option in options:
        if option == "size":
            raise NotBuilt(f'create {name}: option "size" needs project quotas, which Shoal does not set')
        if option not in _NEEDED:
            raise InvalidArgument(f'create {name}: invalid option: "{option}"')
        for needed in _NEEDED[option]:
            if not options.get(needed):
                raise InvalidArgument(f'create {name}: missing required option: "{needed}"')


def server_of(options: Mapping[str, str]) -> str:
    """Return the server that a network filesystem is on (`addr=` of its options), empty for another filesystem."""
    if options.get("type") not in _WITH_ADDRESS:
        return ""
    words = options.get("o", "").split(",")
    return next((word.removeprefix("addr=") for word in words if word.startswith("addr=")), "")


def mount_command(options: Mapping[str, str], target: str, address: str = "") -> list[str]:
    """Return the command that mounts a volume.

    Args:
        options: of the local driver; `o` is given on as it is.
        target: where.
        address: of the server, where `o` names one.
    """
    words = [word for word in options.get("o", "").split(",") if word]
    if address:
        words = [f"addr={address}" if word.startswith("addr=") else word for word in words]
    # -i: only what the kernel does itself, no helper program, as Docker
    command = ["mount", "-i", "-t", options["type"], options["device"], target]
    if options["type"] == "none" or "bind" in words or "rbind" in words:
        command = ["mount", options["device"], target]
    return [*command, "-o", ",".join(words)] if words else command


def is_anonymous(mount: Mount) -> bool:
    """Tell whether a mount is of a volume that was made for its container alone."""
    return mount.type == "volume" and mount.volume_options is not None and ANONYMOUS in mount.volume_options.labels


def with_names(config: ContainerConfig, of_image: Iterable[str], make_name: Callable[[], str]) -> ContainerConfig:
    """Return a container with a name for each of its volumes that has none, and those that its image asks for.

    Args:
        config: the container.
        of_image: places of volumes of its image.
        make_name: gives a fresh name at each call.
    """
    covered = {mount.target.rstrip("/") for mount in config.mounts}
    asked = [Mount(type="volume", target=target) for target in of_image if target.rstrip("/") not in covered]
    return replace(config, mounts=tuple(_with_name(mount, make_name) for mount in (*config.mounts, *asked)))


def _with_name(mount: Mount, make_name: Callable[[], str]) -> Mount:
    if mount.type != "volume" or mount.source:
        return mount
    options = mount.volume_options or VolumeOptions()
    labels = {**options.labels, ANONYMOUS: ""}
    return replace(mount, source=make_name(), volume_options=replace(options, labels=labels))


def volumes_of(config: ContainerConfig) -> frozenset[str]:
    """Return the names of the volumes that a container names."""
    return frozenset(mount.source for mount in config.mounts if mount.type == "volume" and mount.source)


def users_of(name: str, containers: Iterable[tuple[str, ContainerConfig]]) -> tuple[str, ...]:
    """Return the ids of the containers (id, config) that name a volume."""
    return tuple(sorted(id_ for id_, config in containers if name in volumes_of(config)))
