"""What a container uses as Docker's JSON, from which `docker stats` computes its columns."""

from __future__ import annotations

from shoal.api.views.shared import Json, time_text
from shoal.model.streams import BlockCounter, ContainerStats, CpuUsage, InterfaceCounters, MemoryUsage


def stats_view(stats: ContainerStats, earlier: ContainerStats, container_id: str, name: str) -> Json:
    """Return a sample.

    Args:
        stats: the sample; one of time 0 is of a container that does not run.
        earlier: the one before, of time 0 if there is none.
        container_id: full id.
        name: without a slash.
    """
    view: Json = {
        "read": time_text(stats.at_ns),
        "preread": time_text(earlier.at_ns),
        "pids_stats": _processes(stats),
        "blkio_stats": _block(stats),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(stats.cpu, stats.at_ns != 0),
        "precpu_stats": _cpu(earlier.cpu, earlier.at_ns != 0),
        "memory_stats": _memory(stats.memory) if stats.at_ns else {},
        "name": f"/{name}",
        "id": container_id,
    }
    if stats.interfaces:
        view["networks"] = {interface.name: _interface(interface) for interface in stats.interfaces}
    return view


def _processes(stats: ContainerStats) -> Json:
    view: Json = {"current": stats.process_count} if stats.process_count else {}
    return view | ({"limit": stats.process_limit} if stats.process_limit else {})


def _block(stats: ContainerStats) -> Json:
    def counters(found: tuple[BlockCounter, ...]) -> list[Json] | None:
        if not stats.at_ns:
            return None
        return [{"major": each.major, "minor": each.minor, "op": each.operation, "value": each.value} for each in found]

    return {
        "io_service_bytes_recursive": counters(stats.block_bytes),
        "io_serviced_recursive": counters(stats.block_operations),
        "io_queue_recursive": counters(()),
        "io_service_time_recursive": counters(()),
        "io_wait_time_recursive": counters(()),
        "io_merged_recursive": counters(()),
        "io_time_recursive": counters(()),
        "sectors_recursive": counters(()),
    }


def _cpu(cpu: CpuUsage, is_known: bool) -> Json:
    usage: Json = {"total_usage": cpu.total_ns}
    if cpu.each_cpu_ns:
        usage["percpu_usage"] = list(cpu.each_cpu_ns)
    usage |= {"usage_in_kernelmode": cpu.kernel_ns, "usage_in_usermode": cpu.user_ns}
    view: Json = {"cpu_usage": usage}
    if is_known:
        view |= {"system_cpu_usage": cpu.machine_ns, "online_cpus": cpu.online_cpus}
    return view | {
        "throttling_data": {
            "periods": cpu.periods,
            "throttled_periods": cpu.throttled_periods,
            "throttled_time": cpu.throttled_ns,
        }
    }


def _memory(memory: MemoryUsage) -> Json:
    view: Json = {"usage": memory.usage}
    if memory.most_usage:
        view["max_usage"] = memory.most_usage
    if memory.failures:
        view["failcnt"] = memory.failures
    return view | {"stats": memory.details, "limit": memory.limit}


def _interface(interface: InterfaceCounters) -> Json:
    return {
        "rx_bytes": interface.received_bytes,
        "rx_packets": interface.received_packets,
        "rx_errors": interface.received_errors,
        "rx_dropped": interface.received_dropped,
        "tx_bytes": interface.sent_bytes,
        "tx_packets": interface.sent_packets,
        "tx_errors": interface.sent_errors,
        "tx_dropped": interface.sent_dropped,
    }
