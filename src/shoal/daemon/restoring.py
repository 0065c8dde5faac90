"""Backup of a swarm by one of its managers, and a swarm of one manager made out of a backup."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog

from shoal.ca.root import Subject, make_request
from shoal.daemon.backup import BackupHead, Opened, in_thread, open_backup, seal
from shoal.daemon.credentials import Credentials
from shoal.daemon.joining import advertise_address, split_part
from shoal.daemon.layout import Layout, SwarmMembership
from shoal.daemon.manager import Manager
from shoal.daemon.raft import begin_raft_from, new_raft_id
from shoal.errors import InvalidArgument, NotBuilt
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.manager.lookup import require_cluster
from shoal.manager.root_change import active_root, sign_here
from shoal.model.node_port import ManagerAddress
from shoal.model.objects import Node
from shoal.model.requests import RestoreRequest
from shoal.model.states import Role
from shoal.store.store import Store

_log = structlog.get_logger(__name__)

# The swarm may have gone on after the backup: versions that its nodes have seen are not given out again.
INDEXES_SKIPPED = 1_000_000
TERMS_SKIPPED = 1_000


async def back_up(manager: Manager, membership: SwarmMembership, secret: str, now_ns: int) -> AsyncIterator[bytes]:
    """Yield a backup of all that this manager knows, sealed; everything acknowledged before the call is in it.

    Args:
        manager: knows it.
        membership: of its node.
        secret: a passphrase; empty: the swarm's unlock key.
        now_ns: when it is made.

    Raises:
        InvalidArgument: there is neither a passphrase nor an unlock key.
        Unavailable: there is no quorum, so nobody knows whether this is all.
    """
    await manager.store.barrier()
    secret = secret or require_cluster(manager.store.view).unlock_key
    if not secret:
        raise InvalidArgument(
            "the backup holds the key of the swarm's root and must be sealed: "
            "give --passphrase-file, or turn autolock on, whose unlock key is used then"
        )
    head = BackupHead(
        cluster_id=membership.cluster_id,
        node_id=membership.node_id,
        index=manager.raft.applied_index,
        term=manager.raft.term,
        listen_address=membership.listen_address,
        advertise_address=membership.advertise_address,
        made_at_ns=now_ns,
    )
    pieces = seal(secret, head, manager.store.snapshot())
    _log.info("backup begun", index=head.index)
    return in_thread(pieces)


async def restore(request: RestoreRequest, content: bytes, layout: Layout, clock: Clock, ids: Ids) -> SwarmMembership:
    """Make of this node the manager that a backup was made by; when this returns all but the membership is on disk.

    Raises:
        InvalidArgument, Unauthenticated: the file or the passphrase is not right, or an address is none.
    """
    opened = await asyncio.to_thread(open_backup, request.passphrase, content)
    return await asyncio.to_thread(_restore, request, opened, layout, clock, ids)


def _restore(request: RestoreRequest, opened: Opened, layout: Layout, clock: Clock, ids: Ids) -> SwarmMembership:
    head = opened.head
    store = Store(clock)
    store.restore(opened.state)
    cluster = require_cluster(store.view)
    node = store.view.get(Node, head.node_id)
    if node is None:
        raise InvalidArgument(f"the backup does not know the node {head.node_id} that made it")
    root = active_root(cluster)
    if not root.key:
        raise NotBuilt("restoring a swarm whose root only an external CA can sign with is not built")
    listen_host, listen_port = split_part("ListenAddr", request.listen_addr or head.listen_address)
    advertise = head.advertise_address
    if request.advertise_addr:
        advertise = advertise_address(request.advertise_addr, listen_host, listen_port)
    raft_id = new_raft_id(ids)
    membership = SwarmMembership(
        node_id=node.id,
        cluster_id=cluster.id,
        raft_id=raft_id,
        advertise_address=advertise,
        listen_address=f"{listen_host}:{listen_port}",
        node_number=node.number,
        managers=(ManagerAddress(node_id=node.id, raft_id=raft_id, address=advertise),),
    )
    made = make_request()
    subject = Subject(node_id=node.id, role=Role.MANAGER, cluster_id=cluster.id)
    certificate = sign_here(cluster, made.request, subject, clock.now_ns())
    roots = cluster.root_ca.certificate if cluster.root_ca is not None else root.certificate
    Credentials(layout.certificate_files, clock).store(made.key, certificate, roots)
    begin_raft_from(layout, membership, opened.state, head.index + INDEXES_SKIPPED, head.term + TERMS_SKIPPED)
    return membership
