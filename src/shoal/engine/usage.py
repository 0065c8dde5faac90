"""What a container uses, read from its cgroups (version 1 or 2) and from its network's counters. Blocking.

Parsing is in pure functions of text; names of the kernel's files are as in its documentation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from shoal.engine.host import Host
from shoal.model.streams import BlockCounter, ContainerStats, CpuUsage, InterfaceCounters, MemoryUsage

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_NO_LIMIT_FROM = 1 << 62

Read = Callable[[str, str], str]


def read_usage(host: Host, cgroup: str, pid: int, now_ns: int) -> ContainerStats:
    """Return what a container uses.

    Args:
        host: where cgroups are mounted, and their version.
        cgroup: the container's path in every hierarchy.
        pid: its first process, in whose network namespace interfaces are counted.
        now_ns: the time.
    """

    def read(controller: str, name: str) -> str:
        mount = host.cgroup_mounts[0] if host.cgroup_v2 else _mount_of(host.cgroup_mounts, controller)
        return _text(f"{mount}{cgroup}/{name}") if mount else ""

    machine = _text("/proc/stat")
    cpu, memory, counters, count, limit = (_read_v2 if host.cgroup_v2 else _read_v1)(read)
    block_bytes, block_operations = counters
    limited = memory.limit if 0 < memory.limit < host.memory_bytes else host.memory_bytes
    return ContainerStats(
        at_ns=now_ns,
        cgroup_v2=host.cgroup_v2,
        cpu=_with_machine(cpu, machine),
        memory=MemoryUsage(
            usage=memory.usage,
            most_usage=memory.most_usage,
            failures=memory.failures,
            limit=limited,
            details=memory.details,
        ),
        block_bytes=block_bytes,
        block_operations=block_operations,
        process_count=count,
        process_limit=limit if limit < _NO_LIMIT_FROM else 0,
        interfaces=parse_interfaces(_text(f"/proc/{pid}/net/dev")),
    )


def _mount_of(mounts: tuple[str, ...], controller: str) -> str:
    return next((mount for mount in mounts if controller in Path(mount).name.split(",")), "")


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _number(text: str) -> int:
    word = text.strip()
    return int(word) if word.isdecimal() else 0


def parse_pairs(text: str) -> dict[str, int]:
    """Read lines `name number`."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def machine_time_ns(stat: str) -> tuple[int, int]:
    """Return the processor time of the whole machine since its start, and how many processors it has (/proc/stat)."""
    lines = [line.split() for line in stat.splitlines() if line.startswith("cpu")]
    total = sum(int(word) for word in lines[0][1:8]) * _TICK_NS if lines else 0
    return total, max(len(lines) - 1, 0)


def _with_machine(cpu: CpuUsage, stat: str) -> CpuUsage:
    machine_ns, online = machine_time_ns(stat)
    return CpuUsage(
        total_ns=cpu.total_ns,
        user_ns=cpu.user_ns,
        kernel_ns=cpu.kernel_ns,
        each_cpu_ns=cpu.each_cpu_ns,
        machine_ns=machine_ns,
        online_cpus=online,
        periods=cpu.periods,
        throttled_periods=cpu.throttled_periods,
        throttled_ns=cpu.throttled_ns,
    )


_Found = tuple[CpuUsage, MemoryUsage, tuple[tuple[BlockCounter, ...], tuple[BlockCounter, ...]], int, int]


