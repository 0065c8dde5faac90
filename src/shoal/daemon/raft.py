"""Starting the consensus engine of a manager, with the settings of its swarm."""

from __future__ import annotations

import random

from shoal.daemon.layout import Layout, SwarmMembership
from shoal.raft.driver import DriverSettings, RaftDriver
from shoal.store.store import Store


async def open_raft(layout: Layout, membership: SwarmMembership, store: Store) -> RaftDriver:
    """Open the log of this node's manager and run it under `store`."""
    settings = DriverSettings(
        raft_id=membership.raft_id,
        cluster_id=membership.cluster_id,
        folder=layout.raft,
        voters=(membership.raft_id,),
        random_int=random.SystemRandom().randrange,
    )
    return await RaftDriver.start(settings, store)
