"""What `docker info` and `docker version` read."""

from __future__ import annotations

from shoal.api.context import HostFacts
from shoal.api.views.shared import Json, time_text
from shoal.core.networks import NETWORK_DRIVERS
from shoal.core.platform import architecture_of
from shoal.model.objects import NodeDescription

API_VERSION = "1.50"
MIN_API_VERSION = "1.24"
LOG_DRIVERS = ("journald", "json-file", "local", "none", "syslog")
VOLUME_DRIVERS = ("local",)
BUILD_TIME = "2026-11-23T00:00:00.000000000+00:00"


def version_view(version: str, shoal_version: str, host: HostFacts) -> Json:
    """Return `GET /version`: the Docker version this API answers as, and Shoal's own as a component."""
    architecture = architecture_of(host.architecture)
    details = {
        "ApiVersion": API_VERSION,
        "Arch": architecture,
        "BuildTime": BUILD_TIME,
        "Experimental": "false",
        "GitCommit": "shoal",
        "GoVersion": "none",
        "KernelVersion": host.kernel_version,
        "MinAPIVersion": MIN_API_VERSION,
        "Os": "linux",
    }
    components: list[Json] = [
        {"Name": "Engine", "Version": version, "Details": details},
        {"Name": "Shoal", "Version": shoal_version, "Details": {"Language": "Python"}},
    ]
    if host.runc_version:
        components.append({"Name": "runc", "Version": host.runc_version, "Details": {"GitCommit": ""}})
    return {
        "Platform": {"Name": "Shoal"},
        "Components": components,
        "Version": version,
        "ApiVersion": API_VERSION,
        "MinAPIVersion": MIN_API_VERSION,
        "GitCommit": "shoal",
        "GoVersion": "none",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": host.kernel_version,
        "BuildTime": BUILD_TIME,
    }


def info_view(
    host: HostFacts, description: NodeDescription, version: str, counts: Json, swarm: Json, now_ns: int
) -> Json:
    """Return `GET /info`.

    Args:
        host: facts of machine and daemon.
        description: what the node says of itself.
        version: the Docker version this API answers as.
        counts: containers by state and images, as `Containers`, `ContainersRunning`, ….
        swarm: the section `Swarm`.
        now_ns: the time.
    """
    warnings = [*host.warnings, *swarm.get("Warnings", ())]
    return {
        "ID": host.daemon_id,
        **counts,
        "Driver": host.storage_driver,
        "DriverStatus": [list(pair) for pair in host.storage_status],
        "Plugins": {
            "Volume": list(VOLUME_DRIVERS),
            "Network": list(NETWORK_DRIVERS),
            "Authorization": None,
            "Log": list(LOG_DRIVERS),
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
        "Debug": host.debug,
        "NFd": host.open_files,
        "OomKillDisable": host.cgroup_version == "1",
        "NGoroutines": 0,
        "SystemTime": time_text(now_ns),
        "LoggingDriver": "json-file",
        "CgroupDriver": host.cgroup_driver,
        "CgroupVersion": host.cgroup_version,
        "NEventsListener": host.event_listeners,
        "KernelVersion": host.kernel_version,
        "OperatingSystem": host.operating_system,
        "OSVersion": host.os_version,
        "OSType": "linux",
        "Architecture": host.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registry_view(host),
        "NCPU": host.cpus,
        "MemTotal": host.memory_bytes,
        "GenericResources": _generic_resources(description),
        "DockerRootDir": host.data_root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": host.hostname,
        "Labels": list(host.labels),
        "ExperimentalBuild": False,
        "ServerVersion": version,
        "Runtimes": {"runc": {"path": "runc"}},
        "DefaultRuntime": "runc",
        "Swarm": swarm,
        "LiveRestoreEnabled": False,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": host.runc_version},
        "InitCommit": {"ID": ""},
        "SecurityOptions": list(host.security_options),
        "CDISpecDirs": [],
        "Warnings": warnings or None,
    }


def _registry_view(host: HostFacts) -> Json:
    networks = [registry for registry in host.insecure_registries if "/" in registry]
    names = [registry for registry in host.insecure_registries if "/" not in registry]
    indexes: Json = {"docker.io": {"Name": "docker.io", "Mirrors": [], "Secure": True, "Official": True}}
    for name in names:
        indexes[name] = {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
    return {
        "AllowNondistributableArtifactsCIDRs": None,
        "AllowNondistributableArtifactsHostnames": None,
        "InsecureRegistryCIDRs": networks,
        "IndexConfigs": indexes,
        "Mirrors": None,
    }


def _generic_resources(description: NodeDescription) -> list[Json] | None:
    resources = description.resources.generic_resources
    views: list[Json] = []
    for resource in resources:
        if resource.named_resource_spec is not None:
            views.append({"NamedResourceSpec": resource.named_resource_spec})
        if resource.discrete_resource_spec is not None:
            views.append({"DiscreteResourceSpec": resource.discrete_resource_spec})
    return views or None
