"""The swarm as Docker's JSON; its keys never leave, its join tokens only through `GET /swarm`."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.api.views.node import tls_view
from shoal.api.views.shared import Json, meta_view
from shoal.model.objects import Cluster, Node, NodeDescription
from shoal.model.specs import ClusterSpec


def cluster_view(cluster: Cluster, issuer: NodeDescription | None) -> Json:
    """Return the swarm without tokens, as `GET /info` carries it.

    Args:
        cluster: the swarm.
        issuer: the description of a node whose certificate this root signed: where subject and key come from.
    """
    view = meta_view(cluster.id, cluster.meta)
    view["Spec"] = cluster_spec_view(cluster.spec)
    root = cluster.root_ca.certificate if cluster.root_ca is not None else ""
    view["TLSInfo"] = tls_view(
        root,
        issuer.certificate_issuer_subject if issuer is not None else b"",
        issuer.certificate_issuer_public_key if issuer is not None else b"",
    )
    view["RootRotationInProgress"] = False
    view["DefaultAddrPool"] = list(cluster.default_address_pool)
    view["SubnetSize"] = cluster.subnet_size
    view["DataPathPort"] = cluster.data_path_port
    return view


def issuer_of(nodes: Iterable[Node]) -> NodeDescription | None:
    """Return the description of a node that knows who signed its certificate; all of one root say the same."""
    return next((node.description for node in nodes if node.description.certificate_issuer_public_key), None)


def swarm_view(cluster: Cluster, issuer: NodeDescription | None) -> Json:
    """Return the swarm with its join tokens."""
    view = cluster_view(cluster, issuer)
    tokens = cluster.join_tokens
    view["JoinTokens"] = {
        "Worker": tokens.worker if tokens is not None else "",
        "Manager": tokens.manager if tokens is not None else "",
    }
    return view


def cluster_spec_view(spec: ClusterSpec) -> Json:
    """Return the spec; the signing pair is write-only."""
    ca_config: Json = {}
    if spec.ca_config.node_cert_expiry:
        ca_config["NodeCertExpiry"] = spec.ca_config.node_cert_expiry
    if spec.ca_config.force_rotate:
        ca_config["ForceRotate"] = spec.ca_config.force_rotate
    defaults: Json = {}
    if spec.task_defaults.log_driver is not None:
        driver = spec.task_defaults.log_driver
        defaults["LogDriver"] = {"Name": driver.name, "Options": driver.options}
    dispatcher: Json = {}
    if spec.dispatcher.heartbeat_period:
        dispatcher["HeartbeatPeriod"] = spec.dispatcher.heartbeat_period
    orchestration: Json = {}
    if spec.orchestration.task_history_retention_limit is not None:
        orchestration["TaskHistoryRetentionLimit"] = spec.orchestration.task_history_retention_limit
    return {
        "Name": spec.name,
        "Labels": spec.labels,
        "Orchestration": orchestration,
        "Raft": {
            "SnapshotInterval": spec.raft.snapshot_interval,
            "KeepOldSnapshots": spec.raft.keep_old_snapshots or 0,
            "LogEntriesForSlowFollowers": spec.raft.log_entries_for_slow_followers,
            "ElectionTick": spec.raft.election_tick,
            "HeartbeatTick": spec.raft.heartbeat_tick,
        },
        "Dispatcher": dispatcher,
        "CAConfig": ca_config,
        "TaskDefaults": defaults,
        "EncryptionConfig": {"AutoLockManagers": spec.encryption_config.auto_lock_managers},
    }
