"""When the nodes are to make new keys for encrypted networks."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.core.networks import is_overlay, overlay_options
from shoal.model.base import replace
from shoal.model.objects import Cluster, Network

# as Docker's managers do with the keys of its networks
ROTATION_PERIOD_NS = 12 * 3600 * 1_000_000_000


def is_encrypted(network: Network) -> bool:
    """Whether what tasks say to each other on a network is encrypted between nodes."""
    return is_overlay(network) and overlay_options(network.spec.options).encrypted


def rotation_due_ns(cluster: Cluster, networks: Iterable[Network]) -> int | None:
    """Return when the next rotation is to be ordered, None while no network is encrypted."""
    made = [network.meta.created_at_ns for network in networks if is_encrypted(network)]
    if not made:
        return None
    return max(cluster.network_keys_ordered_at_ns, min(made)) + ROTATION_PERIOD_NS


def order_rotation(cluster: Cluster, now_ns: int) -> Cluster:
    """Return the cluster with the order to make new keys."""
    generation = cluster.network_key_generation + 1
    return replace(cluster, network_key_generation=generation, network_keys_ordered_at_ns=now_ns)
