"""From flags to Docker's service spec, as JSON: making one and changing one. Pure.

Flags come as click names them (`limit_cpu`); None and the empty tuple mean not given, and nothing is sent for them. A
spec that is changed keeps every field it has, also those this version does not know.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal.cli.service_labels import set_labels
from shoal.errors import InvalidArgument
from shoal.language.ports import is_same_port
from shoal.language.values import parse_environment

Json = dict[str, Any]
Flags = Mapping[str, Any]

SECOND_NS = 1_000_000_000
DEFAULT_ROLLOUT: Json = {
    "Parallelism": 1,
    "Delay": 0,
    "FailureAction": "pause",
    "Monitor": 5 * SECOND_NS,
    "MaxFailureRatio": 0,
    "Order": "stop-first",
}
DEFAULT_RESTART: Json = {"Condition": "any", "Delay": 5 * SECOND_NS}

# flag → the path of the field it sets
_SCALARS: dict[str, tuple[str, ...]] = {
    "hostname": ("TaskTemplate", "ContainerSpec", "Hostname"),
    "user": ("TaskTemplate", "ContainerSpec", "User"),
    "workdir": ("TaskTemplate", "ContainerSpec", "Dir"),
    "isolation": ("TaskTemplate", "ContainerSpec", "Isolation"),
    "credential_spec": ("TaskTemplate", "ContainerSpec", "Privileges", "CredentialSpec"),
    "init": ("TaskTemplate", "ContainerSpec", "Init"),
    "tty": ("TaskTemplate", "ContainerSpec", "TTY"),
    "read_only": ("TaskTemplate", "ContainerSpec", "ReadOnly"),
    "stop_signal": ("TaskTemplate", "ContainerSpec", "StopSignal"),
    "stop_grace_period": ("TaskTemplate", "ContainerSpec", "StopGracePeriod"),
    "oom_score_adj": ("TaskTemplate", "ContainerSpec", "OomScoreAdj"),
    "limit_cpu": ("TaskTemplate", "Resources", "Limits", "NanoCPUs"),
    "limit_memory": ("TaskTemplate", "Resources", "Limits", "MemoryBytes"),
    "limit_pids": ("TaskTemplate", "Resources", "Limits", "Pids"),
    "reserve_cpu": ("TaskTemplate", "Resources", "Reservations", "NanoCPUs"),
    "reserve_memory": ("TaskTemplate", "Resources", "Reservations", "MemoryBytes"),
    "replicas_max_per_node": ("TaskTemplate", "Placement", "MaxReplicas"),
    "endpoint_mode": ("EndpointSpec", "Mode"),
}
# flag of `create` → the path of the list it sets
_LISTS: dict[str, tuple[str, ...]] = {
    "group": ("TaskTemplate", "ContainerSpec", "Groups"),
    "mount": ("TaskTemplate", "ContainerSpec", "Mounts"),
    "ulimit": ("TaskTemplate", "ContainerSpec", "Ulimits"),
    "dns": ("TaskTemplate", "ContainerSpec", "DNSConfig", "Nameservers"),
    "dns_search": ("TaskTemplate", "ContainerSpec", "DNSConfig", "Search"),
    "dns_option": ("TaskTemplate", "ContainerSpec", "DNSConfig", "Options"),
    "constraint": ("TaskTemplate", "Placement", "Constraints"),
    "placement_pref": ("TaskTemplate", "Placement", "Preferences"),
    "generic_resource": ("TaskTemplate", "Resources", "Reservations", "GenericResources"),
}
_RESTART = {"condition": "Condition", "delay": "Delay", "max_attempts": "MaxAttempts", "window": "Window"}
_ROLLOUT = {
    "parallelism": "Parallelism",
    "delay": "Delay",
    "failure_action": "FailureAction",
    "monitor": "Monitor",
    "max_failure_ratio": "MaxFailureRatio",
    "order": "Order",
}
_HEALTH = {
    "health_interval": "Interval",
    "health_timeout": "Timeout",
    "health_retries": "Retries",
    "health_start_period": "StartPeriod",
    "health_start_interval": "StartInterval",
}


def is_given(value: Any) -> bool:
    """Whether a flag was on the command line."""
    return value is not None and value != ()


def section(spec: Json, *path: str) -> Json:
    """Return the object at a path, made where it is missing or null."""
    for name in path:
        if spec.get(name) is None:
            spec[name] = {}
        spec = spec[name]
    return spec


def familiar_image(image: str) -> str:
    """Write an image's name as Docker sends it: the default registry left out, the default tag written out."""
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/library/"):
        if image.startswith(prefix):
            image = image.removeprefix(prefix)
            break
    return image if "@" in image or ":" in image.rpartition("/")[2] or not image else f"{image}:latest"


