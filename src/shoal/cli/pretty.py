"""`inspect --pretty`: services and nodes in words. Pure: Docker's JSON in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shoal.language.texts import age_text, capitalize, duration_text, go_time_text, size_text
from shoal.lib.units import parse_time_ns

Json = Mapping[str, Any]
NANO = 1_000_000_000
ORDER_COLUMN = 20


def service_lines(service: Json, networks: Mapping[str, str], now_ns: int) -> Iterator[str]:
    """Yield what `service inspect --pretty` shows; `networks` has names by id."""
    spec = service["Spec"]
    template = spec["TaskTemplate"]
    yield ""
    yield f"ID:\t\t{service['ID']}"
    yield f"Name:\t\t{spec['Name']}"
    if spec.get("Labels"):
        yield "Labels:"
        yield from (f" {key}={value}" for key, value in sorted(spec["Labels"].items()))
    yield from _mode_lines(spec.get("Mode") or {})
    yield from _status_lines(service.get("UpdateStatus") or {}, now_ns)
    yield "Placement:"
    placement = template.get("Placement") or {}
    if placement.get("Constraints"):
        yield f" Constraints:\t[{' '.join(placement['Constraints'])}]"
    if placement.get("MaxReplicas"):
        yield f" Max Replicas Per Node:   {placement['MaxReplicas']}"
    for key, title in (("UpdateConfig", "UpdateConfig"), ("RollbackConfig", "RollbackConfig")):
        if spec.get(key):
            yield from _rollout_lines(title, spec[key])
    yield from _container_lines(template.get("ContainerSpec") or {})
    yield from _resource_lines(template.get("Resources") or {})
    if template.get("Networks"):
        names = (networks.get(item["Target"], item["Target"]) for item in template["Networks"])
        yield f"Networks: {' '.join(names)}"
    endpoint = service.get("Endpoint") or {}
    mode = (endpoint.get("Spec") or {}).get("Mode")
    if mode:
        yield f"Endpoint Mode:\t{mode}"
    if endpoint.get("Ports"):
        yield "Ports:"
        for port in endpoint["Ports"]:
            yield f" PublishedPort = {port.get('PublishedPort', 0)}"
            yield f"  Protocol = {port.get('Protocol', 'tcp')}"
            yield f"  TargetPort = {port.get('TargetPort', 0)}"
            yield f"  PublishMode = {port.get('PublishMode', 'ingress')} "
    yield ""


def _mode_lines(mode: Json) -> Iterator[str]:
    for key, title in (
        ("Replicated", "Replicated"),
        ("Global", "Global"),
        ("ReplicatedJob", "ReplicatedJob"),
        ("GlobalJob", "GlobalJob"),
    ):
        if key in mode:
            yield f"Service Mode:\t{title}"
    if "Replicated" in mode:
        yield f" Replicas:\t{mode['Replicated'].get('Replicas', 1)}"
    if "ReplicatedJob" in mode:
        job = mode["ReplicatedJob"]
        yield f" Max Concurrent:\t{job.get('MaxConcurrent', 1)}"
        yield f" Total Completions:\t{job.get('TotalCompletions', 1)}"


def _status_lines(status: Json, now_ns: int) -> Iterator[str]:
    if not status.get("State"):
        return
    yield "UpdateStatus:"
    yield f" State:\t\t{status['State']}"
    for key, title in (("StartedAt", "Started"), ("CompletedAt", "Completed")):
        if status.get(key):
            yield f" {title}:\t{age_text((now_ns - parse_time_ns(status[key])) / NANO)} ago"
    if status.get("Message"):
        yield f" Message:\t{status['Message']}"


def _rollout_lines(title: str, config: Json) -> Iterator[str]:
    yield f"{title}:"
    yield f" Parallelism:\t{config.get('Parallelism', 0)}"
    if config.get("Delay"):
        yield f" Delay:\t\t{duration_text(config['Delay'])}"
    yield f" On failure:\t{config.get('FailureAction') or 'pause'}"
    if config.get("Monitor"):
        yield f" Monitoring Period: {duration_text(config['Monitor'])}"
    yield f" Max failure ratio: {config.get('MaxFailureRatio', 0)}"
    label = f" {title.removesuffix('Config')} order:"
    yield f"{label.ljust(ORDER_COLUMN)}{config.get('Order') or 'stop-first'}"


def _container_lines(container: Json) -> Iterator[str]:
    yield "ContainerSpec:"
    yield f" Image:\t\t{container.get('Image', '')}"
    for key, title in (("Command", "Command"), ("Args", "Args"), ("Env", "Env")):
        if container.get(key):
            text = " ".join(container[key])
            yield f" {title}:\t\t{f'[{text}]' if key == 'Command' else text} "
    if container.get("Dir"):
        yield f" Dir:\t\t{container['Dir']}"
    if container.get("Init") is not None:
        yield f" Init:\t\t{str(container['Init']).lower()}"
    for key, title in (("User", "User"), ("Hostname", "Hostname"), ("StopSignal", "Stop Signal")):
        if container.get(key):
            yield f" {title}: {container[key]}"
    if container.get("Mounts"):
        yield "Mounts:"
        for mount in container["Mounts"]:
            yield f" Target:\t{mount.get('Target', '')}"
            yield f"  Source:\t{mount.get('Source', '')}"
            yield f"  ReadOnly:\t{str(mount.get('ReadOnly', False)).lower()}"
            yield f"  Type:\t\t{mount.get('Type', '')}"


def _resource_lines(resources: Json) -> Iterator[str]:
    yield "Resources:"
    for key in ("Reservations", "Limits"):
        values = resources.get(key) or {}
        if values.get("NanoCPUs") or values.get("MemoryBytes"):
            yield f" {key}:"
        if values.get("NanoCPUs"):
            yield f"  CPU:\t\t{values['NanoCPUs'] / NANO:g}"
        if values.get("MemoryBytes"):
            yield f"  Memory:\t{size_text(values['MemoryBytes'], binary=True, digits=4)}"


def node_lines(node: Json) -> Iterator[str]:
    """Yield what `node inspect --pretty` shows."""
    spec, description, status = node["Spec"], node.get("Description") or {}, node["Status"]
    yield f"ID:\t\t\t{node['ID']}"
    if spec.get("Name"):
        yield f"Name:\t\t\t{spec['Name']}"
    if spec.get("Labels"):
        yield "Labels:"
        yield from (f" - {key}={value}" for key, value in sorted(spec["Labels"].items()))
    yield f"Hostname:              \t{description.get('Hostname', '')}"
    yield f"Joined at:             \t{go_time_text(node['CreatedAt'])}"
    yield "Status:"
    yield f" State:\t\t\t{capitalize(status['State'])}"
    if status.get("Message"):
        yield f" Message:\t\t{status['Message']}"
    yield f" Availability:         \t{capitalize(spec.get('Availability', ''))}"
    if status.get("Addr"):
        yield f" Address:\t\t{status['Addr']}"
    manager = node.get("ManagerStatus")
    if manager:
        yield "Manager Status:"
        yield f" Address:\t\t{manager.get('Addr', '')}"
        yield f" Raft Status:\t\t{capitalize(manager.get('Reachability', ''))}"
        yield f" Leader:\t\t{'Yes' if manager.get('Leader') else 'No'}"
    platform, resources = description.get("Platform") or {}, description.get("Resources") or {}
    yield "Platform:"
    yield f" Operating System:\t{platform.get('OS', '')}"
    yield f" Architecture:\t\t{platform.get('Architecture', '')}"
    yield "Resources:"
    yield f" CPUs:\t\t\t{resources.get('NanoCPUs', 0) // NANO}"
    yield f" Memory:\t\t{size_text(resources.get('MemoryBytes', 0), binary=True, digits=4)}"
    engine = description.get("Engine") or {}
    plugins: dict[str, list[str]] = {}
    for plugin in engine.get("Plugins") or ():
        plugins.setdefault(plugin["Type"], []).append(plugin["Name"])
    if plugins:
        yield "Plugins:"
        yield from (f" {kind}:\t\t{', '.join(sorted(plugins[kind]))}" for kind in sorted(plugins))
    yield f"Engine Version:\t\t{engine.get('EngineVersion', '')}"
    if engine.get("Labels"):
        yield "Engine Labels:"
        yield from (f" - {key}={value}" for key, value in sorted(engine["Labels"].items()))
    trust = description.get("TLSInfo") or {}
    if trust:
        yield "TLS Info:"
        yield f" TrustRoot:\n{trust.get('TrustRoot', '')}"
        yield f" Issuer Subject:\t{trust.get('CertIssuerSubject', '')}"
        yield f" Issuer Public Key:\t{trust.get('CertIssuerPublicKey', '')}"