def _read_v1(read: Read) -> _Found:
    ticks, throttling = parse_pairs(read("cpuacct", "cpuacct.stat")), parse_pairs(read("cpu", "cpu.stat"))
    cpu = CpuUsage(
        total_ns=_number(read("cpuacct", "cpuacct.usage")),
        user_ns=ticks.get("user", 0) * _TICK_NS,
        kernel_ns=ticks.get("system", 0) * _TICK_NS,
        each_cpu_ns=tuple(int(word) for word in read("cpuacct", "cpuacct.usage_percpu").split()),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
    )
    memory = MemoryUsage(
        usage=_number(read("memory", "memory.usage_in_bytes")),
        most_usage=_number(read("memory", "memory.max_usage_in_bytes")),
        failures=_number(read("memory", "memory.failcnt")),
        limit=_number(read("memory", "memory.limit_in_bytes")),
        details=parse_pairs(read("memory", "memory.stat")),
    )
    counters = (
        parse_block_counters(read("blkio", "blkio.throttle.io_service_bytes_recursive")),
        parse_block_counters(read("blkio", "blkio.throttle.io_serviced_recursive")),
    )
    return cpu, memory, counters, _number(read("pids", "pids.current")), _number(read("pids", "pids.max"))


def _read_v2(read: Read) -> _Found:
    usage = parse_pairs(read("", "cpu.stat"))
    cpu = CpuUsage(
        total_ns=usage.get("usage_usec", 0) * 1000,
        user_ns=usage.get("user_usec", 0) * 1000,
        kernel_ns=usage.get("system_usec", 0) * 1000,
        periods=usage.get("nr_periods", 0),
        throttled_periods=usage.get("nr_throttled", 0),
        throttled_ns=usage.get("throttled_usec", 0) * 1000,
    )
    memory = MemoryUsage(
        usage=_number(read("", "memory.current")),
        failures=parse_pairs(read("", "memory.events")).get("max", 0),
        limit=_number(read("", "memory.max")),
        details=parse_pairs(read("", "memory.stat")),
    )
    counters = parse_io_stat(read("", "io.stat"))
    return cpu, memory, counters, _number(read("", "pids.current")), _number(read("", "pids.max"))


def parse_block_counters(text: str) -> tuple[BlockCounter, ...]:
    """Read lines `major:minor Operation number` (blkio of version 1)."""
    found = []
    for words in (line.split() for line in text.splitlines()):
        if len(words) == 3 and ":" in words[0]:
            major, _, minor = words[0].partition(":")
            found.append(
                BlockCounter(major=int(major), minor=int(minor), operation=words[1].lower(), value=int(words[2]))
            )
    return tuple(found)


def parse_io_stat(text: str) -> tuple[tuple[BlockCounter, ...], tuple[BlockCounter, ...]]:
    """Read lines `major:minor rbytes=… wbytes=… rios=… wios=…` (io.stat of version 2): bytes, and operations."""
    sizes: list[BlockCounter] = []
    operations: list[BlockCounter] = []
    kinds = {"rbytes": ("read", sizes), "wbytes": ("write", sizes), "rios": ("read", operations)}
    kinds["wios"] = ("write", operations)
    for words in (line.split() for line in text.splitlines()):
        if not words or ":" not in words[0]:
            continue
        major, _, minor = words[0].partition(":")
        for key, _, value in (word.partition("=") for word in words[1:]):
            if key in kinds and value.isdecimal():
                operation, target = kinds[key]
                target.append(BlockCounter(major=int(major), minor=int(minor), operation=operation, value=int(value)))
    return tuple(sizes), tuple(operations)


def parse_interfaces(text: str) -> tuple[InterfaceCounters, ...]:
    """Read /proc/PID/net/dev; the loopback is left out, as Docker does."""
    found = []
    for name, colon, rest in (line.partition(":") for line in text.splitlines()):
        words = rest.split()
        if not colon or name.strip() == "lo" or len(words) < 12:
            continue
        received, sent = [int(word) for word in words[:4]], [int(word) for word in words[8:12]]
        found.append(
            InterfaceCounters(
                name=name.strip(),
                received_bytes=received[0],
                received_packets=received[1],
                received_errors=received[2],
                received_dropped=received[3],
                sent_bytes=sent[0],
                sent_packets=sent[1],
                sent_errors=sent[2],
                sent_dropped=sent[3],
            )
        )
    return tuple(found)
