"""`shoal exec`, `top` and `stats`: what goes on in a container, on whatever node a manager finds it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import click

from shoal.cli.grammar import command, flag
from shoal.cli.screen import redraws
from shoal.cli.session import Column, connect, print_list
from shoal.cli.terminal import join_streams, window_size
from shoal.client.connection import Client, RemoteError
from shoal.errors import InvalidArgument
from shoal.language.tables import table_text
from shoal.language.texts import shorten_id, size_text

Json = Mapping[str, Any]
CLEAR_SCREEN = "\x1b[2J\x1b[H"


@command("exec", "[OPTIONS] CONTAINER COMMAND [ARG...]", "Run a command in a container", flags_end_at_argument=True)
@flag("--detach", text="Do not wait for it", short="-d")
@flag("--detach-keys", "string", "Keys that leave it running")
@flag("--env", "list", "Environment variables", short="-e", many=True)
@flag("--interactive", text="Give it our input", short="-i")
@flag("--privileged", text="With all privileges")
@flag("--tty", text="On a terminal", short="-t")
@flag("--user", "string", "As whom: name or number, :group", short="-u")
@flag("--workdir", "string", "In which directory", short="-w")
@click.argument("container", metavar="CONTAINER")
@click.argument("words", nargs=-1, required=True, metavar="COMMAND")
def execute(container: str, words: tuple[str, ...], **given: Any) -> None:
    """Run a command in a container; its exit code is ours."""
    client = connect()
    has_terminal, sends_input = bool(given["tty"]), bool(given["interactive"])
    if has_terminal and sends_input and not sys.stdin.isatty():
        raise InvalidArgument("the input device is not a TTY")
    body = {
        "AttachStdin": sends_input,
        "AttachStdout": not given["detach"],
        "AttachStderr": not given["detach"],
        "Cmd": list(words),
        "Env": list(given["env"]) or None,
        "Tty": has_terminal,
        "Detach": bool(given["detach"]),
        "DetachKeys": given["detach_keys"] or "",
        "Privileged": bool(given["privileged"]),
        "User": given["user"] or "",
        "WorkingDir": given["workdir"] or "",
    }
    exec_id = client.post(f"/containers/{container}/exec", body)["Id"]
    started: dict[str, Any] = {"Detach": bool(given["detach"]), "Tty": has_terminal}
    if given["detach"]:
        client.post(f"/exec/{exec_id}/start", started)
        return

    def resize(height: int, width: int) -> None:
        # one that has not begun got its size with the order to begin; one that has ended needs none
        with suppress(RemoteError):
            client.post(f"/exec/{exec_id}/resize", query={"h": height, "w": width})

    if has_terminal and sys.stdout.isatty():
        started["ConsoleSize"] = list(window_size())
    with client.hijack(f"/exec/{exec_id}/start", started) as stream:
        join_streams(
            stream, has_terminal=has_terminal, sends_input=sends_input, resize=resize if has_terminal else None
        )
    code = client.get(f"/exec/{exec_id}/json")["ExitCode"]
    if code:
        sys.exit(int(code))


@command("top", "CONTAINER [ps OPTIONS]", "Show the processes of a container", flags_end_at_argument=True)
@click.argument("container", metavar="CONTAINER")
@click.argument("options", nargs=-1)
def top(container: str, options: tuple[str, ...]) -> None:
    """Show processes."""
    found = connect().get(f"/containers/{container}/top", {"ps_args": " ".join(options) or None})
    click.echo(table_text([found["Titles"], *found["Processes"]]), nl=False)


@command("stats", "[OPTIONS] [CONTAINER...]", "Show what containers use")
@flag("--all", text="Also those that do not run", short="-a")
@flag("--format", "string", "json, or a template such as {{.CPUPerc}}")
@flag("--no-stream", text="Show it once, not again and again")
@flag("--no-trunc", text="Cut nothing short")
@click.argument("names", nargs=-1, metavar="CONTAINER")
def stats(names: tuple[str, ...], format: str | None, **given: Any) -> None:  # noqa: A002
    """Show usage."""
    client = connect()
    whole = bool(given["no_trunc"])
    columns = [
        Column("Container", "CONTAINER", lambda sample: sample["asked"], shown=False),
        Column("ID", "CONTAINER ID", lambda sample: sample["id"] if whole else shorten_id(sample["id"])),
        Column("Name", "NAME", lambda sample: sample["name"].lstrip("/")),
        Column("CPUPerc", "CPU %", lambda sample: f"{cpu_percent(sample):.2f}%"),
        Column("MemUsage", "MEM USAGE / LIMIT", lambda sample: _pair(memory_bytes(sample), _limit(sample))),
        Column("MemPerc", "MEM %", lambda sample: f"{100 * memory_bytes(sample) / (_limit(sample) or 1):.2f}%"),
        Column("NetIO", "NET I/O", _network_text),
        Column("BlockIO", "BLOCK I/O", _block_text),
        Column("PIDs", "PIDS", lambda sample: str((sample.get("pids_stats") or {}).get("current", 0))),
    ]
    while True:
        samples = list(_samples(client, names, all_of_them=bool(given["all"])))
        if not given["no_stream"] and redraws() and format is None:
            click.echo(CLEAR_SCREEN, nl=False)
        print_list(columns, samples, format, truncate=not whole)
        if given["no_stream"]:
            return


def _samples(client: Client, names: tuple[str, ...], *, all_of_them: bool) -> Iterator[dict[str, Any]]:
    """Yield a sample of each container; the daemon takes each over a second, as docker's client has it, too."""
    asked = names or [item["Id"] for item in client.get("/containers/json", {"all": all_of_them})]
    for name in asked:
        shown = name if names else shorten_id(name)
        yield {"asked": shown, **client.get(f"/containers/{name}/stats", {"stream": False})}


def cpu_percent(sample: Json) -> float:
    """Return the share of one processor that was used between two samples, as docker computes it."""
    now, before = sample["cpu_stats"], sample.get("precpu_stats") or {}
    used = now["cpu_usage"]["total_usage"] - (before.get("cpu_usage") or {}).get("total_usage", 0)
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = now.get("online_cpus") or 1
    return float(used / passed * count * 100) if used > 0 and passed > 0 else 0.0


def memory_bytes(sample: Json) -> int:
    """Return what is used without what the kernel could drop, as docker counts it."""
    memory = sample.get("memory_stats") or {}
    details = memory.get("stats") or {}
    reclaimable = details.get("total_inactive_file", details.get("inactive_file", 0))
    used = int(memory.get("usage", 0))
    return used - reclaimable if reclaimable < used else used


def _limit(sample: Json) -> int:
    return int((sample.get("memory_stats") or {}).get("limit", 0))


def _pair(first: int, second: int) -> str:
    return f"{size_text(first, binary=True, digits=4)} / {size_text(second, binary=True, digits=4)}"


def _network_text(sample: Json) -> str:
    interfaces = (sample.get("networks") or {}).values()
    received, sent = (sum(each[key] for each in interfaces) for key in ("rx_bytes", "tx_bytes"))
    return f"{size_text(received)} / {size_text(sent)}"


def _block_text(sample: Json) -> str:
    entries = (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    read, written = (sum(entry["value"] for entry in entries if entry["op"].lower() == op) for op in ("read", "write"))
    return f"{size_text(read)} / {size_text(written)}"
