"""Limits of a container that runs, changed: runc writes them into its cgroups. Blocking; called in a thread."""

from __future__ import annotations

import subprocess
from pathlib import Path

from shoal.engine.oci import CPU_PERIOD_MICROSECONDS, cpu_quota_microseconds
from shoal.errors import InvalidArgument
from shoal.model.container import ContainerConfig

RUNC_SECONDS = 30.0


def limit_arguments(before: ContainerConfig, after: ContainerConfig) -> list[str]:
    """Return the arguments of `runc update` that lead from one config's limits to another's; none if they agree."""
    arguments: list[str] = []
    if after.memory_bytes != before.memory_bytes:
        arguments += ["--memory", str(after.memory_bytes or -1)]
    if after.nano_cpus != before.nano_cpus:
        quota = cpu_quota_microseconds(after.nano_cpus) if after.nano_cpus else -1
        arguments += ["--cpu-period", str(CPU_PERIOD_MICROSECONDS), "--cpu-quota", str(quota)]
    if after.pids_limit != before.pids_limit:
        arguments += ["--pids-limit", str(after.pids_limit or -1)]
    return arguments


def apply_limits(runc_root: Path, container_id: str, arguments: list[str]) -> None:
    """Change the limits of a container that runs. Raises InvalidArgument with runc's reason."""
    command = ["runc", "--root", str(runc_root), "update", *arguments, container_id]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUNC_SECONDS)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"runc update ended with {done.returncode}"]
        raise InvalidArgument(f"cannot update container {container_id}: {lines[-1]}")
