"""What this machine allows: facts the OCI spec is cut to. Read once, at the start of the engine."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import struct
from pathlib import Path

from shoal.model.base import Struct

CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)
RLIMITS = {
    name.removeprefix("RLIMIT_").lower(): getattr(resource, name)
    for name in dir(resource)
    if name.startswith("RLIMIT_")
}
# what is bound into a container as its first process
INIT_PROGRAMS = ("docker-init", "tini-static", "tini", "catatonit", "dumb-init")
# getpid by the x32 ABI: number 39 with the bit that marks it
_X32_GETPID = 0x40000000 + 39
_PT_INTERP = 3
_CGROUP_ROOT = Path("/sys/fs/cgroup")


class Host(Struct):
    """Facts of the machine and of what the daemon may do on it."""

    machine: str
    capabilities: frozenset[str]
    hard_limits: dict[str, int]
    oom_score_adj: int
    cgroup_v2: bool
    cgroup_mounts: tuple[str, ...]
    cpu_count: int
    memory_bytes: int
    # the kernel limits memory and swap together
    limits_swap: bool = False
    init_program: str = ""
    # other ways into this kernel that its programs may use: 32-bit calls, and x32; seccomp must know each
    foreign_abis: tuple[str, ...] = ()


def read_host() -> Host:
    """Read the facts of this machine."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    mask = int(status["CapEff"], 16) & int(status["CapBnd"], 16)
    held = frozenset(f"CAP_{name}" for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)
    v2 = (_CGROUP_ROOT / "cgroup.controllers").exists()
    hierarchies = sorted(path for path in _CGROUP_ROOT.iterdir() if path.is_mount()) if not v2 else []
    return Host(
        machine=os.uname().machine,
        capabilities=held,
        hard_limits={name: resource.getrlimit(number)[1] for name, number in RLIMITS.items()},
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        cgroup_v2=v2,
        cgroup_mounts=(str(_CGROUP_ROOT),) if v2 else tuple(str(path) for path in hierarchies),
        cpu_count=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        limits_swap=_limits_swap(v2),
        init_program=next((path for path in map(shutil.which, INIT_PROGRAMS) if path and stands_alone(path)), ""),
        foreign_abis=_foreign_abis(os.uname().machine),
    )


def stands_alone(path: str) -> bool:
    """Whether a program needs no loader and no libraries, so that it runs in any container.

    A program that does names its loader in a segment PT_INTERP (System V ABI, chapter 5).
    """
    with Path(path).open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        offset, size, count = (*struct.unpack_from("=Q", header, 32), *struct.unpack_from("=HH", header, 54))
        file.seek(offset)
        table = file.read(size * count)
    return all(struct.unpack_from("=I", table, index * size)[0] != _PT_INTERP for index in range(count))


def _limits_swap(cgroup_v2: bool) -> bool:
    if cgroup_v2:
        # the root has no limit of its own: any child tells
        return any(_CGROUP_ROOT.glob("*/memory.swap.max"))
    return (_CGROUP_ROOT / "memory" / "memory.memsw.limit_in_bytes").exists()


def _foreign_abis(machine: str) -> tuple[str, ...]:
    """Return the ABIs besides its own that this kernel answers.

    Each makes a container's start dearer, since the whole filter is compiled for it: with x86 and x32 a start takes
    8 ms of processor more (measured with runc 1.1.5). One the kernel does not have cannot be called: it needs no rules.
    """
    if machine != "x86_64":
        return ()
    libc = ctypes.CDLL(None, use_errno=True)
    found = []
    if Path("/proc/sys/abi/vsyscall32").exists():
        found.append("SCMP_ARCH_X86")
    if libc.syscall(_X32_GETPID) == os.getpid():
        found.append("SCMP_ARCH_X32")
    return tuple(found)
