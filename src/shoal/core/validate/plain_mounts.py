"""Mounts of a plain container: `Binds`, `Mounts`, `Tmpfs` and `Volumes` in one form. Refused with Docker's texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from shoal.core.validate.container import PROPAGATIONS, check_mount, normalise_mount
from shoal.errors import InvalidArgument
from shoal.model.base import replace
from shoal.model.container_request import HostConfig
from shoal.model.container_spec import BindOptions, Mount, TmpfsOptions, VolumeOptions

_SIZE = re.compile(r"(\d+)([kmg]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_ACCESS = ("ro", "rw")
# of meaning on other systems only (SELinux, Docker Desktop): taken, as Docker takes them
_WITHOUT_MEANING = ("z", "Z", "cached", "delegated", "consistent")
_TMPFS_FLAGS = frozenset(
    f"{negation}{flag}"
    for negation in ("", "no")
    for flag in ("exec", "suid", "dev", "atime", "diratime", "relatime", "strictatime")
)


def plain_mounts(host: HostConfig, volumes: Iterable[str]) -> tuple[Mount, ...]:
    """Return all mounts of a container, each in one form.

    Args:
        host: with `Binds`, `Mounts` and `Tmpfs`.
        volumes: places of volumes without a name.

    Raises:
        InvalidArgument: a mount that cannot be, or two at one place.
    """
    mounts = [_bind(text) for text in host.binds]
    mounts += [normalise_mount(mount) for mount in host.mounts]
    mounts += [_tmpfs(target, text) for target, text in host.tmpfs.items()]
    taken: set[str] = set()
    for mount in mounts:
        check_mount(mount)
        target = mount.target.rstrip("/")
        if target in taken:
            raise InvalidArgument(f"Duplicate mount point: {mount.target}")
        taken.add(target)
    # a place that is mounted otherwise needs no volume: `-v name:/data` of an image's or a request's own /data
    bare = [Mount(type="volume", target=target) for target in volumes if target.rstrip("/") not in taken]
    for mount in bare:
        check_mount(mount)
    return (*mounts, *bare)


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """Read `CONTAINER` or `CONTAINER:ro`; return its name, and whether it is read only. Raises InvalidArgument."""
    name, colon, mode = text.partition(":")
    if not name or (colon and mode not in _ACCESS):
        raise InvalidArgument(f"invalid volumes-from specification: '{text}': write CONTAINER, CONTAINER:ro or :rw")
    return name, mode == "ro"


def mounts_with(mounts: tuple[Mount, ...], others: Iterable[Mount], read_only: bool) -> tuple[Mount, ...]:
    """Return mounts, and those of another container at places that are free."""
    taken = {mount.target.rstrip("/") for mount in mounts}
    found = [
        replace(mount, read_only=mount.read_only or read_only)
        for mount in others
        if mount.type in ("volume", "bind") and mount.target.rstrip("/") not in taken
    ]
    return (*mounts, *found)


def _bind(text: str) -> Mount:
    parts = text.split(":")
    if len(parts) == 1:
        return Mount(type="volume", target=text)
    if len(parts) > 3 or not all(parts):
        raise InvalidArgument(f"invalid volume specification: '{text}': write SOURCE:TARGET or SOURCE:TARGET:OPTIONS")
    source, target, *rest = parts
    options = rest[0].split(",") if rest else []
    unknown = [
        option
        for option in options
        if option not in (*_ACCESS, *_WITHOUT_MEANING, *PROPAGATIONS[1:], "nocopy") or options.count(option) > 1
    ]
    if unknown:
        raise InvalidArgument(f"invalid volume specification: '{text}': invalid mode: {unknown[0]}")
    read_only = "ro" in options
    if not source.startswith("/"):
        volume = VolumeOptions(no_copy=True) if "nocopy" in options else None
        return Mount(type="volume", source=source, target=target, read_only=read_only, volume_options=volume)
    propagation = next((option for option in options if option in PROPAGATIONS), "")
    # a path that is not there is made, as Docker does for -v, unlike for --mount
    bind = BindOptions(propagation=propagation, create_mountpoint=True)
    return Mount(type="bind", source=source, target=target, read_only=read_only, bind_options=bind)


def _tmpfs(target: str, text: str) -> Mount:
    mount, options = Mount(type="tmpfs", target=target), TmpfsOptions()
    for option in text.split(",") if text else ():
        name, equals, value = option.partition("=")
        if option in _ACCESS:
            mount = replace(mount, read_only=option == "ro")
        elif name == "size" and (match := _SIZE.fullmatch(value)):
            options = replace(options, size_bytes=int(match[1]) * _FACTORS[match[2].lower()])
        elif name == "mode" and re.fullmatch(r"[0-7]{1,4}", value):
            options = replace(options, mode=int(value, 8))
        elif name in ("uid", "gid", "nr_inodes") and re.fullmatch(r"\d+[kmg]?", value):
            options = replace(options, options=(*options.options, (name, value)))
        elif option in _TMPFS_FLAGS and not equals:
            options = replace(options, options=(*options.options, (option,)))
        else:
            raise InvalidArgument(f'HostConfig.Tmpfs {target}: invalid tmpfs option "{option}"')
    return replace(mount, tmpfs_options=options)
