"""`volumes` and `tmpfs` of a Compose service as mounts of its containers."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from shoal.compose.cursor import Cursor
from shoal.language.values import parse_bytes

Json = dict[str, Any]
Volumes = Mapping[str, tuple[str, Json | None]]
_PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_LONG_KEYS = frozenset({"type", "source", "target", "read_only", "bind", "volume", "tmpfs", "consistency", "image"})


def convert_mounts(
    fields: Mapping[str, Cursor], directory: str, home: str, volumes: Volumes, warn: Callable[[str], None]
) -> list[Json]:
    """Return the mounts of a service.

    Args:
        fields: of the service.
        directory: absolute; relative sources begin there.
        home: what `~` stands for.
        volumes: full name and options of the volumes of the stack; no options for an external one.
        warn: takes what is ignored.

    Raises:
        InvalidArgument: a mount that cannot be read, or two at one place.
    """
    found: list[tuple[Cursor, Json]] = []
    for each in fields["volumes"].elements() if "volumes" in fields else []:
        mount = _long(each, warn) if each.is_mapping else _short(each, warn)
        found.append((each, _resolved(each, mount, directory, home, volumes)))
    if "tmpfs" in fields:
        tmpfs = fields["tmpfs"]
        found += [(each, _tmpfs(each, warn)) for each in (tmpfs.elements() if tmpfs.is_sequence else [tmpfs])]
    targets: set[str] = set()
    for cursor, mount in found:
        if mount["Target"] in targets:
            raise cursor.refusal(f"duplicate mount point {mount['Target']}")
        targets.add(mount["Target"])
    return [mount for _, mount in found]


def _short(cursor: Cursor, warn: Callable[[str], None]) -> Json:
    text = cursor.text()
    parts = text.split(":")
    if len(parts) > 3 or not all(parts):
        raise cursor.refusal(f'"{text}": write SOURCE:TARGET[:ro], or TARGET alone')
    if len(parts) == 1:
        return {"Type": "volume", "Target": parts[0]}
    source, target = parts[:2]
    is_path = source.startswith((".", "/", "~"))
    mount: Json = {"Type": "bind" if is_path else "volume", "Source": source, "Target": target}
    for word in parts[2].split(",") if len(parts) == 3 else []:
        if word == "ro":
            mount["ReadOnly"] = True
        elif word == "nocopy":
            mount["VolumeOptions"] = {"NoCopy": True}
        elif word in _PROPAGATIONS:
            mount["BindOptions"] = {"Propagation": word}
        elif word in {"z", "Z", "cached", "delegated", "consistent"}:
            warn(f"{cursor.where}: {word} is ignored")
        elif word != "rw":
            raise cursor.refusal(f'unknown option "{word}" of a volume')
    return mount


def _long(cursor: Cursor, warn: Callable[[str], None]) -> Json:
    fields = {key: each for key, each in cursor.fields(_LONG_KEYS).items() if each.value is not None}
    kind = fields["type"].text() if "type" in fields else "volume"
    if kind not in {"bind", "volume", "tmpfs", "npipe", "cluster"}:
        raise fields["type"].refusal(f'type "{kind}" is not possible: use volume, bind or tmpfs')
    if "target" not in fields:
        raise cursor.refusal("target is missing")
    mount: Json = {"Type": kind, "Target": fields["target"].text()}
    if "source" in fields:
        mount["Source"] = fields["source"].text()
    if "read_only" in fields:
        mount["ReadOnly"] = fields["read_only"].boolean()
    for key, read in (("bind", _bind_options), ("volume", _volume_options), ("tmpfs", _tmpfs_options)):
        if key in fields:
            mount[f"{key.capitalize()}Options"] = read(fields[key], warn)
    return mount


def _bind_options(cursor: Cursor, warn: Callable[[str], None]) -> Json:
    bind = cursor.fields(frozenset({"propagation", "create_host_path", "selinux", "recursive"}))
    options: Json = {}
    if "propagation" in bind:
        options["Propagation"] = bind["propagation"].text()
    if "create_host_path" in bind:
        options["CreateMountpoint"] = bind["create_host_path"].boolean()
    if "recursive" in bind and bind["recursive"].text() == "disabled":
        options["NonRecursive"] = True
    if "selinux" in bind:
        warn(f"{bind['selinux'].where}: it is ignored")
    return options


def _volume_options(cursor: Cursor, warn: Callable[[str], None]) -> Json:
    volume = cursor.fields(frozenset({"nocopy", "subpath", "labels"}))
    options: Json = {}
    if "nocopy" in volume:
        options["NoCopy"] = volume["nocopy"].boolean()
    if "subpath" in volume:
        options["Subpath"] = volume["subpath"].text()
    if "labels" in volume:
        warn(f"{volume['labels'].where}: they are ignored: a volume's labels stand under volumes")
    return options


def _tmpfs_options(cursor: Cursor, _warn: Callable[[str], None]) -> Json:
    tmpfs = cursor.fields(frozenset({"size", "mode"}))
    options: Json = {}
    if "size" in tmpfs:
        options["SizeBytes"] = tmpfs["size"].parsed(parse_bytes)
    if "mode" in tmpfs:
        options["Mode"] = tmpfs["mode"].integer()
    return options


def _resolved(cursor: Cursor, mount: Json, directory: str, home: str, volumes: Volumes) -> Json:
    source = mount.get("Source", "")
    if mount["Type"] == "bind":
        if not source:
            raise cursor.refusal("source is missing: a bind mount has one")
        if source == "~" or source.startswith("~/"):
            if not home:
                raise cursor.refusal(f"{source}: HOME is not set, write the whole path")
            source = home + source[1:]
        mount["Source"] = posixpath.normpath(posixpath.join(directory, source))
    elif mount["Type"] == "volume" and source:
        if source not in volumes:
            raise cursor.refusal(f"undefined volume {source}: define it under volumes")
        mount["Source"], options = volumes[source]
        if options is not None:
            mount["VolumeOptions"] = {**options, **mount.get("VolumeOptions", {})}
    elif mount["Type"] == "tmpfs" and source:
        raise cursor.refusal("a tmpfs has no source")
    return mount


def _tmpfs(cursor: Cursor, warn: Callable[[str], None]) -> Json:
    """Read `/path[:size=64m,mode=1777]`."""
    target, _, words = cursor.text().partition(":")
    mount: Json = {"Type": "tmpfs", "Target": target}
    options: Json = {}
    for word in words.split(",") if words else []:
        key, _, value = word.partition("=")
        try:
            if key == "size":
                options["SizeBytes"] = parse_bytes(value)
            elif key == "mode":
                options["Mode"] = int(value, 8)
            else:
                warn(f"{cursor.where}: {word} is ignored")
        except ValueError as error:
            raise cursor.refusal(f"{word}: {error}") from None
    if options:
        mount["TmpfsOptions"] = options
    return mount
