"""What the JSON of all objects has in common: meta, times, specs as plain values."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from shoal.lib.units import format_time
from shoal.model.base import Spec
from shoal.model.objects import Meta

Json = dict[str, Any]
ZERO_TIME = "0001-01-01T00:00:00Z"


def time_text(nanoseconds: int) -> str:
    """Write a time; 0 is Go's zero time."""
    return format_time(nanoseconds) if nanoseconds else ZERO_TIME


def meta_view(id_: str, meta: Meta) -> Json:
    """Return the fields every object begins with."""
    return {
        "ID": id_,
        "Version": {"Index": meta.version},
        "CreatedAt": time_text(meta.created_at_ns),
        "UpdatedAt": time_text(meta.updated_at_ns),
    }


def plain(spec: Spec) -> Json:
    """Return a spec as plain values in Docker's names, fields at their defaults left out."""
    value = msgspec.to_builtins(spec)
    assert isinstance(value, dict), "a spec is an object"
    return value


def with_labels(value: Json, *, named: bool = True) -> Json:
    """Return the JSON of a spec with the labels always there, and the name first where the kind always has one."""
    head: Json = {"Name": value.get("Name", "")} if named else ({"Name": value["Name"]} if value.get("Name") else {})
    head["Labels"] = value.get("Labels", {})
    return head | {key: item for key, item in value.items() if key not in head}


def endpoint_id(network_id: str, container_name: str) -> str:
    """Return the id of a container's place on a network."""
    return hashlib.sha256(f"{network_id}/{container_name}".encode()).hexdigest()


def mac_of(address: str) -> str:
    """Return the hardware address of a task's link, which Docker's rule draws from its IPv4 address; empty for none."""
    parts = address.partition("/")[0].split(".")
    return "02:42:" + ":".join(f"{int(part):02x}" for part in parts) if len(parts) == 4 else ""
