"""Starting the consensus engine of a manager, with the settings of its swarm."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from shoal.daemon.layout import Layout, SwarmMembership
from shoal.lib.ids import Ids
from shoal.raft.bootstrap import begin_from_state
from shoal.raft.driver import DriverSettings, RaftDriver, Transport
from shoal.store.store import Store


def new_raft_id(ids: Ids) -> int:
    """Return the id of a new member: never 0, and never that of another."""
    return int.from_bytes(ids.random_bytes(8), "big") >> 1 or 1


def begin_raft_from(layout: Layout, membership: SwarmMembership, state: Iterable[bytes], index: int, term: int) -> None:
    """Begin the log of this node's manager with a state that was kept elsewhere; blocks."""
    settings = DriverSettings(
        raft_id=membership.raft_id,
        cluster_id=membership.cluster_id,
        folder=layout.raft,
        random_int=random.SystemRandom().randrange,
    )
    begin_from_state(settings, state, index, term)


async def open_raft(
    layout: Layout,
    membership: SwarmMembership,
    store: Store,
    *,
    transport: Transport | None = None,
    founds: bool = True,
    forgets_others: bool = False,
    unlock_key: bytes | None = None,
    random_int: Callable[[int], int] | None = None,
) -> RaftDriver:
    """Open the log of this node's manager and run it under `store`.

    Args:
        layout, membership: where the log is, and whose it is.
        store: what entries are applied to.
        transport: to other managers; none for a swarm of one.
        founds: an empty log begins the swarm; False for a manager that joins one.
        forgets_others: go on alone (force-new-cluster).
        unlock_key: opens a data key that is wrapped.
        random_int: spreads elections, by default the system's chance.

    Raises:
        Locked, WrongUnlockKey: the data key is wrapped, and the unlock key does not open it.
    """
    settings = DriverSettings(
        raft_id=membership.raft_id,
        cluster_id=membership.cluster_id,
        folder=layout.raft,
        random_int=random_int or random.SystemRandom().randrange,
        founds=founds,
        forgets_others=forgets_others,
        unlock_key=unlock_key,
    )
    return await RaftDriver.start(settings, store, transport)
