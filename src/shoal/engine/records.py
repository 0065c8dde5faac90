"""What an engine must not forget, on disk: one directory a container under DATA/containers.

    container.json   config, image, arguments: written last when a container is made, removed first when it goes
    failed.json      why a start failed
    running.json, exit.json   the keeper's (see keeper/containers.py)

A directory without container.json is half-made or half-removed. Blocking; called in threads.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from shoal.engine.keeper.containers import EXIT_FILE, RUNNING_FILE
from shoal.lib.files import sync_directory, write_atomically
from shoal.model.base import Struct, replace
from shoal.model.container import Container, ContainerState, ExitStatus

RECORD_FILE = "container.json"
FAILED_FILE = "failed.json"


class FailedStart(Struct):
    """Why a container did not start, and the exit code Docker gives that."""

    code: int
    error: str
    at_ns: int


class _Running(msgspec.Struct):
    pid: int = 0
    started_at_ns: int = 0


class _Exit(msgspec.Struct):
    code: int | None
    finished_at_ns: int
    oom_killed: bool = False
    started_at_ns: int = 0


def save_container(directory: Path, container: Container) -> None:
    """Write a container's record; on disk when this returns. Contents of files are left out: they may be secrets."""
    files = tuple(replace(file, content=b"") for file in container.config.files)
    stripped = replace(container, config=replace(container.config, files=files))
    write_atomically(directory / RECORD_FILE, msgspec.json.encode(stripped))
    sync_directory(directory.parent)


def save_failure(directory: Path, failure: FailedStart) -> None:
    """Write down why a start failed."""
    write_atomically(directory / FAILED_FILE, msgspec.json.encode(failure))


def forget_run(directory: Path) -> None:
    """Take away what an earlier run left, before a new one."""
    for name in (RUNNING_FILE, EXIT_FILE, FAILED_FILE):
        (directory / name).unlink(missing_ok=True)


def exit_status_of(directory: Path) -> ExitStatus | None:
    """Return how a container ended, if that is on disk."""
    try:
        found = msgspec.json.decode((directory / EXIT_FILE).read_bytes(), type=_Exit)
    except FileNotFoundError:
        return None
    return ExitStatus(code=found.code, finished_at_ns=found.finished_at_ns, oom_killed=found.oom_killed)


def load_container(directory: Path) -> Container | None:
    """Return a container with the state its files say (`running` is the keeper's last word, to be checked)."""
    try:
        container = msgspec.json.decode((directory / RECORD_FILE).read_bytes(), type=Container)
    except FileNotFoundError:
        return None
    running = _Running()
    if (directory / RUNNING_FILE).exists():
        running = msgspec.json.decode((directory / RUNNING_FILE).read_bytes(), type=_Running)
    status = exit_status_of(directory)
    if status is not None:
        return replace(container, state=ended_state(status, running.started_at_ns))
    if running.pid or (directory / RUNNING_FILE).exists():
        state = ContainerState(status="running", pid=running.pid, started_at_ns=running.started_at_ns)
        return replace(container, state=state)
    if (directory / FAILED_FILE).exists():
        failure = msgspec.json.decode((directory / FAILED_FILE).read_bytes(), type=FailedStart)
        return replace(container, state=failed_state(failure))
    return container


def ended_state(status: ExitStatus, started_at_ns: int) -> ContainerState:
    """Return the state of a container that has ended; an unknown code shows as 255."""
    return ContainerState(
        status="exited",
        exit_code=255 if status.code is None else status.code,
        error="the exit code is unknown: nobody saw the container end" if status.code is None else "",
        oom_killed=status.oom_killed,
        started_at_ns=started_at_ns,
        finished_at_ns=status.finished_at_ns,
    )


def failed_state(failure: FailedStart) -> ContainerState:
    """Return the state of a container that could not be started."""
    return ContainerState(status="created", exit_code=failure.code, error=failure.error, finished_at_ns=failure.at_ns)
