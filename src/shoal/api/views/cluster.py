"""The swarm as Docker's JSON; its keys never leave, its join tokens only through `GET /swarm`."""

from __future__ import annotations

from shoal.api.views.node import tls_view
from shoal.api.views.shared import Json, meta_view
from shoal.ca.root import Issuer, issuer_of
from shoal.model.objects import Cluster
from shoal.model.specs import ClusterSpec


def cluster_view(cluster: Cluster) -> Json:
    """Return the swarm without tokens, as `GET /info` carries it."""
    issuer = signer_of(cluster)
    view = meta_view(cluster.id, cluster.meta)
    view["Spec"] = cluster_spec_view(cluster.spec)
    root = cluster.root_ca.certificate if cluster.root_ca is not None else ""
    view["TLSInfo"] = tls_view(root, issuer.subject if issuer else b"", issuer.public_key if issuer else b"")
    view["RootRotationInProgress"] = cluster.root_rotation is not None
    view["DefaultAddrPool"] = list(cluster.default_address_pool)
    view["SubnetSize"] = cluster.subnet_size
    view["DataPathPort"] = cluster.data_path_port
    return view


def signer_of(cluster: Cluster) -> Issuer | None:
    """Return whose certificates nodes should have: of the root, or of the one that is taking its place."""
    root = cluster.root_rotation.root if cluster.root_rotation is not None else cluster.root_ca
    return issuer_of(root.certificate) if root is not None else None


def swarm_view(cluster: Cluster) -> Json:
    """Return the swarm with its join tokens."""
    view = cluster_view(cluster)
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
    if spec.ca_config.external_cas:
        ca_config["ExternalCAs"] = [
            {
                "Protocol": each.protocol or "cfssl",
                "URL": each.url,
                "Options": each.options or None,
                "CACert": each.ca_cert,
            }
            for each in spec.ca_config.external_cas
        ]
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
