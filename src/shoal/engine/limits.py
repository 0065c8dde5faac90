"""Limits of a container: in the form of its OCI spec, and changed while it runs, by `runc update`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from shoal.core.validate.plain_limits import numbers_of_set
from shoal.engine.host import Host
from shoal.errors import InvalidArgument
from shoal.model.container import ContainerConfig

RUNC_SECONDS = 30.0
LEAST_MEMORY_BYTES = 6 << 20
CPU_PERIOD_MICROSECONDS = 100_000
LEAST_QUOTA_MICROSECONDS = 1_000


def check_limits(config: ContainerConfig, host: Host) -> None:
    """Refuse limits that this host cannot set. Raises InvalidArgument."""
    if 0 < config.memory_bytes < LEAST_MEMORY_BYTES:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if config.nano_cpus < 0 or config.nano_cpus > host.cpu_count * 1_000_000_000:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {host.cpu_count}.00, as there are only {host.cpu_count} CPUs available"
        )
    if config.pids_limit < 0 or config.memory_bytes < 0:
        raise InvalidArgument("limits of memory and pids must not be negative: 0 is no limit")
    asked = config.more_limits.cpuset_cpus
    if numbers_of_set(asked) - set(range(host.cpu_count)):
        raise InvalidArgument(
            f"Requested CPUs are not available - requested {asked}, available: 0-{host.cpu_count - 1}"
        )
    if config.more_limits.memory_swap_bytes > 0 and not host.limits_swap:
        raise InvalidArgument("HostConfig.MemorySwap: this node's kernel does not limit swap: leave it out")


def limits_of(config: ContainerConfig, host: Host) -> dict[str, Any]:
    """Return the limits as an OCI spec has them."""
    more = config.more_limits
    memory: dict[str, Any] = {"limit": config.memory_bytes} if config.memory_bytes else {}
    if swap := _swap_bytes(config, host):
        memory["swap"] = swap
    if more.memory_reservation_bytes:
        memory["reservation"] = more.memory_reservation_bytes
    if more.memory_swappiness is not None and not host.cgroup_v2:
        memory["swappiness"] = more.memory_swappiness
    period, quota = _processor_time(config)
    cpu = {
        "quota": quota,
        "period": period,
        "shares": more.cpu_shares,
        "cpus": more.cpuset_cpus,
        "mems": more.cpuset_mems,
    }
    parts = {"memory": memory, "cpu": _set(cpu), "pids": _set({"limit": config.pids_limit})}
    return _set(parts)


def _set(values: dict[str, Any]) -> dict[str, Any]:
    """Return those that are not empty."""
    return {name: value for name, value in values.items() if value}


def _swap_bytes(config: ContainerConfig, host: Host) -> int:
    """Return the limit of memory and swap together: twice the memory where nobody says another, as Docker; 0: none."""
    if not host.limits_swap or not config.memory_bytes:
        return 0
    return config.more_limits.memory_swap_bytes or 2 * config.memory_bytes


def _processor_time(config: ContainerConfig) -> tuple[int, int]:
    """Return the period and how long the processes of a container may run in each, in microseconds; 0: no limit."""
    if config.nano_cpus:
        quota = config.nano_cpus * CPU_PERIOD_MICROSECONDS // 1_000_000_000
        return CPU_PERIOD_MICROSECONDS, max(quota, LEAST_QUOTA_MICROSECONDS)
    return config.more_limits.cpu_period, config.more_limits.cpu_quota


def limit_arguments(before: ContainerConfig, after: ContainerConfig, host: Host) -> list[str]:
    """Return the arguments of `runc update` that lead from one config's limits to another's; none if they agree."""
    arguments: list[str] = []
    swap = _swap_bytes(after, host)
    if (after.memory_bytes, swap) != (before.memory_bytes, _swap_bytes(before, host)):
        arguments += ["--memory", str(after.memory_bytes or -1)]
        if host.limits_swap:
            arguments += ["--memory-swap", str(swap or -1)]
    if _processor_time(after) != _processor_time(before):
        period, quota = _processor_time(after)
        arguments += ["--cpu-period", str(period or CPU_PERIOD_MICROSECONDS), "--cpu-quota", str(quota or -1)]
    if after.pids_limit != before.pids_limit:
        arguments += ["--pids-limit", str(after.pids_limit or -1)]
    old, new = before.more_limits, after.more_limits
    for flag, was, is_now in (
        ("--cpu-share", old.cpu_shares, new.cpu_shares),
        ("--cpuset-cpus", old.cpuset_cpus, new.cpuset_cpus),
        ("--cpuset-mems", old.cpuset_mems, new.cpuset_mems),
        ("--memory-reservation", old.memory_reservation_bytes, new.memory_reservation_bytes),
    ):
        if was != is_now:
            arguments += [flag, str(is_now)]
    return arguments


def apply_limits(runc_root: Path, container_id: str, arguments: list[str]) -> None:
    """Change the limits of a container that runs; blocks. Raises InvalidArgument with runc's reason."""
    command = ["runc", "--root", str(runc_root), "update", *arguments, container_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUNC_SECONDS)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"runc update ended with {done.returncode}"]
        raise InvalidArgument(f"cannot update container {container_id}: {lines[-1]}")
