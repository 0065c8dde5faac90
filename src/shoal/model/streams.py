"""What runs beside a container's first process and what is seen of it: execs, attached clients, processes, statistics.

Plain values: they are the same on the node that has the container and on the one whose client asked.
"""

from __future__ import annotations

from shoal.model.base import Struct


class ExecConfig(Struct):
    """A command to run in a running container.

    `env` is added to the container's own; empty `user` and `working_dir` mean the container's. What is not attached
    reads from and writes to /dev/null. `detach_keys` empty is Docker's ctrl-p,ctrl-q. `console_size` is (height,
    width) in characters, None for 24 by 80.
    """

    arguments: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] | None = None


class ExecRecord(Struct):
    """A command in a container. `exit_code` is None before it has ended; `pid` is the host's number of it."""

    id: str
    container_id: str
    config: ExecConfig
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


class AttachOptions(Struct):
    """What an attached client wants.

    `logs`: first what was said before; `stream`: what is said from now on, and a way in if `stdin` is set.
    """

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    logs: bool = False
    stream: bool = True


class Output(Struct):
    """A piece of what a process said. `stream` is stdout or stderr; a terminal says all on stdout."""

    stream: str
    data: bytes


class ProcessTable(Struct):
    """Processes of a container, as `ps` shows them."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


class CpuUsage(Struct):
    """Processor time used since the start of the container, and that of the whole machine, in nanoseconds."""

    total_ns: int = 0
    user_ns: int = 0
    kernel_ns: int = 0
    each_cpu_ns: tuple[int, ...] = ()
    machine_ns: int = 0
    online_cpus: int = 0
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


class MemoryUsage(Struct):
    """Memory in bytes. `details` are the kernel's own names (memory.stat); 0 means the kernel does not say."""

    usage: int = 0
    most_usage: int = 0
    failures: int = 0
    limit: int = 0
    details: dict[str, int] = {}


class BlockCounter(Struct):
    """Bytes or operations of one kind (`read`, `write`, …) on one block device."""

    major: int
    minor: int
    operation: str
    value: int


class InterfaceCounters(Struct):
    """What went over one interface of the container since it is there."""

    name: str
    received_bytes: int = 0
    received_packets: int = 0
    received_errors: int = 0
    received_dropped: int = 0
    sent_bytes: int = 0
    sent_packets: int = 0
    sent_errors: int = 0
    sent_dropped: int = 0


class ContainerStats(Struct):
    """What a container uses at one moment. `at_ns` 0: it does not run, all else is empty."""

    at_ns: int = 0
    cgroup_v2: bool = False
    cpu: CpuUsage = CpuUsage()
    memory: MemoryUsage = MemoryUsage()
    block_bytes: tuple[BlockCounter, ...] = ()
    block_operations: tuple[BlockCounter, ...] = ()
    process_count: int = 0
    process_limit: int = 0
    interfaces: tuple[InterfaceCounters, ...] = ()
