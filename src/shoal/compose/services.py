"""A service of a Compose file as the body of `POST /services/create`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shoal.compose.cursor import Cursor
from shoal.compose.deploy import DEPLOY_KEYS, convert_deploy, restart_of
from shoal.compose.interpolation import Variables, parse_env_file
from shoal.compose.labels import IMAGE_LABEL, NAMESPACE_LABEL
from shoal.compose.mounts import convert_mounts
from shoal.compose.project import ReadFile
from shoal.errors import NotFound
from shoal.language.ports import parse_ports
from shoal.language.values import parse_command, parse_positive_duration

# its tasks wait for others (docs/reference/extensions.md)
DEPENDS_ON = "shoal.depends-on"
Json = dict[str, Any]

CONVERTED = frozenset(
    {
        "image", "command", "entrypoint", "environment", "env_file", "labels", "hostname", "working_dir", "user",
        "group_add", "tty", "stdin_open", "read_only", "init", "isolation", "stop_signal", "stop_grace_period", "dns",
        "dns_search", "dns_opt", "extra_hosts", "healthcheck", "logging", "networks", "network_mode", "ports",
        "volumes", "tmpfs", "secrets", "configs", "cap_add", "cap_drop", "sysctls", "ulimits", "oom_score_adj",
        "security_opt", "deploy", "depends_on", "restart", "scale", "platform", "mem_limit", "mem_reservation", "cpus",
        "pids_limit", "profiles", "extends", "privileged", "devices", "shm_size", "pid", "ipc",
    }
)  # fmt: skip
# what means nothing here, and is no loss
SILENT = frozenset({"expose", "attach", "pull_policy", "annotations", "develop"})
# what a task of a swarm cannot have
IGNORED = frozenset(
    {
        "build", "cgroup", "cgroup_parent", "cgroupns_mode", "container_name", "credential_spec",
        "device_cgroup_rules", "domainname", "external_links", "gpus", "links", "mac_address",
        "runtime", "storage_opt", "userns_mode", "uts", "volumes_from", "volume_driver",
        "blkio_config", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime",
        "cpu_shares", "cpuset", "mem_swappiness", "memswap_limit", "oom_kill_disable", "post_start", "pre_stop",
        "label_file", "models", "provider", "use_api_socket", "gw_priority",
    }
)  # fmt: skip
KEYS = CONVERTED | SILENT | IGNORED
_CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


class Conversion:
    """What converting services of one stack needs, and what it finds: warnings, dependencies, networks in use.

    `networks`, `secrets` and `configs` are full names by the names in the file; `volumes` have the options of their
    mounts besides. `directory` is absolute, `project_directory` what files of the project are read relative to.
    """

    def __init__(
        self,
        *,
        stack: str,
        directory: str,
        project_directory: str,
        networks: Mapping[str, str],
        volumes: Mapping[str, tuple[str, Json | None]],
        secrets: Mapping[str, str],
        configs: Mapping[str, str],
        services: frozenset[str],
        environment: Mapping[str, str],
        read: ReadFile,
        warnings: list[str],
    ) -> None:
        self.stack = stack
        self.directory = directory
        self.project_directory = project_directory
        self.networks = networks
        self.volumes = volumes
        self.payloads = {"secret": secrets, "config": configs}
        self.services = services
        self.environment = environment
        self.read = read
        self.warnings = warnings
        self.dependencies: dict[str, tuple[str, ...]] = {}
        self.networks_used: set[str] = set()

    def warn(self, text: str) -> None:
        """Say something once."""
        if text not in self.warnings:
            self.warnings.append(text)


def convert_service(conversion: Conversion, name: str, cursor: Cursor) -> Json:
    """Return the spec of a service. Raises InvalidArgument, NotFound (a file)."""
    fields = {key: field for key, field in cursor.fields(KEYS).items() if field.value is not None}
    for key in sorted(IGNORED & set(fields)):
        conversion.warn(f"{fields[key].where}: {key} is ignored: a task of a swarm cannot have it")
    if "image" not in fields:
        raise cursor.refusal("image is missing: a swarm builds nothing, name an image")
    image = fields["image"].text()
    deploy = fields["deploy"].fields(DEPLOY_KEYS) if "deploy" in fields else {}
    spec: Json = {"Name": f"{conversion.stack}_{name}"}
    own = deploy["labels"].pairs() if "labels" in deploy else {}
    spec["Labels"] = {key: value or "" for key, value in own.items()}
    spec["Labels"] |= {IMAGE_LABEL: image, NAMESPACE_LABEL: conversion.stack}
    template: Json = {"ContainerSpec": _container(conversion, fields, image)}
    spec["TaskTemplate"] = template
    networks = _networks(conversion, name, fields)
    if networks:
        template["Networks"] = networks
    if "logging" in fields:
        logging = fields["logging"].fields(frozenset({"driver", "options"}))
        options = logging["options"].pairs() if "options" in logging else {}
        template["LogDriver"] = {"Name": logging["driver"].text() if "driver" in logging else "", "Options": options}
    if "restart" in fields and "restart_policy" not in deploy:
        policy = restart_of(fields["restart"])
        if policy is not None:
            template["RestartPolicy"] = policy
    spec["EndpointSpec"] = {}
    convert_deploy(spec, deploy, fields)
    if "ports" in fields:
        spec["EndpointSpec"]["Ports"] = _ports(conversion, fields["ports"])
    spec["Labels"] |= _privilege_labels(conversion, fields)
    conversion.dependencies[name] = _dependencies(conversion, fields, spec)
    return spec


_TEXTS = {
    "hostname": "Hostname", "working_dir": "Dir", "user": "User", "stop_signal": "StopSignal", "isolation": "Isolation",
}  # fmt: skip
_SWITCHES = {"tty": "TTY", "stdin_open": "OpenStdin", "read_only": "ReadOnly", "init": "Init"}
_LISTS = {"cap_add": "CapabilityAdd", "cap_drop": "CapabilityDrop", "group_add": "Groups"}
_DNS = {"dns": "Nameservers", "dns_search": "Search", "dns_opt": "Options"}


def _container(conversion: Conversion, fields: Mapping[str, Cursor], image: str) -> Json:
    labels = {key: value or "" for key, value in fields["labels"].pairs().items()} if "labels" in fields else {}
    # an empty object is not the same as none: the docker command sends one, and tasks would be replaced
    privileges: Json = {"CredentialSpec": None, "SELinuxContext": None, "NoNewPrivileges": False}
    container: Json = {
        "Image": image,
        "Labels": labels | {NAMESPACE_LABEL: conversion.stack},
        "Privileges": privileges,
    }
    readers: dict[str, tuple[str, Callable[[Cursor], Any]]] = {
        **{key: (field, Cursor.text) for key, field in _TEXTS.items()},
        **{key: (field, Cursor.boolean) for key, field in _SWITCHES.items()},
        **{key: (field, Cursor.texts) for key, field in _LISTS.items()},
        "entrypoint": ("Command", _words),
        "command": ("Args", _words),
        "stop_grace_period": ("StopGracePeriod", lambda cursor: cursor.parsed(parse_positive_duration)),
        "extra_hosts": ("Hosts", _hosts),
        "sysctls": ("Sysctls", lambda cursor: {key: value or "" for key, value in cursor.pairs().items()}),
        "ulimits": ("Ulimits", lambda cursor: [_ulimit(key, each) for key, each in sorted(cursor.fields().items())]),
        "oom_score_adj": ("OomScoreAdj", Cursor.integer),
        "healthcheck": ("Healthcheck", _healthcheck),
        "secrets": ("Secrets", lambda cursor: _references(conversion, "secret", cursor)),
        "configs": ("Configs", lambda cursor: _references(conversion, "config", cursor)),
    }
    for key, (field, read) in readers.items():
        if key in fields:
            container[field] = read(fields[key])
    environment = _environment(conversion, fields)
    if environment:
        container["Env"] = environment
    dns = {field: fields[key].texts() for key, field in _DNS.items() if key in fields}
    if dns:
        container["DNSConfig"] = dns
    if "security_opt" in fields:
        _privileges(conversion, container, fields["security_opt"])
    mounts = convert_mounts(
        fields, conversion.directory, conversion.environment.get("HOME", ""), conversion.volumes, conversion.warn
    )
    if mounts:
        container["Mounts"] = mounts
    return container


def _privilege_labels(conversion: Conversion, fields: Mapping[str, Cursor]) -> dict[str, str]:
    """Return the labels that stand for what Docker's services have not; the swarm may refuse them."""
    labels = {}
    if "privileged" in fields and fields["privileged"].boolean():
        labels["shoal.privileged"] = "true"
    if "devices" in fields:
        labels["shoal.devices"] = ",".join(fields["devices"].texts())
    if "shm_size" in fields:
        labels["shoal.shm-size"] = fields["shm_size"].text()
    for key in ("pid", "ipc"):
        mode = fields[key].text() if key in fields else "private"
        if mode == "host":
            labels[f"shoal.{key}-mode"] = mode
        elif mode != "private":
            conversion.warn(f"{fields[key].where}: {key} is ignored: of a swarm's task it is private, or host")
    return labels


