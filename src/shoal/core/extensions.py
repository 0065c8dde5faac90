"""Shoal's own settings of a service: its labels that begin with `shoal.` (docs/reference/extensions.md).

All here apply in place: a change replaces no task.
"""

from __future__ import annotations

from collections.abc import Mapping

from shoal.errors import InvalidArgument
from shoal.lib.units import parse_duration_ns
from shoal.model.base import Struct

PREFIX = "shoal."
BALANCING = "shoal.lb"
INGRESS_POLICY = "shoal.ingress.policy"
DRAIN = "shoal.drain"
DEFAULT_DRAIN_NS = 2_000_000_000
# what each label may say; the first is what holds without it
VALUES = {
    BALANCING: ("random", "source", "prefer-local"),
    INGRESS_POLICY: ("cluster", "local"),
}


class Extensions(Struct):
    """`balancing`: random, source or prefer-local. `ingress_policy`: cluster or local (see model/netstate.py).

    `drain_ns`: how long a task that is to stop may finish what it has begun, at most.
    """

    balancing: str = VALUES[BALANCING][0]
    ingress_policy: str = VALUES[INGRESS_POLICY][0]
    drain_ns: int = DEFAULT_DRAIN_NS


def parse_extensions(labels: Mapping[str, str]) -> Extensions:
    """Return what a service's labels set.

    Raises:
        InvalidArgument: a label of an unknown name, or with a value it cannot have; the text names both.
    """
    for label in sorted(labels):
        if not label.startswith(PREFIX) or label == DRAIN:
            continue
        allowed = VALUES.get(label)
        if allowed is None:
            raise InvalidArgument(
                f'unknown service label "{label}": labels that begin with "{PREFIX}" are kept for Shoal\'s '
                f"own settings, which are {', '.join(sorted((*VALUES, DRAIN)))}; remove it"
            )
        if labels[label] not in allowed:
            raise InvalidArgument(f'service label {label}: "{labels[label]}" is none of {", ".join(allowed)}')
    return Extensions(
        balancing=labels.get(BALANCING, VALUES[BALANCING][0]),
        ingress_policy=labels.get(INGRESS_POLICY, VALUES[INGRESS_POLICY][0]),
        drain_ns=_duration(labels, DRAIN, DEFAULT_DRAIN_NS),
    )


def _duration(labels: Mapping[str, str], label: str, default_ns: int) -> int:
    if label not in labels:
        return default_ns
    try:
        duration_ns = parse_duration_ns(labels[label])
    except ValueError:
        duration_ns = -1
    if duration_ns < 0:
        raise InvalidArgument(f'service label {label}: "{labels[label]}" is no duration; write it as 2s or 500ms')
    return duration_ns
