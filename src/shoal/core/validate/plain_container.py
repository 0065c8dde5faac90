"""From what a client asks with `POST /containers/create` to the container the engine is to make.

Everything that is asked for is taken, or refused by the name of its field: nothing is dropped in silence. What only
the node can tell (an image, a name that is taken, a limit of the host) is not judged here.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from shoal.core.endpoint_options import refuse_same_interfaces
from shoal.core.validate.container import check_health
from shoal.core.validate.plain_limits import more_limits
from shoal.core.validate.plain_mounts import plain_mounts
from shoal.core.validate.plain_network import (
    bridge_request,
    endpoint_requests,
    network_mode,
    parse_port,
    published_ports,
)
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.base import replace
from shoal.model.container import HOST_NETWORK, ContainerConfig, Device, MoreLimits
from shoal.model.container_request import ContainerRequest, DeviceRequest, HostConfig, RestartPolicyRequest
from shoal.model.plain import CONTAINER_PREFIX, HOST, PlainConfig, RestartName, RestartRule

# of the kernel, for both
MOST_HOSTNAME_BYTES = 64
SWARM_LABELS = "com.docker.swarm."
# as an address in hosts: where a container finds this node, known when it starts
HOST_GATEWAY = "host-gateway"
_INSTEAD = {
    "links": "containers on a network of the swarm find each other by name",
}
_NOT_BUILT = (
    "cgroup", "cgroup_parent", "links",
    "device_cgroup_rules", "device_requests", "storage_opt", "annotations", "oom_kill_disable",
    "kernel_memory", "kernel_memory_tcp", "cpu_realtime_period", "cpu_realtime_runtime", "cpu_count", "cpu_percent",
    "io_maximum_iops", "io_maximum_bandwidth", "blkio_weight", "blkio_weight_device", "blkio_device_read_bps",
    "blkio_device_write_bps", "blkio_device_read_iops", "blkio_device_write_iops",
)  # fmt: skip
# words that mean what every container here has
_AS_ALWAYS = {
    "userns_mode": ("", "host"),
    "volume_driver": ("", "local"),
    "ipc_mode": ("", "private", "host"),
    "cgroupns_mode": ("", "host", "private"),
    "container_id_file": ("",),
}


def plain_config(
    request: ContainerRequest, name: str, masked_paths: tuple[str, ...] = (), readonly_paths: tuple[str, ...] = ()
) -> ContainerConfig:
    """Return the container to make.

    Args:
        request: what was asked for.
        name: of the container.
        masked_paths, readonly_paths: what every container has of these; to ask for just that is allowed.

    Raises:
        InvalidArgument: what cannot be; the text names the field.
        NotBuilt: what this version cannot do; the text names the field and, where there is one, another way.
    """
    host = request.host_config
    _refuse_unbuilt(request, masked_paths, readonly_paths)
    _check_plainly(request)
    mode = network_mode(request)
    endpoints, bridge = endpoint_requests(request, mode), bridge_request(request)
    refuse_same_interfaces(each.link for each in (*endpoints, bridge))
    config = ContainerConfig(
        name=name,
        image=request.image,
        entrypoint=command_words(request.entrypoint, "Entrypoint"),
        command=command_words(request.cmd, "Cmd"),
        env=request.env,
        working_dir=request.working_dir,
        user=request.user,
        hostname=request.hostname,
        domainname=request.domainname,
        labels=request.labels,
        mounts=plain_mounts(host, request.volumes),
        tty=request.tty,
        open_stdin=request.open_stdin,
        stop_signal=request.stop_signal,
        stop_timeout_seconds=None if request.stop_timeout is None else float(request.stop_timeout),
        healthcheck=request.healthcheck,
        # one of its own until it starts
        network_namespace=HOST_NETWORK if mode == HOST else None,
        plain=PlainConfig(
            restart=restart_rule(host.restart_policy),
            auto_remove=host.auto_remove,
            network_mode=mode,
            endpoints=endpoints,
            bridge=bridge,
            ports=() if mode == HOST else published_ports(host.port_bindings),
            publish_all=host.publish_all_ports and mode != HOST,
            exposed_ports=_exposed(request),
            binds=host.binds,
            volumes_from=host.volumes_from,
            pid_mode=host.pid_mode,
            stdin_once=request.stdin_once,
            attach_stdin=request.attach_stdin,
            attach_stdout=request.attach_stdout,
            attach_stderr=request.attach_stderr,
        ),
    )
    return _with_security(_with_host_config(config, host), host.security_opt)


def _with_host_config(config: ContainerConfig, host: HostConfig) -> ContainerConfig:
    return replace(
        config,
        groups=host.group_add,
        init=bool(host.init),
        read_only=host.readonly_rootfs,
        capability_add=host.cap_add,
        capability_drop=host.cap_drop,
        sysctls=host.sysctls,
        ulimits=host.ulimits,
        oom_score_adj=host.oom_score_adj,
        nano_cpus=host.nano_cpus,
        memory_bytes=host.memory,
        pids_limit=max(host.pids_limit or 0, 0),
        more_limits=more_limits(host, MoreLimits(), host.memory),
        shm_bytes=host.shm_size,
        privileged=host.privileged,
        host_namespaces=_host_namespaces(host),
        unmasked=host.privileged or host.masked_paths == [],
        devices=tuple(_device(device) for device in host.devices),
        hosts=tuple(_host_line(text) for text in host.extra_hosts),
        dns_nameservers=host.dns,
        dns_search=host.dns_search,
        dns_options=host.dns_options,
        log_driver=host.log_config.type or "json-file",
        log_options=host.log_config.config,
    )


def _host_namespaces(host: HostConfig) -> tuple[str, ...]:
    """Return the kinds of namespaces that a container shares with the node. Raises InvalidArgument."""
    if host.pid_mode not in ("", HOST) and not host.pid_mode.startswith(CONTAINER_PREFIX):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}: use host or container:NAME")
    if host.uts_mode not in ("", HOST):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}: use host")
    modes = (("ipc", host.ipc_mode), ("pid", host.pid_mode), ("uts", host.uts_mode))
    return tuple(kind for kind, mode in modes if mode == HOST)


def _device(asked: DeviceRequest) -> Device:
    target = asked.path_in_container or asked.path_on_host
    if not asked.path_on_host.startswith("/") or not target.startswith("/"):
        raise InvalidArgument("HostConfig.Devices: PathOnHost and PathInContainer are absolute paths")
    permissions = asked.cgroup_permissions or "rwm"
    if not set(permissions) <= set("rwm"):
        raise InvalidArgument(f"HostConfig.Devices: invalid mode for device: {permissions}; use r, w and m")
    return Device(source=asked.path_on_host, target=target, permissions=permissions)


def updated_config(config: ContainerConfig, host: HostConfig) -> ContainerConfig:
    """Return a container with other limits and another restart policy; what is 0 or empty stays as it is.

    Raises:
        InvalidArgument, NotBuilt: what cannot be, or is no plain container's.
    """
    plain = config.plain
    if plain is None:
        raise InvalidArgument(f"container {config.name} is a task's: its limits are those of its service's spec")
    _refuse_unbuilt(ContainerRequest(host_config=host), (), ())
    rule = plain.restart
    if host.restart_policy.name:
        rule = restart_rule(host.restart_policy)
        if plain.auto_remove and rule.name != RestartName.NO:
            raise InvalidArgument("Restart policy cannot be updated because AutoRemove is enabled for the container")
    memory_bytes = host.memory or config.memory_bytes
    before = config.more_limits
    if host.nano_cpus:
        # they say the same in another way
        before = replace(before, cpu_period=0, cpu_quota=0)
    return replace(
        config,
        memory_bytes=memory_bytes,
        more_limits=more_limits(host, before, memory_bytes),
        nano_cpus=0 if host.cpu_quota else host.nano_cpus or config.nano_cpus,
        pids_limit=max(host.pids_limit, 0) if host.pids_limit else config.pids_limit,
        plain=replace(plain, restart=rule),
    )


def plain_warnings(request: ContainerRequest) -> tuple[str, ...]:
    """Return what a client is told of a container that can be made, in Docker's words."""
    host = request.host_config
    if host.network_mode == HOST and (host.port_bindings or host.publish_all_ports):
        return ("Published ports are discarded when using host network mode",)
    return ()


