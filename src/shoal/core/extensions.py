"""Shoal's own settings of a service: its labels that begin with `shoal.` (docs/reference/extensions.md).

A change of one replaces no task, but for those that core/privileges.py reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from shoal.errors import InvalidArgument
from shoal.lib.units import parse_duration_ns
from shoal.model.base import Struct

PREFIX = "shoal."
BALANCING = "shoal.lb"
INGRESS_POLICY = "shoal.ingress.policy"
DRAIN = "shoal.drain"
PROGRESS_DEADLINE = "shoal.update.progress-deadline"
STRATEGY = "shoal.update.strategy"
CANARY = "shoal.update.canary"
PROMOTE_AFTER = "shoal.update.canary.promote-after"
BACKOFF = "shoal.restart.backoff"
# core/orchestrate/moves.py reads it
REBALANCE = "shoal.rebalance"
# core/privileges.py reads them; a change of one replaces tasks
PRIVILEGED = "shoal.privileged"
DEVICES = "shoal.devices"
SHM_SIZE = "shoal.shm-size"
PID_MODE = "shoal.pid-mode"
IPC_MODE = "shoal.ipc-mode"
# core/dependencies.py reads it
DEPENDS_ON = "shoal.depends-on"
# of services that run at times: core/cron.py reads them
TIME_ZONE = "shoal.cron.timezone"
MISSED = "shoal.cron.missed"
HISTORY = "shoal.cron.history"
BLUE_GREEN = "blue-green"
# what holds without the label; the reference gives the same words, a test compares
DEFAULTS: dict[str, str] = {
    BALANCING: "random",
    INGRESS_POLICY: "cluster",
    DRAIN: "2s",
    PROGRESS_DEADLINE: "10m",
    STRATEGY: "rolling",
    CANARY: "none",
    PROMOTE_AFTER: "never",
    BACKOFF: "none",
    REBALANCE: "off",
    DEPENDS_ON: "none",
    PRIVILEGED: "false",
    DEVICES: "none",
    SHM_SIZE: "64m",
    PID_MODE: "private",
    IPC_MODE: "private",
    TIME_ZONE: "UTC",
    MISSED: "skip",
    HISTORY: "none",
}
# what labels that take one word may say
CHOICES: dict[str, tuple[str, ...]] = {
    BALANCING: ("random", "source", "prefer-local"),
    INGRESS_POLICY: ("cluster", "local"),
    STRATEGY: ("rolling", BLUE_GREEN),
    MISSED: ("skip", "once"),
    PID_MODE: ("private", "host"),
    IPC_MODE: ("private", "host"),
    REBALANCE: ("off", "auto"),
}
_PERCENT_MOST = 100


class Canary(Struct):
    """How many slots an update changes before it waits for its promotion: so many, or so many of a hundred."""

    count: int = 0
    percent: int = 0

    def slots_of(self, total: int) -> int:
        """Return how many of `total` slots that is: parts count whole, so a share is one slot at least."""
        return self.count or math.ceil(total * self.percent / _PERCENT_MOST)


class Extensions(Struct):
    """What the labels of a service set; times in ns, 0 where the label is not set and has no default.

    `balancing`: random, source or prefer-local. `ingress_policy`: cluster or local (see model/netstate.py).
    `drain_ns`: how long a task that is to stop may finish what it has begun, at most.
    `progress_deadline_ns`: how long a slot's new tasks may take until one runs, before the update fails.
    `is_blue_green`: an update gives all traffic to its new tasks at once.
    `canary`: after how many slots an update waits; None: it does not. `promote_after_ns`: how long, without failure.
    `backoff_most_ns`: restart delays double with each failure in a row up to this.
    """

    balancing: str
    ingress_policy: str
    drain_ns: int
    progress_deadline_ns: int
    is_blue_green: bool
    canary: Canary | None
    promote_after_ns: int
    backoff_most_ns: int


def parse_extensions(labels: Mapping[str, str]) -> Extensions:
    """Return what a service's labels set.

    Raises:
        InvalidArgument: a label of an unknown name, or with a value it cannot have; the text names both.
    """
    for label in sorted(labels):
        if label.startswith(PREFIX) and label not in DEFAULTS:
            raise InvalidArgument(
                f'unknown service label "{label}": labels that begin with "{PREFIX}" are kept for Shoal\'s '
                f"own settings, which are {', '.join(sorted(DEFAULTS))}; remove it"
            )
    if PROMOTE_AFTER in labels and CANARY not in labels:
        raise InvalidArgument(f"service label {PROMOTE_AFTER} needs {CANARY}: set that, too, or remove it")
    canary = _canary(labels[CANARY]) if CANARY in labels else None
    is_blue_green = _choice(labels, STRATEGY) == BLUE_GREEN
    if is_blue_green and canary is not None and canary.percent != _PERCENT_MOST:
        raise InvalidArgument(
            f'service label {CANARY}: "{labels[CANARY]}": all traffic goes over at once with {STRATEGY}={BLUE_GREEN}: '
            f"write {_PERCENT_MOST}%, and it awaits its promotion before"
        )
    _choice(labels, REBALANCE)
    return Extensions(
        balancing=_choice(labels, BALANCING),
        ingress_policy=_choice(labels, INGRESS_POLICY),
        drain_ns=_duration(labels, DRAIN),
        progress_deadline_ns=_duration(labels, PROGRESS_DEADLINE, least_ns=1),
        is_blue_green=is_blue_green,
        canary=canary,
        promote_after_ns=_duration(labels, PROMOTE_AFTER, least_ns=1) if PROMOTE_AFTER in labels else 0,
        backoff_most_ns=_duration(labels, BACKOFF, least_ns=1) if BACKOFF in labels else 0,
    )


def _choice(labels: Mapping[str, str], label: str) -> str:
    value = labels.get(label, DEFAULTS[label])
    if value not in CHOICES[label]:
        raise InvalidArgument(f'service label {label}: "{value}" is none of {", ".join(CHOICES[label])}')
    return value


def _duration(labels: Mapping[str, str], label: str, least_ns: int = 0) -> int:
    text = labels.get(label, DEFAULTS[label])
    try:
        duration_ns = parse_duration_ns(text)
    except ValueError:
        duration_ns = -1
    if duration_ns < least_ns:
        longer = " longer than 0" if least_ns else ""
        raise InvalidArgument(f'service label {label}: "{text}" is no duration{longer}; write it as 2s or 500ms')
    return duration_ns


def _canary(text: str) -> Canary:
    number = text.removesuffix("%")
    # plain digits only: int() takes more than people mean
    value = int(number) if number.isascii() and number.isdecimal() else 0
    is_share = text.endswith("%")
    if value < 1 or (is_share and value > _PERCENT_MOST):
        raise InvalidArgument(
            f'service label {CANARY}: "{text}" is neither a number of tasks from 1 on nor a share from 1% to 100%'
        )
    return Canary(percent=value) if is_share else Canary(count=value)
