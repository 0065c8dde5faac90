"""Network namespaces bound to files: make, enter, remove; and the settings of `/proc/sys` inside them.

Everything here acts on the calling THREAD: use it only in a thread that nobody else shares (the network's worker).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from shoal.errors import InvalidArgument

CLONE_NEWNET = 0x40000000
MS_BIND, MNT_DETACH = 4096, 2
SETTING_BYTES = 256
OWN_NAMESPACE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def open_own() -> int:
    """Open the namespace of the calling thread; the caller closes the descriptor."""
    return os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


def exists(path: Path) -> bool:
    """Tell whether a namespace is bound to the file (a bare file is what a reboot leaves)."""
    try:
        return path.stat().st_dev == Path(OWN_NAMESPACE).stat().st_dev
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def inside(namespace: int, home: int) -> Iterator[None]:
    """Enter the namespace of a descriptor; on the way out return to `home`."""
    _check(_libc.setns(namespace, CLONE_NEWNET), "setns")
    try:
        yield
    finally:
        _check(_libc.setns(home, CLONE_NEWNET), "setns back")


def enter_new() -> None:
    """Move the calling thread to a fresh namespace, which ends with it; there is no way back."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare")


def make(path: Path, home: int) -> int:
    """Make a namespace and bind it to `path`; return a descriptor of it."""
    path.touch(mode=0o444)
    _check(_libc.unshare(CLONE_NEWNET), "unshare")
    try:
        descriptor = open_own()
        try:
            _check(_libc.mount(OWN_NAMESPACE.encode(), os.fsencode(path), b"none", MS_BIND, None), f"bind {path}")
        except OSError:
            os.close(descriptor)
            raise
    finally:
        _check(_libc.setns(home, CLONE_NEWNET), "setns back")
    return descriptor


def remove(path: Path) -> None:
    """Let go of a namespace: it ends with its last process. That there is none is fine."""
    while exists(path):
        _check(_libc.umount2(os.fsencode(path), MNT_DETACH), f"unmount {path}")
    path.unlink(missing_ok=True)


def write_setting(name: str, value: str) -> None:
    """Write `net/…` under /proc/sys in the namespace of the calling thread; a setting this kernel lacks is skipped."""
    try:
        descriptor = os.open(f"/proc/sys/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        is_so = os.read(descriptor, SETTING_BYTES).strip() == value.encode()
    finally:
        os.close(descriptor)
    if not is_so:
        # one that is so already may be on a /proc that takes nothing
        Path("/proc/sys", name).write_text(value)


def demand_setting(name: str, value: str) -> None:
    """Write `net/…` under /proc/sys in the namespace of the calling thread. Raises InvalidArgument: it takes it not."""
    try:
        (Path("/proc/sys") / name).write_text(value)
    except OSError as error:
        dotted = name.replace("/", ".")
        raise InvalidArgument(f"the kernel does not take the setting {dotted}={value}: {error.strerror}") from None
