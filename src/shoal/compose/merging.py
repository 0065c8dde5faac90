"""Several Compose files as one: the later says more, or otherwise (Compose Specification, 13-merge).

Mappings are merged key by key, lists are appended to, single values replaced. Where a list is a mapping in disguise
(environment, labels) it is made one first; where its elements have an identity (ports, mounts, secrets) the later one
of the same identity wins. `!reset` takes away, `!override` replaces.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from shoal.compose.documents import Map, Place, Reset, Seq

# below a service: lists that stand for mappings, by the sign between key and value
_PAIRS = {"environment": "=", "labels": "=", "sysctls": "=", "extra_hosts": ":", "annotations": "="}
_REPLACED = frozenset({"command", "entrypoint"})


def _port(value: Any) -> Hashable:
    if isinstance(value, Map):
        return tuple(str(value.get(key, "")) for key in ("target", "published", "protocol", "mode", "host_ip"))
    return str(value)


def _mount(value: Any) -> Hashable:
    if isinstance(value, Map):
        return str(value.get("target", ""))
    parts = str(value).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _reference(value: Any) -> Hashable:
    if isinstance(value, Map):
        return str(value.get("target") or value.get("source", ""))
    return str(value)


_IDENTITIES: dict[str, Callable[[Any], Hashable]] = {
    "ports": _port,
    "volumes": _mount,
    "secrets": _reference,
    "configs": _reference,
    "dns": str,
    "dns_search": str,
    "cap_add": str,
    "cap_drop": str,
    "expose": str,
    "env_file": lambda value: str(value.get("path")) if isinstance(value, Map) else str(value),
}


def normalized_service(service: Any) -> Any:
    """Return a service whose lists of pairs are mappings, so that they can be merged; other shapes are left alone."""
    if not isinstance(service, Map):
        return service
    found = Map(service, service.places)
    found.replaces = service.replaces
    for key, sign in _PAIRS.items():
        if isinstance(found.get(key), Seq):
            found[key] = _as_map(found[key], sign)
    for key in ("networks", "depends_on"):
        value = found.get(key)
        if isinstance(value, Seq) and all(isinstance(each, str) for each in value):
            found[key] = Map(dict.fromkeys(value), dict(zip(value, value.places, strict=True)))
    deploy = found.get("deploy")
    if isinstance(deploy, Map) and isinstance(deploy.get("labels"), Seq):
        found["deploy"] = Map(deploy, deploy.places)
        found["deploy"]["labels"] = _as_map(deploy["labels"], "=")
    return found


def _as_map(pairs: Seq, sign: str) -> Any:
    found = Map()
    found.replaces = pairs.replaces
    for value, place in zip(pairs, pairs.places, strict=True):
        if not isinstance(value, str):
            return pairs
        # `host=address` is as good as `host:address`
        used = "=" if "=" in value.partition(sign)[0] else sign
        key, has_value, rest = value.partition(used)
        if sign == ":" and key in found:
            return pairs  # two addresses of a host: a list it stays
        found[key] = rest if has_value else None
        found.places[key] = place
    return found


def merge(base: Any, later: Any, path: tuple[str, ...] = ()) -> Any:
    """Return what two files say together about the value at `path` (from the top of the file)."""
    if isinstance(later, Reset):
        return later
    if later is None and base is not None:
        return base
    if len(path) == 2 and path[0] == "services":
        base, later = normalized_service(base), normalized_service(later)
    if isinstance(base, Map) and isinstance(later, Map) and not later.replaces:
        found = Map(base, base.places)
        for key, value in later.items():
            found[key] = merge(base.get(key), value, (*path, key))
            found.places[key] = later.places.get(key, Place())
        return found
    if isinstance(base, Seq) and isinstance(later, Seq) and not later.replaces and not _is_replaced(path):
        return _joined(base, later, _IDENTITIES.get(path[-1]) if len(path) == 3 and path[0] == "services" else None)
    return later


def _is_replaced(path: tuple[str, ...]) -> bool:
    if len(path) < 3 or path[0] != "services":
        return False
    return path[2] in _REPLACED or path[2:] == ("healthcheck", "test")


def _joined(base: Seq, later: Seq, identity: Callable[[Any], Hashable] | None) -> Seq:
    pairs = [*zip(base, base.places, strict=True), *zip(later, later.places, strict=True)]
    if identity is not None:
        pairs = list({identity(value): (value, place) for value, place in pairs}.values())
    return Seq([value for value, _ in pairs], [place for _, place in pairs])


def without_resets(value: Any) -> Any:
    """Return a value without what `!reset` took away."""
    if isinstance(value, Map):
        found = Map(places=value.places)
        found.update({key: without_resets(each) for key, each in value.items() if not isinstance(each, Reset)})
        return found
    if isinstance(value, Seq):
        return Seq([without_resets(each) for each in value], value.places)
    return value
