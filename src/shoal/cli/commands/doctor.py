"""`shoal doctor`: what is wrong with this node and its ways to the others, and the way a request takes."""

from __future__ import annotations

import json
from typing import Any

import click

from shoal.cli.grammar import command, flag
from shoal.cli.screen import paint, state_colour
from shoal.cli.session import connect, filter_query
from shoal.cli.trace import lines, trace
from shoal.client.connection import NoDaemon
from shoal.errors import InvalidArgument, ShoalError
from shoal.model.diagnosis import GOOD, NOTE, PROBLEM, Finding

NO_DAEMON = "to look at the ways between nodes, too: start shoald, or say where it listens by -H or DOCKER_HOST"


class Troubled(ShoalError):
    """Something is wrong; the findings have been shown."""


@command("doctor", "[OPTIONS]", "Find what is wrong with this node and its ways to the others, and say what to do")
@flag("--format", "string", "json")
@flag("--network-trace", "service", "Show the way a request to a service takes instead")
def doctor(format: str | None, network_trace: str | None) -> None:  # noqa: A002
    """Look, tell, and end with 1 if there is a problem."""
    if format not in (None, "json"):
        raise InvalidArgument(f'--format "{format}": there is json only')
    if network_trace is not None:
        _trace(network_trace, format)
        return
    node, findings = _findings()
    if format is not None:
        click.echo(json.dumps({"Node": node, "Findings": findings}, indent=4, ensure_ascii=False))
    else:
        click.echo("\n".join(_lines(node, findings)))
    problems = sum(finding["Level"] == PROBLEM for finding in findings)
    if problems:
        raise Troubled(f"{problems} problem{'s' if problems > 1 else ''} found")


def _findings() -> tuple[str, list[dict[str, str]]]:
    """Ask the daemon; where there is none look at this machine alone."""
    client = connect()
    try:
        answer = client.get("/shoal/doctor")
    except NoDaemon as error:
        from shoal.api.routes.doctor import finding_view
        from shoal.daemon.doctor import examine_this_machine

        # where no daemon has ever been it is only not started yet
        level = NOTE if isinstance(error.__cause__, FileNotFoundError) else PROBLEM
        absent = Finding(check="daemon", level=level, text=error.message, remedy=NO_DAEMON)
        return "this machine", [finding_view(finding) for finding in (*examine_this_machine(), absent)]
    return answer["Node"], answer["Findings"]


def _lines(node: str, findings: list[dict[str, str]]) -> list[str]:
    width = max(len(finding["Check"]) for finding in findings)
    written = [f"As {node} sees it (others may see it otherwise: run this on each):"]
    for finding in findings:
        level = paint(f"{finding['Level']:<8}", state_colour(finding["Level"]))
        written.append(f"{level} {finding['Check']:<{width}}  {finding['Text']}")
        if finding["Remedy"] and finding["Level"] != GOOD:
            written.append(f"{'':<8} {'':<{width}}  -> {finding['Remedy']}")
    return written


def _trace(name: str, format: str | None) -> None:  # noqa: A002
    client = connect()
    service: dict[str, Any] = client.get(f"/services/{name}")
    tasks = client.get("/tasks", filter_query((), service=(service["ID"],)))
    on = {attachment["Network"]["ID"] for task in tasks for attachment in task.get("NetworksAttachments") or ()}
    on |= {virtual["NetworkID"] for virtual in (service.get("Endpoint") or {}).get("VirtualIPs") or ()}
    networks = {network["Id"]: network for network in client.get("/networks") if network["Id"] in on}
    traced = trace(service, tasks, client.get("/nodes"), networks)
    if format is not None:
        click.echo(json.dumps(traced, indent=4, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(traced)))
