"""What daemons that are gone have left in the kernel: told by the marks in names, and by who still lives.

A daemon lives while its shoald runs, its keeper or resolver does, or a container of it. Only looks; blocking.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from shoal.model.diagnosis import Leftover
from shoal.network.settings import names_of

CGROUPS = Path("/sys/fs/cgroup")
COMMAND_SECONDS = 30.0
_TABLE = re.compile(r"shoal_([0-9a-f]{6})(_\w+)?")
_LINK = re.compile(r"(?:ingh|shwg)-([0-9a-f]{6})")
_NAMESPACE = re.compile(r"ingress-([0-9a-f]{6})")
_CGROUP = re.compile(r"shoal-(?:keeper-|resolver-)?([0-9a-z]{25})")
_MODULES = ("shoal.daemon.main", "shoal.engine.keeper", "shoal.network.names", "shoal.network.proxy_process")


class Found:
    """Something with a mark: `mark` or `daemon_id` (the other is empty) says whose it is."""

    def __init__(self, what: str, removal: str, mark: str = "", daemon_id: str = "") -> None:
        self.what = what
        self.removal = removal
        self.mark = mark or names_of(daemon_id).mark
        self.daemon_id = daemon_id


def find_leftovers() -> tuple[Leftover, ...]:
    """Look through this network namespace, the mounts and the cgroups."""
    groups = _cgroups()
    alive = {daemon_id for path, daemon_id in groups if _has_process(path)} | _running_daemons()
    found = [*_namespaces(), *_tables(), *_links()]
    found += _groups_of(groups)
    return left_over(found, alive)


def left_over(found: Iterable[Found], alive: Iterable[str]) -> tuple[Leftover, ...]:
    """Return what is none of the living daemons', with their ids where a cgroup tells one."""
    listed = list(found)
    living = {names_of(daemon_id).mark for daemon_id in alive}
    owners = {one.mark: f"{one.daemon_id} (mark {one.mark})" for one in listed if one.daemon_id}
    return tuple(
        Leftover(owner=owners.get(one.mark, f"of the mark {one.mark}"), what=one.what, removal=one.removal)
        for one in listed
        if one.mark not in living
    )


def _namespaces() -> Iterator[Found]:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    points = [Path(words[4]) for words in lines if "nsfs" in words[words.index("-") :]]
    for point in dict.fromkeys(points):
        match = _NAMESPACE.fullmatch(point.name)
        if match is not None:
            beside = sum(other.parent == point.parent for other in set(points)) - 1
            more = f" and {beside} more beside it" if beside else ""
            yield Found(
                f"the network namespace {point}{more}",
                f"umount -l {point.parent}/* && rm -r {point.parent}",
                mark=match[1],
            )


def _tables() -> Iterator[Found]:
    try:
        done = subprocess.run(
            ["nft", "-j", "list", "tables"], capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
        listed = json.loads(done.stdout or b"{}").get("nftables", ())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return
    for entry in listed:
        table = entry.get("table")
        match = _TABLE.fullmatch(table["name"]) if table is not None else None
        if match is not None:
            name = f"{table['family']} {table['name']}"
            yield Found(f"the nftables table {name}", f"nft delete table {name}", mark=match[1])


def _links() -> Iterator[Found]:
    for _, name in socket.if_nameindex():
        match = _LINK.fullmatch(name)
        if match is not None:
            yield Found(f"the link {name}", f"ip link delete {name}", mark=match[1])


def _cgroups() -> list[tuple[Path, str]]:
    paths = (*CGROUPS.glob("shoal-*"), *CGROUPS.glob("*/shoal-*"))
    return [(path, match[1]) for path in paths if (match := _CGROUP.fullmatch(path.name)) is not None]


def _groups_of(groups: Iterable[tuple[Path, str]]) -> list[Found]:
    """Return one thing for all the directories, one a hierarchy, of a cgroup."""
    names = {path.name: daemon_id for path, daemon_id in groups}
    return [
        Found(
            f"the cgroup {name}", f"find {CGROUPS} -depth -path '*/{name}*' -type d -exec rmdir {{}} +", daemon_id=owner
        )
        for name, owner in names.items()
    ]


def _has_process(cgroup: Path) -> bool:
    for listing in cgroup.rglob("cgroup.procs"):
        try:
            if listing.read_text().strip():
                return True
        except OSError:
            continue
    return False


def _running_daemons() -> set[str]:
    """Return the ids of daemons of which a process runs: the directories it was given, or the lock it holds, tell."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            is_ours = any(word in _MODULES or Path(word).name == "shoald" for word in words[:4])
            if is_ours:
                locks = [link.readlink() for link in (process / "fd").iterdir()]
                directories = [lock.parent for lock in locks if lock.name == "lock"]
                directories += [Path(word) for word in words if word.startswith("/")]
                found |= {identity for place in directories if (identity := _identity(place))}
        except OSError:
            continue
    return found


def _identity(data_root: Path) -> str:
    try:
        return (data_root / "daemon-id").read_text().strip()
    except OSError:
        return ""
