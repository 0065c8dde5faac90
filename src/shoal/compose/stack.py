"""From a project to a stack: what the API is asked for, all names with the stack's before them.

A secret or config is referred to by name; who deploys puts in its id. Nothing is dropped in silence: what a swarm
cannot do is in `warnings`, once each.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from shoal.compose.cursor import Cursor
from shoal.compose.documents import Place
from shoal.compose.labels import NAMESPACE_LABEL
from shoal.compose.project import Project, ReadFile
from shoal.compose.services import Conversion, convert_service
from shoal.errors import InvalidArgument
from shoal.model.base import Struct

PREDEFINED_NETWORKS = frozenset({"host", "bridge", "none", "default"})
DEFAULT_NETWORK = "default"
Json = dict[str, Any]

_NETWORK_KEYS = frozenset(
    {
        "name", "driver", "driver_opts", "ipam", "external", "internal", "attachable", "labels",
        "enable_ipv6", "enable_ipv4",
    }
)  # fmt: skip
_VOLUME_KEYS = frozenset({"name", "driver", "driver_opts", "external", "labels"})
_SECRET_KEYS = frozenset(
    {"name", "file", "environment", "content", "external", "labels", "driver", "driver_opts", "template_driver"}
)


class Stack(Struct):
    """Bodies of requests by full name, in the order they are to be made.

    `external_networks`, `external_secrets` and `external_configs` are names that must be there.
    """

    name: str
    services: dict[str, Json]
    networks: dict[str, Json]
    secrets: dict[str, Json]
    configs: dict[str, Json]
    external_networks: tuple[str, ...] = ()
    external_secrets: tuple[str, ...] = ()
    external_configs: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def make_stack(project: Project, name: str, directory: str, read: ReadFile, environment: Mapping[str, str]) -> Stack:
    """Return the stack a project stands for.

    Args:
        project: as loaded.
        name: of the stack.
        directory: absolute; relative paths of bind mounts begin there.
        read: returns the text of a file (secrets, configs, env_file), latin-1 for bytes.
        environment: the variables of the process.

    Raises:
        InvalidArgument: something cannot be read; file, line and key are named.
        NotFound: a file is not there.
    """
    top = Cursor(project.values, "", Place())
    sections = {key: _section(top, key) for key in ("services", "networks", "volumes", "secrets", "configs")}
    payloads = {
        kind: {
            key: _payload(kind, cursor, name, key, project.directory, read, environment)
            for key, cursor in sections[f"{kind}s"].items()
        }
        for kind in ("secret", "config")
    }
    networks = {key: _network(cursor, name, key) for key, cursor in sections["networks"].items()}
    conversion = Conversion(
        stack=name,
        directory=directory,
        project_directory=project.directory,
        networks={key: full for key, (full, _) in networks.items()},
        volumes={key: _volume(cursor, name, key) for key, cursor in sections["volumes"].items()},
        secrets={key: full for key, (full, _) in payloads["secret"].items()},
        configs={key: full for key, (full, _) in payloads["config"].items()},
        services=frozenset(sections["services"]),
        environment=environment,
        read=read,
        warnings=list(project.warnings),
    )
    services = {key: convert_service(conversion, key, cursor) for key, cursor in sections["services"].items()}
    if DEFAULT_NETWORK in conversion.networks_used and DEFAULT_NETWORK not in networks:
        networks[DEFAULT_NETWORK] = (f"{name}_{DEFAULT_NETWORK}", _network_body(f"{name}_{DEFAULT_NETWORK}", name, {}))
    for key in sorted(set(networks) - conversion.networks_used):
        conversion.warn(f"networks.{key}: no service is on it, it is not made")
    used = {full: body for key, (full, body) in networks.items() if key in conversion.networks_used}
    return Stack(
        name=name,
        services={f"{name}_{key}": services[key] for key in _in_order(services, conversion.dependencies)},
        networks={full: body for full, body in used.items() if body is not None},
        secrets={full: body for full, body in payloads["secret"].values() if body is not None},
        configs={full: body for full, body in payloads["config"].values() if body is not None},
        external_networks=tuple(
            full for full, body in used.items() if body is None and full not in PREDEFINED_NETWORKS
        ),
        external_secrets=tuple(full for full, body in payloads["secret"].values() if body is None),
        external_configs=tuple(full for full, body in payloads["config"].values() if body is None),
        warnings=tuple(conversion.warnings),
    )


def _section(top: Cursor, key: str) -> dict[str, Cursor]:
    section = top.field(key)
    return section.fields() if section is not None else {}


def _in_order(services: Mapping[str, Json], dependencies: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the services so that each comes after those it depends on. Raises InvalidArgument for a circle."""
    found: list[str] = []

    def visit(key: str, path: tuple[str, ...]) -> None:
        if key in path:
            raise InvalidArgument(f"services.{key}.depends_on: a circle: {' -> '.join((*path, key))}")
        if key not in found:
            for other in dependencies.get(key, ()):
                visit(other, (*path, key))
            found.append(key)

    for key in services:
        visit(key, ())
    return found