def _words(cursor: Cursor) -> list[str]:
    """Return a command: a list, or a text split as a shell does."""
    return cursor.texts() if cursor.is_sequence else list(cursor.parsed(parse_command))


def _environment(conversion: Conversion, fields: Mapping[str, Cursor]) -> list[str]:
    values: dict[str, str | None] = {}
    if "env_file" in fields:
        files = fields["env_file"]
        for entry in files.elements() if files.is_sequence else [files]:
            values |= _env_file(conversion, entry)
    if "environment" in fields:
        values |= fields["environment"].pairs()
    lines = []
    for name, value in values.items():
        known = conversion.environment.get(name) if value is None else value
        lines.append(name if known is None else f"{name}={known}")
    return sorted(lines)


def _env_file(conversion: Conversion, entry: Cursor) -> dict[str, str | None]:
    is_required, is_raw, path = True, False, entry
    if entry.is_mapping:
        fields = entry.fields(frozenset({"path", "required", "format"}))
        if "path" not in fields:
            raise entry.refusal("path is missing")
        path = fields["path"]
        is_required = fields["required"].boolean() if "required" in fields else True
        is_raw = "format" in fields and fields["format"].text() == "raw"
    name = path.text()
    directory = conversion.project_directory
    whole = name if name.startswith("/") or not directory else f"{directory}/{name}"
    try:
        text = conversion.read(whole)
    except NotFound as error:
        if is_required:
            raise path.refusal(error.message) from None
        return {}
    return parse_env_file(text, whole, None if is_raw else Variables(conversion.environment))


