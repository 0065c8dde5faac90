"""The secrets, configs and networks a service refers to: flags that need the daemon to turn names into ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal.errors import InvalidArgument

Json = dict[str, Any]
Find = Callable[[str], Any]
DEFAULT_MODE = 0o444
_KEYS = ("source", "src", "target", "uid", "gid", "mode")


def parse_payload(text: str) -> Json:
    """Read `NAME` or `source=NAME,target=PATH,uid=0,gid=0,mode=0444` (of --secret and --config).

    Returns:
        `source` and the reference's `File`.

    Raises:
        InvalidArgument: an unknown key, a mode that is no octal number, no source.
    """
    if "=" not in text:
        fields = {"source": text}
    else:
        pairs = [part.partition("=") for part in text.split(",")]
        for key, equals, _ in pairs:
            if not equals or key not in _KEYS:
                raise InvalidArgument(f'invalid field "{key}" in "{text}": use source, target, uid, gid or mode')
        fields = {{"src": "source"}.get(key, key): value for key, _, value in pairs}
    source = fields.get("source", "")
    if not source:
        raise InvalidArgument(f'"{text}": source is required')
    try:
        mode = int(fields["mode"], 8) if "mode" in fields else DEFAULT_MODE
    except ValueError:
        raise InvalidArgument(f'invalid mode specified: "{fields["mode"]}" is no octal number, such as 0400') from None
    file = {
        "Name": fields.get("target") or source,
        "UID": fields.get("uid", "0"),
        "GID": fields.get("gid", "0"),
        "Mode": mode,
    }
    return {"source": source, "File": file}


def parse_network(text: str) -> Json:
    """Read `NAME` or `name=NAME,alias=…,driver-opt=KEY=VALUE` (of --network).

    Raises:
        InvalidArgument: another key.
    """
    if "=" not in text:
        return {"Target": text}
    network: Json = {}
    for field in text.split(","):
        key, _, value = field.partition("=")
        if key == "name":
            network["Target"] = value
        elif key == "alias":
            network.setdefault("Aliases", []).append(value)
        elif key == "driver-opt":
            name, _, option = value.partition("=")
            network.setdefault("DriverOpts", {})[name] = option
        else:
            raise InvalidArgument(f'--network "{text}": invalid field key {key}; use name, alias or driver-opt')
    return network


def set_references(spec: Json, given: Mapping[str, Any], find: Find) -> None:
    """Write what flags say of secrets, configs and networks into a spec.

    Args:
        spec: of a service; changed in place.
        given: the flags of `service create` or `service update`.
        find: asks the daemon: GET of a path. It raises when there is no such thing.

    Raises:
        InvalidArgument: two files of one name in the containers.
    """
    container = spec["TaskTemplate"]["ContainerSpec"]
    for kind, field in (("secret", "Secrets"), ("config", "Configs")):
        added = (*(given.get(kind) or ()), *(given.get(f"{kind}_add") or ()))
        removed = set(given.get(f"{kind}_rm") or ())
        if added or removed:
            kept = [each for each in container.get(field) or () if each[f"{kind.capitalize()}Name"] not in removed]
            container[field] = [*kept, *(_reference(kind, each, find) for each in added)]
            _check_targets(kind, container[field])
    if given.get("network_add") or given.get("network_rm"):
        removed = {find(f"/networks/{name}")["Id"] for name in given.get("network_rm") or ()}
        networks = spec["TaskTemplate"].get("Networks") or ()
        stays = [each for each in networks if each["Target"] not in removed]
        asked: Sequence[Json] = given.get("network_add") or ()
        new = [{**each, "Target": find(f"/networks/{each['Target']}")["Id"]} for each in asked]
        spec["TaskTemplate"]["Networks"] = [*stays, *new]


def _reference(kind: str, asked: Json, find: Find) -> Json:
    found = find(f"/{kind}s/{asked['source']}")
    word = kind.capitalize()
    return {f"{word}ID": found["ID"], f"{word}Name": found["Spec"]["Name"], "File": asked["File"]}


def _check_targets(kind: str, references: Sequence[Json]) -> None:
    seen: set[str] = set()
    for reference in references:
        target = (reference.get("File") or {}).get("Name", "")
        if target and target in seen:
            name = reference[f"{kind.capitalize()}Name"]
            raise InvalidArgument(f"duplicate {kind} target for {name} not allowed: {target}")
        seen.add(target)