def _external(fields: Mapping[str, Cursor]) -> tuple[bool, str]:
    """Return whether something is external, and the name that an older form gives."""
    cursor = fields.get("external")
    if cursor is None or cursor.value is None:
        return False, ""
    if cursor.is_mapping:
        name = cursor.field("name")
        return True, name.text() if name is not None else ""
    return cursor.boolean(), ""


def _full_name(fields: Mapping[str, Cursor], stack: str, key: str) -> tuple[str, bool]:
    is_external, older = _external(fields)
    if "name" in fields:
        return fields["name"].text(), is_external
    return (older or key if is_external else f"{stack}_{key}"), is_external


def _labels(fields: Mapping[str, Cursor], stack: str) -> dict[str, str]:
    own = {key: value or "" for key, value in fields["labels"].pairs().items()} if "labels" in fields else {}
    return own | {NAMESPACE_LABEL: stack}


def _network(cursor: Cursor, stack: str, key: str) -> tuple[str, Json | None]:
    fields = cursor.fields(_NETWORK_KEYS)
    name, is_external = _full_name(fields, stack, key)
    return (name, None) if is_external else (name, _network_body(name, stack, fields))


def _network_body(name: str, stack: str, fields: Mapping[str, Cursor]) -> Json:
    body: Json = {"Name": name, "Driver": "overlay", "Labels": _labels(fields, stack)}
    if "driver" in fields and fields["driver"].value:
        body["Driver"] = fields["driver"].text()
    if "driver_opts" in fields:
        body["Options"] = {key: value or "" for key, value in fields["driver_opts"].pairs().items()}
    switches = (("internal", "Internal"), ("attachable", "Attachable"), ("enable_ipv6", "EnableIPv6"))
    for key, field in (*switches, ("enable_ipv4", "EnableIPv4")):
        if key in fields and fields[key].value is not None:
            body[field] = fields[key].boolean()
    if body["Driver"] == "overlay":
        body["Scope"] = "swarm"
    ipam = fields.get("ipam")
    if ipam is not None and ipam.value is not None:
        body["IPAM"] = _ipam(ipam)
    return body


def _ipam(cursor: Cursor) -> Json:
    fields = cursor.fields(frozenset({"driver", "config", "options"}))
    pools = []
    for each in fields["config"].elements() if "config" in fields else []:
        pool = each.fields(frozenset({"subnet", "ip_range", "gateway", "aux_addresses"}))
        found: Json = {
            field: pool[key].text()
            for key, field in (("subnet", "Subnet"), ("ip_range", "IPRange"), ("gateway", "Gateway"))
            if key in pool
        }
        if "aux_addresses" in pool:
            found["AuxiliaryAddresses"] = pool["aux_addresses"].pairs()
        pools.append(found)
    body: Json = {"Driver": fields["driver"].text() if "driver" in fields else "default", "Config": pools}
    if "options" in fields:
        body["Options"] = fields["options"].pairs()
    return body


def _volume(cursor: Cursor, stack: str, key: str) -> tuple[str, Json | None]:
    """Return a volume's name, and the options of its mounts: none for an external one."""
    fields = cursor.fields(_VOLUME_KEYS)
    name, is_external = _full_name(fields, stack, key)
    if is_external:
        return name, None
    options: Json = {"Labels": _labels(fields, stack)}
    if "driver" in fields or "driver_opts" in fields:
        driver = fields["driver"].text() if "driver" in fields else ""
        pairs = fields["driver_opts"].pairs() if "driver_opts" in fields else {}
        options["DriverConfig"] = {"Name": driver, "Options": {key: value or "" for key, value in pairs.items()}}
    return name, options


def _payload(
    kind: str,
    cursor: Cursor,
    stack: str,
    key: str,
    directory: str,
    read: ReadFile,
    environment: Mapping[str, str],
) -> tuple[str, Json | None]:
    fields = cursor.fields(_SECRET_KEYS)
    name, is_external = _full_name(fields, stack, key)
    if is_external:
        return name, None
    body: Json = {"Name": name, "Labels": _labels(fields, stack)}
    sources = [source for source in ("file", "environment", "content", "driver") if source in fields]
    if len(sources) != 1:
        given = " and ".join(sources) if sources else "none"
        raise cursor.refusal(f"a {kind} has one of file, environment, content, driver or external; {given} is given")
    source = fields[sources[0]]
    if sources[0] == "file":
        body["Data"] = base64.b64encode(_read_beside(read, directory, source).encode("latin-1")).decode()
    elif sources[0] == "content":
        body["Data"] = base64.b64encode(source.text().encode()).decode()
    elif sources[0] == "environment":
        if source.text() not in environment:
            raise source.refusal(f"the variable {source.text()} is not set")
        body["Data"] = base64.b64encode(environment[source.text()].encode()).decode()
    else:
        options = fields["driver_opts"].pairs() if "driver_opts" in fields else {}
        body["Driver"] = {"Name": source.text(), "Options": options}
    if "template_driver" in fields:
        body["Templating"] = {"Name": fields["template_driver"].text()}
    return name, body


def _read_beside(read: ReadFile, directory: str, cursor: Cursor) -> str:
    path = cursor.text()
    whole = path if path.startswith(("/", "~")) or not directory else f"{directory}/{path}"
    return cursor.parsed(lambda _: read(whole))
