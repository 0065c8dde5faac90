"""What a manager tells of its consensus, for who watches it."""

from __future__ import annotations

from shoal.model.base import Struct


class ConsensusStatus(Struct):
    """How a manager stands in the Raft group; `members` counts voters and those that do not vote yet."""

    is_leader: bool = False
    has_leader: bool = False
    term: int = 0
    applied_index: int = 0
    members: int = 0
    members_reachable: int = 0