def restart_rule(policy: RestartPolicyRequest) -> RestartRule:
    """Return when a container is started again. Raises InvalidArgument with Docker's text."""
    names = [each.value for each in RestartName]
    if policy.name and policy.name not in names:
        listed = ", ".join(f"'{name}'" for name in ("no", "always", "on-failure"))
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of {listed}, or 'unless-stopped'"
        )
    name = RestartName(policy.name or "no")
    if policy.maximum_retry_count and name != RestartName.ON_FAILURE:
        more = " and cannot be negative" if policy.maximum_retry_count < 0 else ""
        raise InvalidArgument(f"invalid restart policy: maximum retry count can only be used with 'on-failure'{more}")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    return RestartRule(name=name, most_retries=policy.maximum_retry_count)


def _refuse_unbuilt(request: ContainerRequest, masked_paths: tuple[str, ...], readonly_paths: tuple[str, ...]) -> None:
    host = request.host_config
    for field in _NOT_BUILT:
        if getattr(host, field):
            hint = _INSTEAD.get(field, "leave it out")
            raise NotBuilt(f"HostConfig.{_field_name(field)} is not built: {hint}")
    for field, words in _AS_ALWAYS.items():
        value = getattr(host, field)
        if value not in words:
            known = " or ".join(f'"{word}"' for word in words)
            raise NotBuilt(f'HostConfig.{_field_name(field)} "{value}" is not built: use {known}')
    for field, paths in (("masked_paths", masked_paths), ("readonly_paths", readonly_paths)):
        asked = getattr(host, field)
        if asked not in (None, [], list(paths)):
            raise NotBuilt(f"HostConfig.{_field_name(field)}: other paths than Docker's own, or none, are not built")
    if (host.masked_paths == []) != (host.readonly_paths == []):
        raise NotBuilt("HostConfig.MaskedPaths and ReadonlyPaths: none of both, or Docker's own of both")
    if request.mac_address:
        raise NotBuilt("MacAddress is not built: it follows from the container's address")


