"""The OCI runtime spec of a container: a pure function of its config, its image and what the host allows.

Gives what dockerd gives its containers: default capabilities, seccomp, masked paths, mounts, devices, limits. Touches
no disk; paths are arguments.
"""

from __future__ import annotations

import base64
from typing import Any

from shoal.core.volume import LOCAL_DRIVER, check_volume
from shoal.engine.devices import DeviceNode, device_entries, device_rules
from shoal.engine.host import CAPABILITIES, Host
from shoal.engine.limits import check_limits, limits_of
from shoal.engine.seccomp import custom_profile, default_profile
from shoal.engine.users import Identity
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.base import Struct
from shoal.model.container import HOST_NETWORK, ContainerConfig, ImageRecord
from shoal.model.container_spec import Mount, Ulimit

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_CAPABILITIES = frozenset(
    {
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    }
)
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = (
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)
SHM_BYTES = 64 << 20
INIT_PATH = "/sbin/docker-init"
_PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
_DEVICES = (  # type, major, minor that a container may use; None is any
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 5, 1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 136, None, "rwm"),
)


class FileBind(Struct):
    """A file or directory of the host at a place in the container."""

    source: str
    target: str
    read_only: bool = False


class Places(Struct):
    """Where the parts of one container lie on the host. `volumes` maps targets of mounts to their directories."""

    root: str
    cgroup: str
    binds: tuple[FileBind, ...] = ()
    volumes: dict[str, str] = {}
    devices: tuple[DeviceNode, ...] = ()


def arguments_of(config: ContainerConfig, image: ImageRecord) -> tuple[str, ...]:
    """Return what is run: an entrypoint of the config takes the image's command away, too.

    Raises InvalidArgument if there is nothing to run.
    """
    entrypoint, command = config.entrypoint, config.command
    if entrypoint is None:
        entrypoint = image.entrypoint or ()
        if command is None or (not command and not entrypoint):
            command = image.command
    arguments = tuple(entrypoint) + tuple(command or ())
    if not arguments or not arguments[0]:
        raise InvalidArgument("no command specified")
    return arguments


def environment_of(config: ContainerConfig, image: ImageRecord, container_id: str) -> list[str]:
    """Return the environment: PATH, HOSTNAME and TERM, then the image's, then the config's over all of them.

    An entry of the config without `=` takes a variable away.
    """
    merged: dict[str, str] = {}
    defaults = [DEFAULT_PATH, f"HOSTNAME={config.hostname or container_id[:12]}"] + (
        ["TERM=xterm"] if config.tty else []
    )
    for entry in (*defaults, *image.env, *config.env):
        name, equals, _ = entry.partition("=")
        if equals:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def capabilities_of(config: ContainerConfig, host: Host) -> frozenset[str]:
    """Return the capabilities of a container, cut to what the daemon holds.

    Raises InvalidArgument for a name that is none, or one asked for by name that the daemon lacks.
    """
    added, dropped = _capability_names(config.capability_add), _capability_names(config.capability_drop)
    lacking = sorted(added - host.capabilities - {"ALL"})
    if lacking:
        raise InvalidArgument(f"CapAdd: the daemon itself does not hold {lacking[0]}; run it with that capability")
    has_all = "ALL" in added or config.privileged
    chosen = host.capabilities if has_all else (frozenset() if "ALL" in dropped else DEFAULT_CAPABILITIES)
    return ((chosen - dropped) | (added - {"ALL"})) & host.capabilities


def _capability_names(names: tuple[str, ...]) -> frozenset[str]:
    result = set()
    for name in names:
        short = name.upper().removeprefix("CAP_")
        if short != "ALL" and short not in CAPABILITIES:
            raise InvalidArgument(f'invalid capability: "{name}": give a name as in capabilities(7), such as NET_ADMIN')
        result.add("ALL" if short == "ALL" else f"CAP_{short}")
    return frozenset(result)


