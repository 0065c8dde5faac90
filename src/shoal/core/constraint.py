"""The constraint language of placement: `key==value`, `key!=value` (docker-swarm.md 4.6).

Comparison is of whole words and ignores case. A missing label compares as the empty word. Beyond Docker, an unknown
key is refused when a service is created instead of leaving its tasks pending for ever; as Docker accepts it, that is
`check_keys`, apart from `parse`.
"""

from __future__ import annotations

import ipaddress
import re

from shoal.errors import InvalidArgument
from shoal.model.base import Struct
from shoal.model.objects import Node

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE)
NODE_LABEL_PREFIX = "node.labels."
ENGINE_LABEL_PREFIX = "engine.labels."
LABEL_PREFIXES = (NODE_LABEL_PREFIX, ENGINE_LABEL_PREFIX)
KEYS = ("node.id", "node.hostname", "node.role", "node.ip", "node.platform.os", "node.platform.arch")


class Constraint(Struct):
    """One condition on a node; `equal` False means it must differ."""

    key: str
    equal: bool
    value: str


def parse(expressions: tuple[str, ...]) -> tuple[Constraint, ...]:
    """Read constraints.

    Raises:
        InvalidArgument: no operator, a bad key or a bad value; the text is Docker's.
    """
    return tuple(_parse_one(expression) for expression in expressions)


def _parse_one(expression: str) -> Constraint:
    for operator, equal in (("==", True), ("!=", False)):
        key, found, value = expression.partition(operator)
        if not found:
            continue
        key, value = key.strip(), value.strip()
        if not _KEY.fullmatch(key):
            raise InvalidArgument(f"key '{key}' is invalid")
        if not _VALUE.fullmatch(value):
            raise InvalidArgument(f"value '{value}' is invalid")
        return Constraint(key=key, equal=equal, value=value)
    raise InvalidArgument("constraint expected one operator from ==, !=")


def check_keys(constraints: tuple[Constraint, ...]) -> None:
    """Refuse a key that no node could ever have. Raises InvalidArgument, which names the keys there are."""
    for each in constraints:
        key = each.key.lower()
        if key in KEYS or any(key.startswith(prefix) and key != prefix for prefix in LABEL_PREFIXES):
            continue
        raise InvalidArgument(
            f"constraint key '{each.key}' is unknown: use {', '.join(KEYS)}, "
            f"{NODE_LABEL_PREFIX}KEY or {ENGINE_LABEL_PREFIX}KEY"
        )


def matches_all(constraints: tuple[Constraint, ...], node: Node) -> bool:
    """Whether a node fulfils every constraint."""
    return all(matches(constraint, node) for constraint in constraints)


def matches(constraint: Constraint, node: Node) -> bool:
    """Whether a node fulfils a constraint; an unknown key fits no node."""
    key = constraint.key.lower()
    if key == "node.ip":
        return _matches_address(constraint, node.status.address)
    if key.startswith(NODE_LABEL_PREFIX):
        actual = node.spec.labels.get(constraint.key[len(NODE_LABEL_PREFIX) :], "")
    elif key.startswith(ENGINE_LABEL_PREFIX):
        actual = node.description.engine_labels.get(constraint.key[len(ENGINE_LABEL_PREFIX) :], "")
    else:
        attributes = {
            "node.id": node.id,
            "node.hostname": node.description.hostname,
            "node.role": "manager" if node.manager_status else "worker",
            "node.platform.os": node.description.platform.os,
            "node.platform.arch": node.description.platform.architecture,
        }
        if key not in attributes:
            return False
        actual = attributes[key]
    return (actual.lower() == constraint.value.lower()) is constraint.equal


def _matches_address(constraint: Constraint, address: str) -> bool:
    try:
        inside = ipaddress.ip_address(address) in ipaddress.ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    return inside is constraint.equal