def _hosts(cursor: Cursor) -> list[str]:
    """Return lines of /etc/hosts from `host:address`, `host=address` or a mapping."""
    lines = []
    if cursor.is_mapping:
        for host, each in cursor.fields().items():
            lines += [f"{address.strip('[]')} {host}" for address in each.texts()]
        return lines
    for each in cursor.elements():
        text = each.text()
        sign = "=" if "=" in text else ":"
        host, found, address = text.partition(sign)
        if not found or not host or not address:
            raise each.refusal(f'"{text}": write host:address')
        lines.append(f"{address.strip('[]')} {host}")
    return lines


def _ulimit(name: str, cursor: Cursor) -> Json:
    if not cursor.is_mapping:
        limit = cursor.integer()
        return {"Name": name, "Soft": limit, "Hard": limit}
    fields = cursor.fields(frozenset({"soft", "hard"}))
    if set(fields) != {"soft", "hard"}:
        raise cursor.refusal("soft and hard are both needed")
    return {"Name": name, "Soft": fields["soft"].integer(), "Hard": fields["hard"].integer()}


def _healthcheck(cursor: Cursor) -> Json:
    fields = cursor.fields(
        frozenset({"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"})
    )
    if "disable" in fields and fields["disable"].boolean():
        if "test" in fields:
            raise fields["disable"].refusal("test and disable cannot be set both")
        return {"Test": ["NONE"]}
    check: Json = {}
    if "test" in fields:
        test = fields["test"]
        words = test.texts() if test.is_sequence else ["CMD-SHELL", test.text()]
        if words and words[0] not in {"NONE", "CMD", "CMD-SHELL"}:
            raise test.refusal("a list must begin with NONE, CMD or CMD-SHELL")
        check["Test"] = words
    for key, field in (
        ("interval", "Interval"), ("timeout", "Timeout"), ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ):  # fmt: skip
        if key in fields:
            check[field] = fields[key].parsed(parse_positive_duration)
    if "retries" in fields:
        check["Retries"] = fields["retries"].integer()
    return check


def _privileges(conversion: Conversion, container: Json, cursor: Cursor) -> None:
    for each in cursor.elements():
        key, _, value = each.text().replace("=", ":", 1).partition(":")
        if key == "no-new-privileges" and value in {"", "true", "false"}:
            container["Privileges"]["NoNewPrivileges"] = value != "false"
        elif key == "seccomp" and value == "unconfined":
            container["Privileges"]["Seccomp"] = {"Mode": "unconfined"}
        elif key == "apparmor" and value == "unconfined":
            container["Privileges"]["AppArmor"] = {"Mode": "disabled"}
        else:
            conversion.warn(f"{each.where}: {each.text()} is ignored: a task of a swarm cannot have it")


def _references(conversion: Conversion, kind: str, cursor: Cursor) -> list[Json]:
    names, references = conversion.payloads[kind], []
    for each in cursor.elements():
        fields = (
            each.fields(frozenset({"source", "target", "uid", "gid", "mode"})) if each.is_mapping else {"source": each}
        )
        if "source" not in fields:
            raise each.refusal("source is missing")
        source = fields["source"].text()
        if source not in names:
            raise fields["source"].refusal(f"undefined {kind} {source}: define it under {kind}s")
        file = {
            "Name": fields["target"].text() if "target" in fields else source,
            "UID": fields["uid"].text() if "uid" in fields else "0",
            "GID": fields["gid"].text() if "gid" in fields else "0",
            "Mode": fields["mode"].integer() if "mode" in fields else 0o444,
        }
        references.append({f"{kind.capitalize()}Name": names[source], "File": file})
    return references


