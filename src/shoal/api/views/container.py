"""Containers as Docker's JSON, complete enough for the docker command, docker-py and Portainer."""

from __future__ import annotations

from shoal.api.views.shared import Json, endpoint_id, mac_of, time_text
from shoal.api.views.shared import plain as docker_shape
from shoal.core.plain_network import endpoint_of
from shoal.core.volume import is_anonymous
from shoal.engine.oci import MASKED_PATHS, READONLY_PATHS, SHM_BYTES
from shoal.lib.clock import NANOSECONDS_PER_SECOND
from shoal.model.base import replace
from shoal.model.container import HOST_NETWORK, Container, ContainerConfig, ContainerSize, ContainerState, HealthStatus
from shoal.model.container_spec import Mount
from shoal.model.netstate import JoinedNetwork
from shoal.model.plain import EndpointRequest, PlainConfig

NO_HEALTH = "none"
STORAGE_DRIVER = "overlay2"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - what is shown, not listened on


def size_view(size: ContainerSize | None) -> Json:
    """Return what a container takes on the disk, where it was asked for."""
    return {} if size is None else {"SizeRw": size.written_bytes, "SizeRootFs": size.root_bytes}


def container_summary_view(
    container: Container, now_ns: int, data_root: str, size: ContainerSize | None = None
) -> Json:
    """Return a container as `GET /containers/json` lists it."""
    config = container.config
    return {
        "Id": container.id,
        "Names": [f"/{config.name}"],
        "Image": config.image,
        "ImageID": container.image_id,
        "Command": " ".join(container.arguments),
        "Created": container.created_at_ns // NANOSECONDS_PER_SECOND,
        "Ports": _ports(container),
        **size_view(size),
        "Labels": config.labels,
        "State": state_word(container.state),
        "Status": status_text(container, now_ns),
        "HostConfig": {"NetworkMode": _network_mode(config)},
        "NetworkSettings": {"Networks": _networks(_seen_now(container))},
        "Mounts": [_mount_point(mount, data_root) for mount in config.mounts],
    }


def _ports(container: Container) -> list[Json]:
    """Return published ports, and of a plain container those that are only exposed."""
    config = _seen_now(container)
    ports: list[Json] = [
        {
            "IP": port.host_address or ANY_ADDRESS,
            "PrivatePort": port.target_port,
            "PublicPort": port.published_port,
            "Type": port.protocol,
        }
        for port in config.host_ports
    ]
    published = {f"{port.target_port}/{port.protocol}" for port in config.host_ports}
    if config.plain is not None and is_shown_running(container.state):
        for text in config.plain.exposed_ports:
            number, _, protocol = text.partition("/")
            if text not in published:
                ports.append({"PrivatePort": int(number), "Type": protocol})
    return ports


def _seen_now(container: Container) -> ContainerConfig:
    """Return the config without what a plain container has only while it runs: addresses and ports."""
    config = container.config
    if config.plain is None or is_shown_running(container.state):
        return config
    networks = tuple(replace(joined, addresses=()) for joined in config.networks)
    return replace(config, addresses=(), host_ports=(), networks=networks)


def status_text(container: Container, now_ns: int) -> str:
    """Return what `docker ps` shows: `Up 3 minutes`, `Exited (1) 2 hours ago`, `Created`."""
    state = container.state
    if state.status == "running":
        up = f"Up {human_duration(now_ns - state.started_at_ns)}"
        if state.paused:
            return f"{up} (Paused)"
        word = health_word(state)
        return up if word == NO_HEALTH else f"{up} (health: starting)" if word == "starting" else f"{up} ({word})"
    if state.restarting:
        return f"Restarting ({state.exit_code}) {human_duration(now_ns - state.finished_at_ns)} ago"
    if state.status == "exited":
        return f"Exited ({state.exit_code}) {human_duration(now_ns - state.finished_at_ns)} ago"
    return "Dead" if state.status == "dead" else "Created"


