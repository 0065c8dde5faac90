"""`--mount`: `type=volume,source=data,target=/data,readonly`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal.language.values import parse_bytes, parse_fields

TYPES = ("bind", "volume", "tmpfs", "npipe", "cluster")
PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
RECURSIVE: dict[str, dict[str, bool]] = {
    "enabled": {},
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}
Mount = dict[str, Any]


def parse_mount(text: str) -> Mount:
    """Read one value of `--mount`.

    Raises:
        ValueError: a key, a value or a combination that is not allowed; the message names it.
    """
    mount: Mount = {"Type": "volume"}
    for field in parse_fields(text):
        key, found, value = field.partition("=")
        key = key.strip().lower()
        if key not in _SETTERS:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
        if not found and key not in _SWITCHES:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        _SETTERS[key](mount, value.strip() if found else "true")
    _check(mount)
    return mount


def _check(mount: Mount) -> None:
    kind = mount["Type"]
    if not mount.get("Target"):
        raise ValueError("target is required")
    for options, owner in (("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs")):
        if options in mount and kind != owner:
            raise ValueError(f"cannot mix '{owner}-*' options with mount type '{kind}'")
    bind = mount.get("BindOptions", {})
    if (bind.get("ReadOnlyNonRecursive") or bind.get("ReadOnlyForceRecursive")) and not mount.get("ReadOnly"):
        raise ValueError(
            "option 'bind-recursive' of writable or readonly requires 'readonly' to be specified in conjunction"
        )
    if kind == "cluster":
        mount["ClusterOptions"] = {}


def _bool(key: str, value: str) -> bool:
    if value.lower() in ("1", "true", "t"):
        return True
    if value.lower() in ("0", "false", "f"):
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def _set_type(mount: Mount, value: str) -> None:
    kind = value.lower()
    if kind == "image":
        raise ValueError("mount type image is not available for services")
    if kind not in TYPES:
        raise ValueError(f"invalid mount type '{value}': use {', '.join(TYPES)}")
    mount["Type"] = kind


def _set_recursive(mount: Mount, value: str) -> None:
    if value not in RECURSIVE:
        raise ValueError(f"invalid value for bind-recursive: {value} (must be {', '.join(map(repr, RECURSIVE))})")
    mount.setdefault("BindOptions", {}).update(RECURSIVE[value])


def _set_propagation(mount: Mount, value: str) -> None:
    if value.lower() not in PROPAGATIONS:
        raise ValueError(f"invalid value for bind-propagation: {value}: use {', '.join(PROPAGATIONS)}")
    mount.setdefault("BindOptions", {})["Propagation"] = value.lower()


def _set_mode(mount: Mount, value: str) -> None:
    try:
        mode = int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for tmpfs-mode: {value}: use an octal number such as 1777") from None
    mount.setdefault("TmpfsOptions", {})["Mode"] = mode


def _set_volume_label(mount: Mount, value: str) -> None:
    name, _, content = value.partition("=")
    mount.setdefault("VolumeOptions", {}).setdefault("Labels", {})[name] = content


def _driver(mount: Mount) -> dict[str, Any]:
    driver: dict[str, Any] = mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
    return driver


def _set_volume_option(mount: Mount, value: str) -> None:
    name, _, content = value.partition("=")
    _driver(mount).setdefault("Options", {})[name] = content


def _set_volume_driver(mount: Mount, value: str) -> None:
    _driver(mount)["Name"] = value


def _plain(name: str) -> Callable[[Mount, str], None]:
    return lambda mount, value: mount.update({name: value})


def _set_read_only(mount: Mount, value: str) -> None:
    mount["ReadOnly"] = _bool("readonly", value)


def _set_non_recursive(mount: Mount, value: str) -> None:
    mount.setdefault("BindOptions", {})["NonRecursive"] = _bool("bind-nonrecursive", value)


def _set_no_copy(mount: Mount, value: str) -> None:
    mount.setdefault("VolumeOptions", {})["NoCopy"] = _bool("volume-nocopy", value)


def _set_subpath(mount: Mount, value: str) -> None:
    mount.setdefault("VolumeOptions", {})["Subpath"] = value


def _set_tmpfs_size(mount: Mount, value: str) -> None:
    mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_bytes(value)


_SETTERS: dict[str, Callable[[Mount, str], None]] = {
    "type": _set_type,
    **dict.fromkeys(("source", "src"), _plain("Source")),
    **dict.fromkeys(("target", "dst", "destination"), _plain("Target")),
    **dict.fromkeys(("readonly", "ro"), _set_read_only),
    "consistency": _plain("Consistency"),
    "bind-propagation": _set_propagation,
    "bind-nonrecursive": _set_non_recursive,
    "bind-recursive": _set_recursive,
    "volume-driver": _set_volume_driver,
    "volume-opt": _set_volume_option,
    "volume-label": _set_volume_label,
    "volume-nocopy": _set_no_copy,
    "volume-subpath": _set_subpath,
    "tmpfs-size": _set_tmpfs_size,
    "tmpfs-mode": _set_mode,
}
_SWITCHES = frozenset({"readonly", "ro", "volume-nocopy", "bind-nonrecursive"})
