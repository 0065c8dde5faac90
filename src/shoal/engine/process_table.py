"""The processes of a container, by the host's `ps`, cut to the pids of the container's cgroup."""

from __future__ import annotations

import subprocess
from pathlib import Path

from shoal.engine.host import Host
from shoal.errors import InvalidArgument, ShoalError
from shoal.model.streams import ProcessTable

PS_SECONDS = 10.0
DEFAULT_ARGUMENTS = "-ef"


def pids_of(host: Host, cgroup: str) -> frozenset[int]:
    """Return the pids in a container's cgroup and those below it. Blocking."""
    mount = next((mount for mount in host.cgroup_mounts if mount.endswith("/pids")), host.cgroup_mounts[0])
    found: set[int] = set()
    for path in (Path(mount + cgroup), *Path(mount + cgroup).glob("**/")):
        try:
            found.update(int(word) for word in (path / "cgroup.procs").read_text().split())
        except OSError:
            continue
    return frozenset(found)


def run_ps(arguments: str, pids: frozenset[int]) -> ProcessTable:
    """Run `ps` and return the lines of `pids`. Blocking. Raises ShoalError in Docker's words, InvalidArgument."""
    words = arguments.split() or [DEFAULT_ARGUMENTS]
    try:
        # shell-less; a list of pids would change what some options show, so all are listed and then cut
        done = subprocess.run(["ps", *words], capture_output=True, text=True, check=False, timeout=PS_SECONDS)
    except FileNotFoundError:
        raise ShoalError('ps: exec: "ps": executable file not found in $PATH: install procps on this node') from None
    except subprocess.TimeoutExpired:
        raise ShoalError(f"ps: no answer within {PS_SECONDS:g} seconds") from None
    except ValueError as error:
        raise InvalidArgument(f"ps_args: {error}") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise InvalidArgument(f"ps_args: ps: exit status {done.returncode}: {reason}")
    return parse_ps(done.stdout, pids)


def parse_ps(text: str, pids: frozenset[int]) -> ProcessTable:
    """Cut the output of `ps` to the lines of `pids`. Raises InvalidArgument: no column of pids."""
    lines = text.splitlines()
    titles = tuple(lines[0].split()) if lines else ()
    if "PID" not in titles:
        raise InvalidArgument("ps_args: Couldn't find PID field in ps output")
    column = titles.index("PID")
    processes = []
    for line in lines[1:]:
        # the last column is the command: it may hold spaces
        words = line.split(None, len(titles) - 1)
        if len(words) > column and words[column].isdecimal() and int(words[column]) in pids:
            processes.append(tuple(word.rstrip() for word in words))
    return ProcessTable(titles=titles, processes=tuple(processes))