def health_word(state: ContainerState) -> str:
    """Return Docker's word for what health checks say: `none` where there are none, `unhealthy` once they stopped."""
    if state.health is None:
        return NO_HEALTH
    is_checked = state.status == "running" and not state.paused
    return (state.health.status if is_checked else HealthStatus.UNHEALTHY).value


def state_word(state: ContainerState) -> str:
    """Return Docker's word for a state."""
    if state.restarting:
        return "restarting"
    return "paused" if state.status == "running" and state.paused else state.status


def is_shown_running(state: ContainerState) -> bool:
    """Tell whether Docker calls a container running: it runs, or is about to be started again."""
    return state.status == "running" or state.restarting


def human_duration(nanoseconds: int) -> str:
    """Write a length of time roughly, in Docker's words."""
    seconds = max(0, nanoseconds // NANOSECONDS_PER_SECOND)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    for limit, size, word in (
        (60, 1, "seconds"),
        (120, 0, "About a minute"),
        (3600, 60, "minutes"),
        (5400, 0, "About an hour"),
        (48 * 3600, 3600, "hours"),
        (14 * 86400, 86400, "days"),
        (60 * 86400, 7 * 86400, "weeks"),
        (730 * 86400, 30 * 86400, "months"),
    ):
        if seconds < limit:
            return f"{seconds // size} {word}" if size else word
    return f"{seconds // (365 * 86400)} years"


def container_view(container: Container, data_root: str) -> Json:
    """Return a container as inspect shows it."""
    config, arguments = container.config, container.arguments
    directory = container.run_directory or f"{data_root}/containers/{container.id}"
    return {
        "Id": container.id,
        "Created": time_text(container.created_at_ns),
        "Path": arguments[0] if arguments else "",
        "Args": list(arguments[1:]),
        "State": _state_view(container),
        "Image": container.image_id,
        "ResolvConfPath": f"{directory}/resolv.conf",
        "HostnamePath": f"{directory}/hostname",
        "HostsPath": f"{directory}/hosts",
        "LogPath": container.log_path,
        "Name": f"/{config.name}",
        "RestartCount": container.restart_count,
        "Driver": STORAGE_DRIVER,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": _host_config(config),
        "GraphDriver": {"Name": STORAGE_DRIVER, "Data": None},
        "Mounts": [_mount_point(mount, data_root) for mount in config.mounts],
        "Config": _config_view(container),
        "NetworkSettings": _network_settings(_seen_now(container)),
    }


def _state_view(container: Container) -> Json:
    state = container.state
    view: Json = {
        "Status": state_word(state),
        "Running": is_shown_running(state),
        "Paused": state.paused,
        "Restarting": state.restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid if state.status == "running" else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time_text(state.started_at_ns),
        "FinishedAt": time_text(state.finished_at_ns),
    }
    if state.health is not None:
        view["Health"] = {
            "Status": health_word(state),
            "FailingStreak": state.health.failing_streak,
            "Log": [
                {
                    "Start": time_text(result.started_at_ns),
                    "End": time_text(result.ended_at_ns),
                    "ExitCode": result.exit_code,
                    "Output": result.output,
                }
                for result in state.health.log
            ],
        }
    return view


def _config_view(container: Container) -> Json:
    config, plain = container.config, container.config.plain or PlainConfig()
    view: Json = {
        "Hostname": config.hostname if config.plain is None else config.hostname or container.id[:12],
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": plain.attach_stdin,
        "AttachStdout": plain.attach_stdout,
        "AttachStderr": plain.attach_stderr,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": plain.stdin_once,
        "Env": list(config.env) or None,
        "Cmd": list(config.command) if config.command is not None else None,
        "Image": config.image,
        "Volumes": {mount.target: {} for mount in config.mounts if is_anonymous(mount)} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) if config.entrypoint is not None else None,
        "OnBuild": None,
        "Labels": config.labels,
    }
    if plain.exposed_ports:
        view["ExposedPorts"] = {text: {} for text in plain.exposed_ports}
    if config.healthcheck is not None:
        view["Healthcheck"] = docker_shape(config.healthcheck)
    if config.stop_signal:
        view["StopSignal"] = config.stop_signal
    if config.stop_timeout_seconds is not None:
        view["StopTimeout"] = int(config.stop_timeout_seconds)
    return view


