"""What this machine is: read from the kernel and the system's files, for `docker info` and the node's description."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from pathlib import Path

from shoal.core.networks import NETWORK_DRIVERS
from shoal.daemon.settings import Settings
from shoal.model.base import Struct
from shoal.model.objects import NodeDescription, Plugin
from shoal.model.specs import GenericResource, Platform, Resources

DOCKER_VERSION = "28.2.2"
LOG_DRIVERS = ("journald", "json-file", "local", "none", "syslog")
VOLUME_DRIVERS = ("local",)


class Machine(Struct):
    """Facts that do not change while a daemon runs."""

    hostname: str
    architecture: str
    kernel_version: str
    operating_system: str
    os_version: str
    cpus: int
    memory_bytes: int
    cgroup_version: str
    runc_version: str = ""


def survey_machine() -> Machine:
    """Read the facts of this machine."""
    release = _os_release()
    return Machine(
        hostname=socket.gethostname(),
        architecture=platform.machine(),
        kernel_version=platform.release(),
        operating_system=release.get("PRETTY_NAME", "Linux"),
        os_version=release.get("VERSION_ID", ""),
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version="2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "1",
        runc_version=_runc_version(),
    )


def _runc_version() -> str:
    try:
        done = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    first, _, _ = done.stdout.partition("\n")
    return first.removeprefix("runc version ")


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key: value.strip('"') for key, _, value in pairs}


def describe_node(
    machine: Machine, settings: Settings, trust: NodeDescription | None = None, wireguard_key: str = ""
) -> NodeDescription:
    """Return what this node says of itself; `trust` brings the certificates' part."""
    labels = dict(label.partition("=")[::2] for label in settings.labels)
    plugins = (
        *(Plugin(type="Log", name=name) for name in LOG_DRIVERS),
        *(Plugin(type="Network", name=name) for name in NETWORK_DRIVERS),
        *(Plugin(type="Volume", name=name) for name in VOLUME_DRIVERS),
    )
    return NodeDescription(
        hostname=machine.hostname,
        platform=Platform(architecture=machine.architecture, os="linux"),
        resources=Resources(
            nano_cpus=machine.cpus * 1_000_000_000,
            memory_bytes=machine.memory_bytes,
            generic_resources=parse_generic_resources(settings.generic_resources),
        ),
        engine_version=DOCKER_VERSION,
        engine_labels=labels,
        wireguard_key=wireguard_key,
        wireguard_port=settings.wireguard_port,
        plugins=plugins,
        trust_root=trust.trust_root if trust else "",
        certificate_issuer_subject=trust.certificate_issuer_subject if trust else b"",
        certificate_issuer_public_key=trust.certificate_issuer_public_key if trust else b"",
    )


def parse_generic_resources(values: tuple[str, ...]) -> tuple[GenericResource, ...]:
    """Read `KIND=5` as so many, `KIND=name` as a named one (docker-swarm.md 4.7)."""
    resources = []
    for value in values:
        kind, _, amount = value.partition("=")
        if amount.isdecimal():
            resources.append(GenericResource(discrete_resource_spec={"Kind": kind, "Value": int(amount)}))
        else:
            resources.append(GenericResource(named_resource_spec={"Kind": kind, "Value": amount}))
    return tuple(resources)