def make_spec(given: Flags, image: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Json:
    """Return the spec of a new service.

    Args:
        given: the flags of `service create`.
        image: what the containers run.
        arguments: the command's, sent as Args.
        environment: gives `--env NAME` its value.

    Raises:
        InvalidArgument: flags that do not go together, or a bad value.
    """
    spec: Json = {"Name": given.get("name") or "", "Labels": set_labels(dict(given.get("label") or ()), given)}
    container = section(spec, "TaskTemplate", "ContainerSpec")
    container["Image"] = familiar_image(image)
    if arguments:
        container["Args"] = list(arguments)
    _set_alike(spec, given)
    if given.get("container_label"):
        container["Labels"] = dict(given["container_label"])
    if given.get("env"):
        container["Env"] = _environment((), given["env"], environment)
    if given.get("host"):
        container["Hosts"] = [_host_line(text) for text in given["host"]]
    if given.get("sysctl"):
        container["Sysctls"] = dict(given["sysctl"])
    for name, path in _LISTS.items():
        if given.get(name):
            section(spec, *path[:-1])[path[-1]] = list(given[name])
    if given.get("network"):
        spec["TaskTemplate"]["Networks"] = list(given["network"])
    if given.get("publish"):
        section(spec, "EndpointSpec")["Ports"] = [port for ports in given["publish"] for port in ports]
    spec["Mode"] = _mode(given)
    return spec


def _mode(given: Flags) -> Json:
    mode = given.get("mode") or "replicated"
    if mode not in ("replicated", "replicated-job"):
        for name in ("replicas", "replicas_max_per_node", "max_concurrent"):
            if is_given(given.get(name)):
                raise InvalidArgument(
                    f"{name.replace('_', '-')} can only be used with replicated or replicated-job mode"
                )
    if is_given(given.get("max_concurrent")) and mode != "replicated-job":
        raise InvalidArgument("max-concurrent can only be used with replicated-job mode")
    if mode.endswith("-job"):
        for kind in ("update", "rollback"):
            if any(is_given(given.get(f"{kind}_{name}")) for name in _ROLLOUT):
                raise InvalidArgument(f"{kind} config is not supported for jobs")
    replicas = given.get("replicas")
    if mode == "global":
        return {"Global": {}}
    if mode == "global-job":
        return {"GlobalJob": {}}
    if mode == "replicated":
        return {"Replicated": {} if replicas is None else {"Replicas": replicas}}
    concurrent = given.get("max_concurrent") if is_given(given.get("max_concurrent")) else replicas
    job = {"MaxConcurrent": concurrent, "TotalCompletions": replicas}
    return {"ReplicatedJob": {key: value for key, value in job.items() if value is not None}}


def _set_alike(spec: Json, given: Flags) -> None:
    """Set what both commands set in the same way."""
    for name, path in _SCALARS.items():
        if is_given(given.get(name)):
            section(spec, *path[:-1])[path[-1]] = given[name]
    container = section(spec, "TaskTemplate", "ContainerSpec")
    # an empty tuple is a value here: `--entrypoint ""` takes the image's
    if given.get("entrypoint") is not None:
        container["Command"] = list(given["entrypoint"])
    restart = {
        field: given[f"restart_{name}"] for name, field in _RESTART.items() if is_given(given.get(f"restart_{name}"))
    }
    if restart:
        policy = spec["TaskTemplate"].get("RestartPolicy") or DEFAULT_RESTART
        spec["TaskTemplate"]["RestartPolicy"] = {**policy, **restart}
    for kind, key in (("update", "UpdateConfig"), ("rollback", "RollbackConfig")):
        config = {
            field: given[f"{kind}_{name}"] for name, field in _ROLLOUT.items() if is_given(given.get(f"{kind}_{name}"))
        }
        if config:
            spec[key] = {**(spec.get(key) or DEFAULT_ROLLOUT), **config}
    if given.get("log_driver"):
        spec["TaskTemplate"]["LogDriver"] = {"Name": given["log_driver"], "Options": dict(given.get("log_opt") or ())}
    _set_health(container, given)
    _set_capabilities(container, given)


def _set_health(container: Json, given: Flags) -> None:
    timings = {field: given[name] for name, field in _HEALTH.items() if is_given(given.get(name))}
    command = given.get("health_cmd")
    if given.get("no_healthcheck"):
        if timings or command is not None:
            raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
        container["Healthcheck"] = {"Test": ["NONE"]}
        return
    if not timings and command is None:
        return
    check = {**(container.get("Healthcheck") or {}), **timings}
    if check.get("Test") == ["NONE"]:
        del check["Test"]
    if command is not None:
        check["Test"] = ["CMD-SHELL", command] if command else []
    container["Healthcheck"] = check


def _set_capabilities(container: Json, given: Flags) -> None:
    """Add and drop: adding takes back an earlier drop and the other way round."""
    added = [_capability(name) for name in given.get("cap_add") or ()]
    dropped = [_capability(name) for name in given.get("cap_drop") or ()]
    for field, new, other in (("CapabilityAdd", added, dropped), ("CapabilityDrop", dropped, added)):
        if new or other:
            kept = [name for name in container.get(field) or () if name not in other]
            container[field] = sorted({*kept, *(name for name in new if name not in other or field == "CapabilityAdd")})
            if not container[field]:
                del container[field]


def _capability(name: str) -> str:
    upper = name.strip().upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def _host_line(text: str) -> str:
    """Turn Docker's `host:ip` into a line of /etc/hosts."""
    host, found, address = text.partition(":")
    if not found or not host or not address:
        raise InvalidArgument(f'bad format for --host "{text}": write host:ip')
    return f"{address} {host}"


def _environment(existing: Sequence[str], added: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    values = {line.partition("=")[0]: line for line in existing}
    for text in added:
        try:
            line = parse_environment(text, dict(environment))
        except ValueError as error:
            raise InvalidArgument(f"--env: {error}") from None
        values[line.partition("=")[0]] = line
    return list(values.values())


def change_spec(spec: Json, given: Flags, environment: Mapping[str, str]) -> Json:
    """Return a spec with what the flags of `service update` change.

    Raises:
        InvalidArgument: a flag that does not fit this service, or a bad value.
    """
    spec = copy.deepcopy(spec)
    container = section(spec, "TaskTemplate", "ContainerSpec")
    _set_alike(spec, given)
    if given.get("args") is not None:
        container["Args"] = list(given["args"])
    if given.get("image"):
        container["Image"] = familiar_image(given["image"])
    if given.get("force"):
        spec["TaskTemplate"]["ForceUpdate"] = spec["TaskTemplate"].get("ForceUpdate", 0) + 1
    _change_mode(spec, given)
    _change_maps(spec, given)
    labels = spec.get("Labels") or {}
    if (changed := set_labels(labels, given)) != labels:
        spec["Labels"] = changed
    if given.get("env_add") or given.get("env_rm"):
        lines = _environment(container.get("Env") or (), given.get("env_add") or (), environment)
        removed = set(given.get("env_rm") or ())
        container["Env"] = [line for line in lines if line.partition("=")[0] not in removed]
    _change_keyed(container, "Mounts", given, "mount", lambda mount: mount.get("Target"))
    _change_keyed(container, "Ulimits", given, "ulimit", lambda limit: limit.get("Name"))
    _change_words(container, "Groups", given, "group")
    for name, field in (("dns", "Nameservers"), ("dns_search", "Search"), ("dns_option", "Options")):
        if given.get(f"{name}_add") or given.get(f"{name}_rm"):
            _change_words(section(container, "DNSConfig"), field, given, name)
    _change_hosts(container, given)
    for name, field in (("constraint", "Constraints"), ("placement_pref", "Preferences")):
        if given.get(f"{name}_add") or given.get(f"{name}_rm"):
            _change_words(section(spec, "TaskTemplate", "Placement"), field, given, name)
    _change_generic_resources(spec, given)
    _change_ports(spec, given)
    return spec


def _change_mode(spec: Json, given: Flags) -> None:
    mode = spec.get("Mode") or {}
    if is_given(given.get("replicas")):
        if "Replicated" not in mode:
            raise InvalidArgument("replicas can only be used with replicated mode")
        mode["Replicated"]["Replicas"] = given["replicas"]
    if is_given(given.get("max_concurrent")):
        if "ReplicatedJob" not in mode:
            raise InvalidArgument("max-concurrent can only be used with replicated-job mode")
        mode["ReplicatedJob"]["MaxConcurrent"] = given["max_concurrent"]


def _change_maps(spec: Json, given: Flags) -> None:
    container = spec["TaskTemplate"]["ContainerSpec"]
    for name, owner, field in (
        ("label", spec, "Labels"),
        ("container_label", container, "Labels"),
        ("sysctl", container, "Sysctls"),
    ):
        added, removed = given.get(f"{name}_add") or (), given.get(f"{name}_rm") or ()
        if added or removed:
            merged = {**(owner.get(field) or {}), **dict(added)}
            owner[field] = {key: value for key, value in merged.items() if key not in removed}


def _change_words(owner: Json, field: str, given: Flags, name: str) -> None:
    added, removed = given.get(f"{name}_add") or (), given.get(f"{name}_rm") or ()
    if added or removed:
        kept = [item for item in owner.get(field) or () if item not in removed]
        owner[field] = [*kept, *(item for item in added if item not in kept)]


def _change_keyed(owner: Json, field: str, given: Flags, name: str, key_of: Callable[[Json], Any]) -> None:
    added, removed = given.get(f"{name}_add") or (), given.get(f"{name}_rm") or ()
    if added or removed:
        items = {key_of(item): item for item in (*(owner.get(field) or ()), *added)}
        owner[field] = [item for key, item in items.items() if key not in removed]


def _change_hosts(container: Json, given: Flags) -> None:
    added, removed = given.get("host_add") or (), given.get("host_rm") or ()
    if not added and not removed:
        return
    lines = list(container.get("Hosts") or ())
    for text in removed:
        host, _, address = text.partition(":")
        lines = [line for line in lines if not (host in line.split()[1:] and address in ("", line.split()[0]))]
    lines += [line for line in map(_host_line, added) if line not in lines]
    container["Hosts"] = lines


def _kind_of(resource: Json) -> str:
    found = resource.get("DiscreteResourceSpec") or resource.get("NamedResourceSpec") or {}
    return str(found.get("Kind", ""))


def _change_generic_resources(spec: Json, given: Flags) -> None:
    added, removed = given.get("generic_resource_add") or (), given.get("generic_resource_rm") or ()
    if not added and not removed:
        return
    reservations = section(spec, "TaskTemplate", "Resources", "Reservations")
    resources = {_kind_of(item): item for item in reservations.get("GenericResources") or ()}
    for kind in removed:
        if kind not in resources:
            raise InvalidArgument(f"could not find generic-resource `{kind}` to remove it")
        del resources[kind]
    resources |= {_kind_of(item): item for item in added}
    reservations["GenericResources"] = list(resources.values())


def _change_ports(spec: Json, given: Flags) -> None:
    added, removed = given.get("publish_add") or (), given.get("publish_rm") or ()
    if not added and not removed:
        return
    endpoint = section(spec, "EndpointSpec")
    ports = [port for port in endpoint.get("Ports") or () if not any(is_same_port(port, match) for match in removed)]
    ports += [port for group in added for port in group if port not in ports]
    endpoint["Ports"] = ports