def _host_config(config: ContainerConfig) -> Json:
    security = [f"seccomp={config.seccomp_mode}"] if config.seccomp_mode == "unconfined" else []
    if config.no_new_privileges:
        security.append("no-new-privileges=true")
    plain = config.plain or PlainConfig()
    return {
        "Binds": list(plain.binds) or None,
        "ContainerIDFile": "",
        "LogConfig": {"Type": config.log_driver, "Config": config.log_options},
        "NetworkMode": _network_mode(config),
        "PortBindings": _port_bindings(config, "") if config.plain is None else _asked_ports(plain),
        "RestartPolicy": {"Name": plain.restart.name.value, "MaximumRetryCount": plain.restart.most_retries},
        "AutoRemove": plain.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": list(plain.volumes_from) or None,
        "ConsoleSize": [0, 0],
        "CapAdd": list(config.capability_add) or None,
        "CapDrop": list(config.capability_drop) or None,
        "CgroupnsMode": "host",
        "Dns": list(config.dns_nameservers) or None,
        "DnsOptions": list(config.dns_options) or None,
        "DnsSearch": list(config.dns_search) or None,
        "ExtraHosts": [_extra_host(line) for line in config.hosts] or None,
        "GroupAdd": list(config.groups) or None,
        "IpcMode": "host" if "ipc" in config.host_namespaces else "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": config.oom_score_adj,
        "PidMode": plain.pid_mode or ("host" if "pid" in config.host_namespaces else ""),
        "Privileged": config.privileged,
        "PublishAllPorts": plain.publish_all,
        "ReadonlyRootfs": config.read_only,
        "SecurityOpt": security or None,
        "UTSMode": "host" if "uts" in config.host_namespaces else "",
        "UsernsMode": "",
        "ShmSize": config.shm_bytes or SHM_BYTES,
        "Sysctls": config.sysctls,
        "Runtime": "runc",
        "Isolation": "default",
        **_limits(config),
        "Mounts": [docker_shape(mount) for mount in _shown_mounts(config)],
        "MaskedPaths": [] if config.privileged or config.unmasked else list(MASKED_PATHS),
        "ReadonlyPaths": [] if config.privileged or config.unmasked else list(READONLY_PATHS),
        "Init": config.init,
    }


def _limits(config: ContainerConfig) -> Json:
    more = config.more_limits
    return {
        "CpuShares": more.cpu_shares,
        "Memory": config.memory_bytes,
        "NanoCpus": config.nano_cpus,
        "CgroupParent": "",
        "BlkioWeight": 0,
        "BlkioWeightDevice": None,
        "BlkioDeviceReadBps": None,
        "BlkioDeviceWriteBps": None,
        "BlkioDeviceReadIOps": None,
        "BlkioDeviceWriteIOps": None,
        "CpuPeriod": more.cpu_period,
        "CpuQuota": more.cpu_quota,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": more.cpuset_cpus,
        "CpusetMems": more.cpuset_mems,
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.permissions,
            }
            for device in config.devices
        ]
        or None,
        "DeviceCgroupRules": None,
        "DeviceRequests": None,
        "MemoryReservation": more.memory_reservation_bytes,
        "MemorySwap": more.memory_swap_bytes or config.memory_bytes * 2,
        "MemorySwappiness": more.memory_swappiness,
        "OomKillDisable": False,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
        "PidsLimit": config.pids_limit or None,
        "Ulimits": [{"Name": ulimit.name, "Hard": ulimit.hard, "Soft": ulimit.soft} for ulimit in config.ulimits],
    }


def _extra_host(line: str) -> str:
    address, _, names = line.partition(" ")
    return f"{names.strip()}:{address}"


