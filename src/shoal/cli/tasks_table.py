"""Tasks as `service ps` and `node ps` list them: names, order, history of a slot. Pure but for the printing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.cli.screen import RED, state_colour
from shoal.cli.session import Column
from shoal.language.texts import age_text, capitalize, ellipsis, shorten_id
from shoal.lib.units import parse_time_ns

Json = Mapping[str, Any]
MOST_ERROR = 31
_DIGITS = re.compile(r"(\d+)")


class TaskRow:
    """A task with what the list shows of it."""

    def __init__(self, task: Json, name: str, node: str, *, is_past: bool) -> None:
        self.task = task
        self.name = name
        self.is_past = is_past
        self.node = node


def arrange(tasks: Sequence[Json], services: Mapping[str, str], nodes: Mapping[str, str]) -> list[TaskRow]:
    """Order tasks by name, the newest of a slot first, its past under it.

    Args:
        tasks: as the API gives them.
        services: names by id; an id that is missing stays an id.
        nodes: host names by id.
    """
    named = [(_name(task, services), task) for task in tasks]
    named.sort(key=lambda pair: parse_time_ns(pair[1]["CreatedAt"]), reverse=True)
    named.sort(key=lambda pair: _natural(pair[0]))
    rows: list[TaskRow] = []
    previous = ""
    for name, task in named:
        node_id = task.get("NodeID", "")
        rows.append(TaskRow(task, name, nodes.get(node_id, node_id), is_past=name == previous))
        previous = name
    return rows


def _name(task: Json, services: Mapping[str, str]) -> str:
    service = services.get(task["ServiceID"], task["ServiceID"])
    return f"{service}.{task.get('Slot') or task.get('NodeID', '')}"


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name) if part]


def ports_text(ports: Sequence[Json]) -> str:
    """Write published ports as lists do: `*:8080->80/tcp`."""
    return ",".join(
        f"*:{port.get('PublishedPort', 0)}->{port.get('TargetPort', 0)}/{port.get('Protocol', 'tcp')}" for port in ports
    )


def columns(now_ns: int, *, truncate: bool, indent: bool) -> list[Column]:
    """Return the columns of a list of tasks; `indent`: mark what is a slot's past."""

    def name(row: TaskRow) -> str:
        return rf" \_ {row.name}" if indent and row.is_past else row.name

    def error(row: TaskRow) -> str:
        text = row.task["Status"].get("Err", "")
        if not text:
            return ""
        return f'"{ellipsis(text, MOST_ERROR) if truncate else text}"'

    def state(row: TaskRow) -> str:
        status = row.task["Status"]
        age = age_text((now_ns - parse_time_ns(status["Timestamp"])) / 1e9)
        return f"{capitalize(status['State'])} {age[:1].lower()}{age[1:]} ago"

    def identity(row: TaskRow) -> str:
        return shorten_id(row.task["ID"]) if truncate else str(row.task["ID"])

    def image(row: TaskRow) -> str:
        name = str((row.task["Spec"].get("ContainerSpec") or {}).get("Image", ""))
        return name.partition("@")[0] if truncate else name

    def ports(row: TaskRow) -> str:
        return ports_text((row.task["Status"].get("PortStatus") or {}).get("Ports") or ())

    return [
        Column("ID", "ID", identity),
        Column("Name", "NAME", name),
        Column("Image", "IMAGE", image),
        Column("Node", "NODE", lambda row: row.node),
        Column("DesiredState", "DESIRED STATE", lambda row: capitalize(row.task["DesiredState"])),
        Column("CurrentState", "CURRENT STATE", state, colour=state_colour),
        Column("Error", "ERROR", error, colour=lambda _: RED),
        Column("Ports", "PORTS", ports),
    ]