def _field_name(field: str) -> str:
    words = {"cpu": "Cpu", "io": "IO", "iops": "IOps", "uts": "UTS", "tcp": "TCP", "id": "ID"}
    return "".join(words.get(word, word.capitalize()) for word in field.split("_"))


def _check_words(host: HostConfig) -> None:
    """Refuse words of the host's part that are none, in Docker's words."""
    if host.isolation.lower() not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{host.isolation}' on linux")
    if host.runtime not in ("", "runc", "io.containerd.runc.v2"):
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}: this node has runc")
    for server in host.dns:
        if not _is_address(server):
            raise InvalidArgument(f"HostConfig.Dns: IP address is not correctly formatted: {server}")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if host.pids_limit is not None and host.pids_limit < -1:
        raise InvalidArgument("HostConfig.PidsLimit: a number from 1, or 0 or -1 for no limit")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_plainly(request: ContainerRequest) -> None:
    """Refuse what Docker refuses before it looks at the node."""
    host = request.host_config
    _check_words(host)
    for field, text in (("Hostname", request.hostname), ("Domainname", request.domainname)):
        if len(text.encode()) > MOST_HOSTNAME_BYTES or any(letter.isspace() or letter == "/" for letter in text):
            raise InvalidArgument(f'{field}: invalid name "{text}": at most {MOST_HOSTNAME_BYTES} bytes without spaces')
    if not request.image:
        raise InvalidArgument("no image specified: give the field Image")
    for entry in request.env:
        if not entry.partition("=")[0]:
            raise InvalidArgument(f"invalid environment variable: {entry}")
    for label in request.labels:
        if label.startswith(SWARM_LABELS):
            raise InvalidArgument(f'Labels: "{label}" is set by the swarm only: use another name')
    if request.working_dir and not request.working_dir.startswith("/"):
        raise InvalidArgument(
            f"the working directory '{request.working_dir}' is invalid, it needs to be an absolute path"
        )
    if host.uts_mode == HOST and (request.hostname or request.domainname):
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.auto_remove and host.restart_policy.name not in ("", RestartName.NO):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if request.healthcheck is not None:
        check_health(request.healthcheck, "", "Healthcheck")
    if request.stop_timeout is not None and request.stop_timeout < -1:
        raise InvalidArgument("StopTimeout: a number of seconds, or -1 to wait for ever")


def command_words(value: Any, field: str) -> tuple[str, ...] | None:
    """Read a list of words, or a single one. An empty entrypoint takes the image's away, as `--entrypoint ""` does."""
    if value is None:
        return None
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise InvalidArgument(f"{field}: write a string or a list of strings")
    if field == "Entrypoint":
        return () if value == [""] else tuple(value) or None
    return tuple(value) or None


def _exposed(request: ContainerRequest) -> tuple[str, ...]:
    every = dict.fromkeys((*request.exposed_ports, *request.host_config.port_bindings))
    return tuple(f"{number}/{protocol}" for number, protocol in map(parse_port, every))


def _host_line(text: str) -> str:
    """Turn `NAME:ADDRESS` into a line of /etc/hosts."""
    name, colon, address = text.partition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not (name and colon and address):
        raise InvalidArgument(f'bad format for add-host: "{text}": write NAME:ADDRESS')
    if address != HOST_GATEWAY and not _is_address(address):
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')
    return f"{address} {name}"


def _with_security(config: ContainerConfig, options: tuple[str, ...]) -> ContainerConfig:
    for option in options:
        name, _, value = option.replace(":", "=", 1).partition("=")
        if name == "no-new-privileges" and value in ("", "true", "false"):
            config = replace(config, no_new_privileges=value != "false")
        elif name == "seccomp" and value in ("unconfined", "builtin"):
            config = replace(config, seccomp_mode="unconfined" if value == "unconfined" else "default")
        elif option.startswith("seccomp=") and value.lstrip().startswith("{"):
            config = replace(config, seccomp_mode="custom", seccomp_profile=option.partition("=")[2])
        elif (name, value) in (("apparmor", "unconfined"), ("label", "disable")):
            # there is neither AppArmor nor SELinux around a container here
            continue
        elif name in ("apparmor", "label", "systempaths", "credentialspec"):
            raise NotBuilt(
                f'HostConfig.SecurityOpt "{option}" is not built: use seccomp=unconfined, seccomp=PROFILE or '
                "no-new-privileges"
            )
        else:
            raise InvalidArgument(
                f'HostConfig.SecurityOpt: invalid --security-opt 2: "{option}": use seccomp=unconfined, '
                "seccomp=PROFILE or no-new-privileges"
            )
    return config
