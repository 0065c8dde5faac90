"""`shoal service logs`: the output of all tasks, each line with the task it is of."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from shoal.cli.commands.service import find_service_or_task
from shoal.cli.grammar import command, flag
from shoal.cli.log_output import log_query, print_raw
from shoal.cli.session import connect
from shoal.client.connection import Client, RemoteError
from shoal.client.streams import STDERR, parse_details, read_frames
from shoal.errors import InvalidArgument
from shoal.language.texts import shorten_id

_PREFIX = "com.docker.swarm."


@command("logs", "[OPTIONS] SERVICE|TASK", "Show the output of a service or a task")
@flag("--details", text="Show the details the log driver gives")
@flag("--follow", text="Go on with new output", short="-f")
@flag("--no-resolve", text="Ids instead of names")
@flag("--no-task-ids", text="No ids of tasks")
@flag("--no-trunc", text="Cut nothing short")
@flag("--raw", text="The output as it is")
@flag("--since", "string", "From a time on (2026-01-02T13:23:37Z) or since a span (42m)")
@flag("--tail", "string", "Lines from the end of each task", short="-n", default='"all"')
@flag("--timestamps", text="Show times", short="-t")
@click.argument("name", metavar="SERVICE|TASK")
def logs(name: str, **given: Any) -> None:
    """Show logs."""
    client = connect()
    kind, found = find_service_or_task(client, name)
    spec = found["Spec"]["TaskTemplate"] if kind == "services" else found["Spec"]
    has_terminal = (spec.get("ContainerSpec") or {}).get("TTY")
    if has_terminal and not given["raw"]:
        raise InvalidArgument("tty service logs only supported with --raw")
    # the details say which task a line is of
    query = log_query({**given, "details": not given["raw"] or given["details"]})
    with client.stream("GET", f"/{kind}/{found['ID']}/logs", query) as response:
        if has_terminal:
            print_raw(response)
            return
        names = _Names(client, given)
        for stream, payload in read_frames(response):
            line = payload if given["raw"] else _format(payload, names, given)
            target = sys.stderr if stream == STDERR else sys.stdout
            target.buffer.write(line)
            target.buffer.flush()


def _format(payload: bytes, names: _Names, given: Mapping[str, Any]) -> bytes:
    time, rest = payload.split(b" ", 1) if given["timestamps"] else (b"", payload)
    details_text, _, message = rest.partition(b" ")
    details = parse_details(details_text.decode(errors="replace"))
    task = names.task(details)
    kept = ",".join(f"{key}={value}" for key, value in sorted(details.items()) if not key.startswith(_PREFIX))
    parts = [f"{task}    |".encode()]
    if time:
        parts.insert(0, time)
    if given["details"]:
        parts.append(kept.encode())
    return b" ".join([*parts, message])


class _Names:
    """Names of tasks and nodes, asked for once each."""

    def __init__(self, client: Client, given: Mapping[str, Any]) -> None:
        self._client = client
        self._given = given
        self._known: dict[str, str] = {}

    def task(self, details: Mapping[str, str]) -> str:
        """Return `web.1.abc@host`."""
        task_id = details.get(f"{_PREFIX}task.id", "")
        if task_id not in self._known:
            self._known[task_id] = self._look_up(task_id, details)
        return self._known[task_id]

    def _look_up(self, task_id: str, details: Mapping[str, str]) -> str:
        node_id, service_id = details.get(f"{_PREFIX}node.id", ""), details.get(f"{_PREFIX}service.id", "")
        shown_id = task_id if self._given["no_trunc"] else shorten_id(task_id)
        if self._given["no_resolve"]:
            return f"{shown_id}@{node_id if self._given['no_trunc'] else shorten_id(node_id)}"
        try:
            task = self._client.get(f"/tasks/{task_id}")
            service = self._client.get(f"/services/{service_id}")["Spec"]["Name"]
            node = self._client.get(f"/nodes/{node_id}")["Description"].get("Hostname", node_id)
        except RemoteError:
            # gone since the line was written
            return f"{shown_id}@{shorten_id(node_id)}"
        name = f"{service}.{task.get('Slot') or node_id}"
        return f"{name}@{node}" if self._given["no_task_ids"] else f"{name}.{shown_id}@{node}"