def check_config(config: ContainerConfig, host: Host) -> None:
    """Refuse what this host cannot do, before anything is made. Raises InvalidArgument or NotBuilt."""
    _seccomp(config, capabilities_of(config, host), host)
    for ulimit in config.ulimits:
        _check_ulimit(ulimit, host)
    may_lower = "CAP_SYS_RESOURCE" in host.capabilities
    if not -1000 <= config.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {config.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if config.oom_score_adj < host.oom_score_adj and config.oom_score_adj != 0 and not may_lower:
        raise InvalidArgument(
            f"OomScoreAdj {config.oom_score_adj}: below {host.oom_score_adj} needs CAP_SYS_RESOURCE, "
            "which the daemon lacks"
        )
    check_limits(config, host)
    if config.init and not host.init_program:
        raise InvalidArgument(
            "Init: no init program on this node that runs in any container: install tini-static (or catatonit)"
        )
    for mount in config.mounts:
        _check_mount(mount)
    for name in config.sysctls:
        _check_sysctl(name, config)
    for path in (config.working_dir, *(file.path for file in config.files)):
        if path and not path.startswith("/"):
            raise InvalidArgument(f"the working directory or file '{path}' is invalid, it needs to be an absolute path")


def _check_sysctl(name: str, config: ContainerConfig) -> None:
    if not name.startswith(("net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")):
        raise InvalidArgument(f"sysctl '{name}' is not allowed: it is not of the container's own namespaces")
    if name.startswith("net.") and config.network_namespace == HOST_NETWORK:
        raise InvalidArgument(f"sysctl '{name}' is not allowed on the host's network: it would change the host's")
    if not name.startswith("net.") and "ipc" in config.host_namespaces:
        raise InvalidArgument(f"sysctl '{name}' is not allowed with the host's IPC: it would change the host's")


def _check_ulimit(ulimit: Ulimit, host: Host) -> None:
    if ulimit.name not in host.hard_limits:
        raise InvalidArgument(f"invalid ulimit type: {ulimit.name}")
    soft, hard = _unsigned(ulimit.soft), _unsigned(ulimit.hard)
    if soft > hard:
        raise InvalidArgument(
            f"ulimit {ulimit.name}: soft limit must be less than or equal to hard limit: {ulimit.soft} > {ulimit.hard}"
        )
    if hard > _unsigned(host.hard_limits[ulimit.name]) and "CAP_SYS_RESOURCE" not in host.capabilities:
        raise InvalidArgument(
            f"ulimit {ulimit.name}: {ulimit.hard} is above this node's hard limit {host.hard_limits[ulimit.name]}, "
            "and the daemon lacks CAP_SYS_RESOURCE to raise it; ask for less"
        )


def _unsigned(limit: int) -> int:
    return limit if limit >= 0 else (1 << 64) - 1


def _check_mount(mount: Mount) -> None:
    if not mount.target.startswith("/") or mount.target.rstrip("/") == "":
        raise InvalidArgument(f'invalid mount target "{mount.target}": must be an absolute path other than /')
    if mount.type in {"npipe", "cluster", "image"}:
        raise NotBuilt(f"mounts of type {mount.type} are not supported by this node")
    if mount.type not in {"bind", "tmpfs", "volume"}:
        raise InvalidArgument(f'mount type unknown: "{mount.type}"')
    if mount.type == "bind":
        if not mount.source.startswith("/"):
            raise InvalidArgument(f'invalid mount config for type "bind": mount path must be absolute: {mount.source}')
        propagation = mount.bind_options.propagation if mount.bind_options else ""
        if propagation and propagation not in _PROPAGATIONS:
            raise InvalidArgument(f'invalid mount config for type "bind": invalid propagation mode: {propagation}')
    if mount.type == "volume":
        driver = mount.volume_options.driver_config if mount.volume_options else None
        if mount.source:
            check_volume(mount.source, driver.name if driver else "", driver.options if driver else {})
        elif driver is not None and (driver.name not in {"", LOCAL_DRIVER} or driver.options):
            raise NotBuilt(f"mount {mount.target}: a volume whose driver has options needs a name; give it a source")
    if mount.type == "tmpfs" and mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')


def make_spec(
    config: ContainerConfig,
    image: ImageRecord,
    container_id: str,
    arguments: tuple[str, ...],
    identity: Identity,
    places: Places,
    host: Host,
) -> dict[str, Any]:
    """Return the OCI spec (`config.json` of a bundle) of a container.

    Args:
        config: what was asked for, checked by `check_config`.
        image: the image it runs.
        container_id: full id.
        arguments: from `arguments_of`.
        identity: user and groups, resolved in the image.
        places: where its parts lie on the host.
        host: what the machine allows.
    """
    capabilities = capabilities_of(config, host)
    if config.init:
        arguments = (INIT_PATH, "--", *arguments)
    held = sorted(capabilities)
    # a user other than root gets capabilities only through programs that carry them
    effective = held if identity.uid == 0 else []
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups or (identity.gid,))},
        "args": list(arguments),
        "env": environment_of(config, image, container_id),
        "cwd": config.working_dir or image.working_dir or "/",
        "capabilities": {"bounding": held, "effective": effective, "permitted": effective},
        "noNewPrivileges": config.no_new_privileges,
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": _unsigned(limit.soft), "hard": _unsigned(limit.hard)}
            for limit in config.ulimits
        ],
    }
    if config.tty:
        process["consoleSize"] = {"height": 24, "width": 80}
    if config.oom_score_adj:
        process["oomScoreAdj"] = config.oom_score_adj
    spec = {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": places.root, "readonly": config.read_only},
        "mounts": _mounts(config, places, host),
        "linux": _linux(config, places, capabilities, host),
    }
    if "uts" not in config.host_namespaces:
        spec["hostname"] = config.hostname or container_id[:12]
    return spec


