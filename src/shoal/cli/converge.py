"""Waiting until a service has converged, with progress on a terminal or in lines (docker-swarm.md 1.0)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

import click

from shoal.cli.progress import describe, failure_of, is_job, measure, monitor_ns, promotion_awaited
from shoal.cli.screen import paint, redraws, state_colour, terminal_width
from shoal.client.connection import Client
from shoal.errors import ShoalError
from shoal.language.texts import ellipsis

POLL_SECONDS = 0.2
WIDE_BAR = 50
WIDE_TERMINAL = 110


class _Screen:
    """Shows lines: on a terminal in place, elsewhere each line once it has changed."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        # lines that wrap could not be written over
        self._width = terminal_width() if redraws() else None
        self._shown: list[str] = []

    @property
    def bar_width(self) -> int:
        """How wide bars are: as docker's, half of that on a narrow terminal; 0 where lines stay."""
        if self._width is None:
            return 0
        return WIDE_BAR if self._width > WIDE_TERMINAL else WIDE_BAR // 2

    def show(self, lines: list[str]) -> None:
        if self._quiet or lines == self._shown:
            return
        if self._width is not None:
            up = f"\x1b[{len(self._shown)}A" if self._shown else ""
            written = "".join(f"\x1b[2K{_painted(ellipsis(line, self._width - 1))}\n" for line in lines)
            click.echo(f"{up}{written}\x1b[J", nl=False)
        else:
            for line in lines:
                if line not in self._shown:
                    click.echo(line)
        sys.stdout.flush()
        self._shown = lines


def _painted(line: str) -> str:
    """Give the state in `NAME: STATE …` its colour."""
    name, found, rest = line.partition(": ")
    state, gap, more = rest.partition(" ")
    return f"{name}{found}{paint(state, state_colour(state))}{gap}{more}"


def wait_until_converged(
    client: Client, service_id: str, *, quiet: bool, now: Callable[[], float] = time.monotonic
) -> None:
    """Wait until all tasks of a service run and have held for its monitor time, a job is complete, or canaries wait.

    Ctrl-C leaves it to itself.

    Raises:
        ShoalError: its update or rollback has paused.
        RemoteError: the service has gone.
    """
    screen = _Screen(quiet=quiet)
    since: float | None = None
    query = {"filters": json.dumps({"service": {service_id: True}, "_up-to-date": {"true": True}})}
    try:
        while True:
            service = client.get(f"/services/{service_id}")
            if waiting := promotion_awaited(service):
                screen.show([waiting])
                return
            failure = failure_of(service)
            if failure:
                raise ShoalError(failure)
            progress = measure(service, client.get("/tasks", query), client.get("/nodes"))
            lines = describe(progress, screen.bar_width)
            if is_job(service) and progress.converged:
                screen.show([*lines, "job complete"])
                return
            if not progress.converged:
                if since is not None:
                    lines.append("verify: Detected task failure")
                since = None
            else:
                since = now() if since is None else since
                left = monitor_ns(service) / 1e9 - (now() - since)
                if left <= 0 or (service.get("UpdateStatus") or {}).get("State") == "completed":
                    screen.show([*lines, f"verify: Service {service_id} converged"])
                    return
                lines.append(f"verify: Waiting {int(left) + 1} seconds to verify that tasks are stable...")
            screen.show(lines)
            # EXCEPTION to waiting on conditions: the API has no call that waits for a service
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        click.echo(
            f"\nOperation continuing in background.\nUse `shoal service ps {service_id}` to check progress.", err=True
        )
