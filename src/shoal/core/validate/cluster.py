"""A ClusterSpec as it is stored: its defaults, and what is refused (docker-swarm.md 3.3)."""

from __future__ import annotations

from shoal.core.privileges import parse_allowed
from shoal.errors import InvalidArgument
from shoal.model.base import replace
from shoal.model.specs import CAConfig, ClusterSpec, DispatcherConfig, OrchestrationConfig, RaftConfig

CLUSTER_NAME = "default"
TASK_HISTORY_LIMIT = 5
SNAPSHOT_INTERVAL_ENTRIES = 10_000
LOG_ENTRIES_FOR_SLOW_FOLLOWERS = 500
ELECTION_TICKS = 10
HEARTBEAT_TICKS = 1
HEARTBEAT_PERIOD_NS = 5_000_000_000
NODE_CERTIFICATE_EXPIRY_NS = 2160 * 3_600_000_000_000
MIN_CERTIFICATE_EXPIRY_NS = 3_600_000_000_000


def certificate_expiry_ns(spec: ClusterSpec) -> int:
    """Return how long nodes' certificates hold, also of a spec that does not say."""
    return spec.ca_config.node_cert_expiry or NODE_CERTIFICATE_EXPIRY_NS


def prepare_cluster(spec: ClusterSpec, current: ClusterSpec | None = None) -> ClusterSpec:
    """Return `spec` with defaults for what is absent or zero.

    Args:
        spec: as the client sent it, whole.
        current: the spec it takes the place of; None when the swarm is made.

    Raises:
        InvalidArgument: another name than `default`, or a duration out of bounds.
    """
    if spec.name not in ("", CLUSTER_NAME):
        raise InvalidArgument('swarm spec must be named "default"')
    parse_allowed(spec.labels)
    ca_config = spec.ca_config
    rotations = current.ca_config.force_rotate if current is not None else 0
    if ca_config.signing_ca_key and not ca_config.signing_ca_cert:
        raise InvalidArgument("CAConfig.SigningCAKey needs CAConfig.SigningCACert")
    if ca_config.force_rotate < rotations:
        raise InvalidArgument(f"CAConfig.ForceRotate only grows: it is {rotations}, not {ca_config.force_rotate}")
    if ca_config.node_cert_expiry and ca_config.node_cert_expiry < MIN_CERTIFICATE_EXPIRY_NS:
        raise InvalidArgument("minimum certificate expiry time is: 1h0m0s")
    if spec.dispatcher.heartbeat_period < 0:
        raise InvalidArgument("heartbeat time period cannot be a negative duration")
    return replace(
        spec,
        name=CLUSTER_NAME,
        orchestration=_prepare_orchestration(spec.orchestration),
        raft=_prepare_raft(spec.raft),
        dispatcher=DispatcherConfig(heartbeat_period=spec.dispatcher.heartbeat_period or HEARTBEAT_PERIOD_NS),
        ca_config=CAConfig(
            node_cert_expiry=certificate_expiry_ns(spec),
            external_cas=ca_config.external_cas,
            # the signing pair is not kept here: it is the swarm's root, or becomes it
            force_rotate=ca_config.force_rotate,
        ),
    )


def _prepare_orchestration(config: OrchestrationConfig) -> OrchestrationConfig:
    if config.task_history_retention_limit is None:
        return OrchestrationConfig(task_history_retention_limit=TASK_HISTORY_LIMIT)
    return config


def _prepare_raft(config: RaftConfig) -> RaftConfig:
    election, heartbeat = config.election_tick or ELECTION_TICKS, config.heartbeat_tick or HEARTBEAT_TICKS
    if not 0 < heartbeat < election:
        raise InvalidArgument(
            f"invalid raft ticks: ElectionTick ({election}) must be above HeartbeatTick ({heartbeat})"
        )
    return replace(
        config,
        snapshot_interval=config.snapshot_interval or SNAPSHOT_INTERVAL_ENTRIES,
        keep_old_snapshots=config.keep_old_snapshots or 0,
        log_entries_for_slow_followers=config.log_entries_for_slow_followers or LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
        election_tick=election,
        heartbeat_tick=heartbeat,
    )