def _linux(config: ContainerConfig, places: Places, capabilities: frozenset[str], host: Host) -> dict[str, Any]:
    kinds = (kind for kind in ("mount", "uts", "ipc", "pid") if kind not in config.host_namespaces)
    namespaces: list[dict[str, str]] = [{"type": kind} for kind in kinds]
    if config.pid_namespace:
        namespaces = [each | {"path": config.pid_namespace} if each["type"] == "pid" else each for each in namespaces]
    if host.cgroup_v2:
        namespaces.append({"type": "cgroup"})
    if config.network_namespace != HOST_NETWORK:
        network = {"type": "network"}
        if config.network_namespace is not None:
            network["path"] = config.network_namespace
        namespaces.append(network)
    linux: dict[str, Any] = {
        "cgroupsPath": places.cgroup,
        "namespaces": namespaces,
        "resources": _resources(config, places.devices, host),
        # those of the network would be the host's own
        "sysctl": {**({} if config.network_namespace == HOST_NETWORK else _DEFAULT_SYSCTLS), **config.sysctls},
        "maskedPaths": [] if config.privileged or config.unmasked else list(MASKED_PATHS),
        "readonlyPaths": [] if config.privileged or config.unmasked else list(READONLY_PATHS),
    }
    if places.devices:
        linux["devices"] = device_entries(places.devices)
    if config.domainname and "uts" not in config.host_namespaces:
        linux["sysctl"]["kernel.domainname"] = config.domainname
    profile = _seccomp(config, capabilities, host)
    if profile is not None:
        linux["seccomp"] = profile
    return linux


def _seccomp(config: ContainerConfig, capabilities: frozenset[str], host: Host) -> dict[str, Any] | None:
    if config.seccomp_mode == "unconfined" or config.privileged:
        return None
    if config.seccomp_mode in {"", "default"}:
        return default_profile(capabilities, host.machine, host.foreign_abis)
    if config.seccomp_mode != "custom":
        raise InvalidArgument(f"Seccomp mode {config.seccomp_mode!r}: use default, unconfined or custom")
    try:
        text = base64.b64decode(config.seccomp_profile, validate=True).decode()
    except ValueError:
        text = config.seccomp_profile
    return custom_profile(text, capabilities, host.machine)


def _resources(config: ContainerConfig, devices: tuple[DeviceNode, ...], host: Host) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in _DEVICES:
        rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        if major is not None:
            rule["major"] = major
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    rules += [{"allow": True, "access": "rwm"}] if config.privileged else device_rules(devices)
    return {"devices": rules, **limits_of(config, host)}


def _mounts(config: ContainerConfig, places: Places, host: Host) -> list[dict[str, Any]]:
    access = "rw" if config.privileged else "ro"
    mounts = [
        _mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount(
            "/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
        ),
        _mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", access),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", access, "nosuid", "noexec", "nodev"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        _shared_memory(config),
    ]
    binds = [
        _mount(bind.target, "bind", bind.source, "rbind", "rprivate", "ro" if bind.read_only else "rw")
        for bind in places.binds
    ]
    if config.init:
        binds.append(_mount(INIT_PATH, "bind", host.init_program, "bind", "ro"))
    asked = [_asked_mount(mount, places) for mount in config.mounts]
    replaced = {mount["destination"] for mount in asked}
    mounts = [mount for mount in mounts if mount["destination"] not in replaced]
    binds = [bind for bind in binds if bind["destination"] not in replaced]
    # parents before children, so that nothing is hidden by a later mount: a tmpfs on /run lies below /run/secrets/…
    return mounts + sorted(asked + binds, key=lambda mount: str(mount["destination"]).count("/"))


def _shared_memory(config: ContainerConfig) -> dict[str, Any]:
    path = "/dev/shm"  # noqa: S108
    if "ipc" in config.host_namespaces:
        return _mount(path, "bind", path, "rbind", "rprivate", "nosuid", "noexec", "nodev")
    size = f"size={config.shm_bytes or SHM_BYTES}"
    return _mount(path, "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", size)


def _asked_mount(mount: Mount, places: Places) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    target = "/" + "/".join(part for part in mount.target.split("/") if part and part != ".")
    if mount.type == "tmpfs":
        options = ["nosuid", "nodev", "noexec", access]
        if mount.tmpfs_options is not None:
            if mount.tmpfs_options.size_bytes:
                options.append(f"size={mount.tmpfs_options.size_bytes}")
            if mount.tmpfs_options.mode:
                options.append(f"mode={mount.tmpfs_options.mode:o}")
            for option in mount.tmpfs_options.options:
                # `exec` takes `noexec` away and so on
                options = [other for other in options if other != f"no{option[0]}"] + ["=".join(option)]
        return _mount(target, "tmpfs", "tmpfs", *options)
    if mount.type == "volume":
        return _mount(target, "bind", places.volumes[mount.target], "rbind", "rprivate", access)
    options_of_bind = mount.bind_options
    recursive = "bind" if options_of_bind and options_of_bind.non_recursive else "rbind"
    propagation = (options_of_bind.propagation if options_of_bind else "") or "rprivate"
    return _mount(target, "bind", mount.source, recursive, propagation, access)


def _mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}
