"""Shoal's own settings of a service as flags of `shoal service`: what to stock clients is a label (extensions.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from shoal.core import cron
from shoal.core import extensions as names


class LabelFlag(NamedTuple):
    """A flag that sets a label; an empty value takes the label away.

    `word` is the type shown in help, empty for a switch. `also`: labels that come and go with it, and their values.
    """

    flag: str
    label: str
    word: str
    text: str
    also: Mapping[str, str] = {}

    @property
    def key(self) -> str:
        """The flag as click names it."""
        return self.flag.removeprefix("--").replace("-", "_")


LABEL_FLAGS: tuple[LabelFlag, ...] = (
    LabelFlag("--canary", names.CANARY, "number", "Slots an update changes before it waits for promotion (1, 10%)"),
    LabelFlag(
        "--canary-promote-after", names.PROMOTE_AFTER, "duration", "Promote by itself after this without failure"
    ),
    LabelFlag("--cron-history", names.HISTORY, "uint", "Runs before the last whose tasks and logs are kept"),
    LabelFlag("--cron-missed", names.MISSED, "string", "What becomes of a missed run (skip, once)"),
    LabelFlag("--cron-replicas", cron.REPLICAS, "uint", "Tasks of a run of a replicated service"),
    LabelFlag(
        "--cron-schedule", cron.SCHEDULE, "string", 'Run at these times ("0 2 * * *", @daily)', {cron.ENABLE: "true"}
    ),
    LabelFlag("--cron-skip-running", cron.SKIP_RUNNING, "", "Begin no run while one is under way"),
    LabelFlag("--cron-timezone", names.TIME_ZONE, "string", "Time zone of the schedule"),
    LabelFlag("--depends-on", names.DEPENDS_ON, "list", "Services to wait for (db,migrate:completed)"),
    LabelFlag("--devices", names.DEVICES, "list", "Devices of the node (/dev/fuse,/dev/sdb:/dev/disk:r)"),
    LabelFlag("--drain", names.DRAIN, "duration", "Time to finish requests in before a task gets its signal"),
    LabelFlag("--ingress-policy", names.INGRESS_POLICY, "string", "Who answers on published ports (cluster, local)"),
    LabelFlag("--ipc-mode", names.IPC_MODE, "string", "Shared memory and queues (private, host)"),
    LabelFlag("--lb", names.BALANCING, "string", "Balancing (random, source, prefer-local)"),
    LabelFlag("--pid-mode", names.PID_MODE, "string", "Processes that the containers see (private, host)"),
    LabelFlag("--privileged", names.PRIVILEGED, "", "Give the containers all power over their node"),
    LabelFlag("--progress-deadline", names.PROGRESS_DEADLINE, "duration", "Time in which a new task must come to run"),
    LabelFlag("--rebalance", names.REBALANCE, "string", "Move tasks to where fewer run (off, auto)"),
    LabelFlag("--restart-backoff", names.BACKOFF, "duration", "Double the restart delay with each failure, up to this"),
    LabelFlag(
        "--update-strategy", names.STRATEGY, "string", "How traffic goes over to new tasks (rolling, blue-green)"
    ),
    LabelFlag("--shm-size", names.SHM_SIZE, "bytes", "Size of /dev/shm"),
)


def set_labels(labels: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, str]:
    """Return labels with what the flags say: given ones set, empty ones and switches put out taken away."""
    changed = dict(labels)
    for each in LABEL_FLAGS:
        value = given.get(each.key)
        if value is None:
            continue
        text = ("true" if value else "") if isinstance(value, bool) else str(value)
        for label, wanted in {each.label: text, **each.also}.items():
            if text:
                changed[label] = wanted
            else:
                changed.pop(label, None)
    return changed
