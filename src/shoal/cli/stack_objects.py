"""What the swarm has of a stack: found by its label, without a word of Compose files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.cli.session import filter_query
from shoal.client.connection import Client
from shoal.compose.labels import NAMESPACE_LABEL

Json = Mapping[str, Any]
KINDS = ("service", "secret", "config", "network")


def found_by_stack(client: Client, kind: str, stack: str) -> dict[str, Any]:
    """Return what carries a stack's label, by name."""
    query = filter_query((f"label={NAMESPACE_LABEL}={stack}",))
    return {name_of(kind, item): item for item in client.get(f"/{kind}s", query)}


def name_of(kind: str, item: Json) -> str:
    """Return the name of a thing of a kind."""
    return str(item["Name"] if kind == "network" else item["Spec"]["Name"])


def id_of(kind: str, item: Json) -> str:
    """Return the id of a thing of a kind."""
    return str(item["Id"] if kind == "network" else item["ID"])
