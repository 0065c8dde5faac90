"""Limits of a plain container besides memory, processors and processes; what the node has is not judged."""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument
from shoal.model.base import replace
from shoal.model.container import MoreLimits
from shoal.model.container_request import HostConfig

LEAST_RESERVATION_BYTES = 6 << 20
MOST_SWAPPINESS = 100
LEAST_TIME_MICROSECONDS, MOST_PERIOD_MICROSECONDS = 1_000, 1_000_000
_SET = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")


def more_limits(host: HostConfig, before: MoreLimits, memory_bytes: int) -> MoreLimits:
    """Return limits with those asked for over the ones before; what is 0 or empty stays as it is.

    `memory_bytes` is the limit of memory there will be. Raises InvalidArgument.
    """
    limits = replace(
        before,
        memory_swap_bytes=host.memory_swap or before.memory_swap_bytes,
        memory_reservation_bytes=host.memory_reservation or before.memory_reservation_bytes,
        memory_swappiness=before.memory_swappiness if host.memory_swappiness in (None, -1) else host.memory_swappiness,
        cpu_shares=host.cpu_shares or before.cpu_shares,
        cpu_period=host.cpu_period or before.cpu_period,
        cpu_quota=host.cpu_quota or before.cpu_quota,
        cpuset_cpus=host.cpuset_cpus or before.cpuset_cpus,
        cpuset_mems=host.cpuset_mems or before.cpuset_mems,
    )
    _check_memory(limits, memory_bytes)
    _check_processors(limits, host.nano_cpus)
    return limits


def _check_memory(limits: MoreLimits, memory_bytes: int) -> None:
    if limits.memory_swap_bytes > 0 and not memory_bytes:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < limits.memory_swap_bytes < memory_bytes:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory_swappiness is not None and not 0 <= limits.memory_swappiness <= MOST_SWAPPINESS:
        raise InvalidArgument(
            f"Invalid value: {limits.memory_swappiness}, valid memory swappiness range is 0-{MOST_SWAPPINESS}"
        )
    if limits.memory_reservation_bytes and limits.memory_reservation_bytes < LEAST_RESERVATION_BYTES:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if 0 < memory_bytes < limits.memory_reservation_bytes:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")


def _check_processors(limits: MoreLimits, nano_cpus: int) -> None:
    for value, word in ((limits.cpu_period, "CPU Period"), (limits.cpu_quota, "CPU Quota")):
        if nano_cpus and value:
            raise InvalidArgument(f"Conflicting options: Nano CPUs and {word} cannot both be set")
    if limits.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.cpu_period and not LEAST_TIME_MICROSECONDS <= limits.cpu_period <= MOST_PERIOD_MICROSECONDS:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < limits.cpu_quota < LEAST_TIME_MICROSECONDS:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for text, word in ((limits.cpuset_cpus, "cpus"), (limits.cpuset_mems, "mems")):
        if text and not _SET.fullmatch(text):
            raise InvalidArgument(f"Invalid value {text} for cpuset {word}: write numbers and ranges, such as 0-2,4")


def numbers_of_set(text: str) -> frozenset[int]:
    """Return the numbers that a set names: `0-2,4`."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