def _mount_point(mount: Mount, data_root: str) -> Json:
    view: Json = {"Type": mount.type}
    source = mount.source
    if mount.type == "volume" and source:
        view["Name"] = source
        source = f"{data_root}/volumes/{source}/_data"
    view |= {"Source": source, "Destination": mount.target}
    if mount.type == "volume":
        view["Driver"] = "local"
    propagation = mount.bind_options.propagation if mount.bind_options is not None else ""
    return view | {
        "Mode": "z" if mount.type == "volume" else "",
        "RW": not mount.read_only,
        "Propagation": (propagation or "rprivate") if mount.type == "bind" else "",
    }


def _port_bindings(config: ContainerConfig, address: str) -> Json:
    bindings: Json = {}
    for port in config.host_ports:
        binding = {"HostIp": port.host_address or address, "HostPort": str(port.published_port)}
        bindings.setdefault(f"{port.target_port}/{port.protocol}", []).append(binding)
    return bindings


def _asked_ports(plain: PlainConfig) -> Json:
    bindings: Json = {}
    for port in plain.ports:
        text = f"{port.published_port}-{port.last_port}" if port.last_port else str(port.published_port or "")
        binding = {"HostIp": port.host_address, "HostPort": text}
        bindings.setdefault(f"{port.target_port}/{port.protocol}", []).append(binding)
    return bindings


def _shown_mounts(config: ContainerConfig) -> tuple[Mount, ...]:
    """Return the mounts that are not shown as they were written, among the binds or as volumes."""
    if config.plain is None:
        return config.mounts
    written = {part for bind in config.plain.binds for part in bind.split(":")}
    return tuple(mount for mount in config.mounts if mount.target not in written and not is_anonymous(mount))


def _network_mode(config: ContainerConfig) -> str:
    if config.plain is not None:
        return config.plain.network_mode
    if config.network_namespace == HOST_NETWORK:
        return "host"
    return "bridge" if config.addresses else "none"


def _networks(config: ContainerConfig) -> Json:
    if config.network_namespace == HOST_NETWORK:
        return {"host": _endpoint(JoinedNetwork(name="host", network_id=""), config)}
    if config.networks:
        return {joined.name: _endpoint(joined, config) for joined in config.networks}
    if not config.addresses:
        return {}
    return {"bridge": _endpoint(JoinedNetwork(name="bridge", network_id="", addresses=config.addresses[:1]), config)}


def _endpoint(joined: JoinedNetwork, config: ContainerConfig) -> Json:
    """Return a container's place on a network."""
    address, _, prefix = next((each for each in joined.addresses if ":" not in each), "").partition("/")
    address6, _, prefix6 = next((each for each in joined.addresses if ":" in each), "").partition("/")
    is_of_swarm = bool(joined.network_id)
    names = [name for name in (config.name, config.hostname) if name] if is_of_swarm else None
    attachments = config.plain.attachments if config.plain is not None else ()
    aliases = [alias for each in attachments if each.network_id == joined.network_id for alias in each.aliases]
    asked = _asked_of(joined, config)
    return {
        "IPAMConfig": {"IPv4Address": address} if is_of_swarm and address else None,
        "Links": None,
        "Aliases": aliases or None,
        "MacAddress": mac_of(address) if is_of_swarm else "",
        "NetworkID": joined.network_id,
        "EndpointID": endpoint_id(joined.network_id, config.name) if is_of_swarm else "",
        "Gateway": "",
        "IPAddress": address,
        "IPPrefixLen": int(prefix or 0),
        "IPv6Gateway": "",
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
        "DriverOpts": (asked.driver_options or None) if asked is not None else None,
        "GwPriority": asked.priority if asked is not None else 0,
        "DNSNames": [*names, *aliases] if names is not None else None,
    }


def _asked_of(joined: JoinedNetwork, config: ContainerConfig) -> EndpointRequest | None:
    """Return what a plain container asked of a network it is on."""
    if config.plain is None:
        return None
    if not joined.network_id:
        return config.plain.bridge
    return endpoint_of(config.plain, joined.network_id)


def _network_settings(config: ContainerConfig) -> Json:
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": config.network_namespace or "",
        "Ports": _port_bindings(config, ANY_ADDRESS),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": _networks(config),
    }
