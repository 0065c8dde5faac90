"""What a member of a raft group is started with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """Settings of a member.

    Attributes:
        raft_id: of this member, never that of a member there was before.
        cluster_id: ties sealed records to their swarm.
        folder: holds the log, the snapshots and the data key.
        random_int: spreads elections.
        founds: an empty log begins a new group; without it this member waits to be added to one.
        forgets_others: go on alone with the log there is, whoever else was in the group (force-new-cluster).
        unlock_key: opens the data key, if that is wrapped.
        election_ticks, heartbeat_ticks: in ticks of `tick_seconds`.
        snapshot_interval: entries between snapshots.
        entries_kept: entries kept in the log before a snapshot, for slow members.
        snapshots_kept: older snapshot files that are kept.
    """

    raft_id: int
    cluster_id: str
    folder: Path
    random_int: Callable[[int], int]
    founds: bool = False
    forgets_others: bool = False
    unlock_key: bytes | None = field(default=None, repr=False)
    election_ticks: int = 10
    heartbeat_ticks: int = 1
    tick_seconds: float = TICK_SECONDS
    snapshot_interval: int = 10_000
    entries_kept: int = 500
    snapshots_kept: int = 0