def _networks(conversion: Conversion, name: str, fields: Mapping[str, Cursor]) -> list[Json]:
    mode = fields.get("network_mode")
    if mode is not None:
        if "networks" in fields:
            raise mode.refusal("network_mode and networks cannot be set both")
        if mode.text() in {"host", "none", "bridge"}:
            return [{"Target": mode.text()}]
        conversion.warn(f"{mode.where}: network_mode {mode.text()} is ignored: a task of a swarm cannot have it")
    wanted = fields["networks"].fields() if "networks" in fields else {}
    if not wanted:
        conversion.networks_used.add("default")
        return [{"Target": conversion.networks.get("default", f"{conversion.stack}_default"), "Aliases": [name]}]
    found = []
    known = frozenset(
        {"aliases", "driver_opts", "ipv4_address", "ipv6_address", "link_local_ips", "mac_address", "priority"}
        | {"gw_priority", "interface_name"}
    )
    for key, cursor in wanted.items():
        if key not in conversion.networks and key != "default":
            raise cursor.refusal(f"undefined network {key}: define it under networks")
        conversion.networks_used.add(key)
        options = cursor.fields(known)
        for unusable in sorted(set(options) - {"aliases", "driver_opts"}):
            conversion.warn(f"{options[unusable].where}: {unusable} is ignored: tasks have addresses of their own")
        aliases = options["aliases"].texts() if "aliases" in options else []
        network: Json = {
            "Target": conversion.networks.get(key, f"{conversion.stack}_{key}"),
            "Aliases": [*aliases, name],
        }
        if "driver_opts" in options:
            network["DriverOpts"] = {one: value or "" for one, value in options["driver_opts"].pairs().items()}
        found.append(network)
    return sorted(found, key=lambda each: str(each["Target"]))


def _ports(conversion: Conversion, cursor: Cursor) -> list[Json]:
    ports: list[Json] = []
    for each in cursor.elements():
        ports += [_long_port(conversion, each)] if each.is_mapping else _short_ports(conversion, each)
    return ports


def _short_ports(conversion: Conversion, cursor: Cursor) -> list[Json]:
    text = cursor.text()
    host, colon, rest = text.rpartition("]:") if text.startswith("[") else ("", "", "")
    if not colon and text.count(":") == 2:
        host, _, rest = text.partition(":")
    if host:
        conversion.warn(f"{cursor.where}: the address in {text} is ignored: a port is published on every address")
        text = rest.lstrip(":")
    return list(cursor.parsed(lambda _: parse_ports(text)))


def _long_port(conversion: Conversion, cursor: Cursor) -> Json:
    fields = cursor.fields(frozenset({"target", "published", "protocol", "mode", "host_ip", "name", "app_protocol"}))
    if "target" not in fields:
        raise cursor.refusal("target is missing")
    if "host_ip" in fields:
        conversion.warn(f"{fields['host_ip'].where}: it is ignored: a port is published on every address")
    port: Json = {
        "Protocol": fields["protocol"].text() if "protocol" in fields else "tcp",
        "PublishMode": fields["mode"].text() if "mode" in fields else "ingress",
        "TargetPort": fields["target"].integer(),
    }
    if "published" in fields and fields["published"].value not in (None, ""):
        port["PublishedPort"] = fields["published"].integer()
    return port


def _dependencies(conversion: Conversion, fields: Mapping[str, Cursor], spec: Json) -> tuple[str, ...]:
    """Return the services a service depends on; what its tasks wait for is written into a label of the spec."""
    if "depends_on" not in fields:
        return ()
    cursor = fields["depends_on"]
    found: dict[str, str] = {}
    for name, each in cursor.fields().items():
        options = each.fields(frozenset({"condition", "restart", "required"}))
        condition = options["condition"].text() if "condition" in options else _CONDITIONS[0]
        if condition not in _CONDITIONS:
            raise options["condition"].refusal(f"must be one of {', '.join(_CONDITIONS)}")
        is_required = options["required"].boolean() if "required" in options else True
        if "restart" in options:
            conversion.warn(f"{options['restart'].where}: it is ignored: tasks are restarted by their own policy")
        if name in conversion.services:
            found[name] = "completed" if condition == _CONDITIONS[2] else "running"
        elif is_required:
            raise each.refusal(f"undefined service {name}")
    if found:
        words = (f"{conversion.stack}_{name}:{condition}" for name, condition in found.items())
        spec["Labels"][DEPENDS_ON] = ",".join(words)
    return tuple(found)
