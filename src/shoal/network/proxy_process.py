"""The proxy process: `python -m shoal.network.proxy_process EXEC_ROOT`. Passes published ports on IPv6 on to IPv4.

What to pass on stands in a file; a datagram says that it has changed; with nothing to do the process ends. A lock held
while it listens makes it the only one of its exec root, and says who it is. Standard library only; knows no mesh.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import resource
import socket
import sys
import time
from pathlib import Path

import shoal
from shoal.network.proxy_flows import TcpForward, UdpForward

DIRECTORY = "network"
WANTED_FILE, SOCKET_FILE, LOCK_FILE = "proxy.json", "proxy.sock", "proxy.lock"
CHECK_SECONDS = 1.0
LOCK_SECONDS = 10.0
LOCK_RETRY_SECONDS = 0.02

Key = tuple[str, int]
Wanted = dict[Key, tuple[str, int]]


def read_wanted(path: Path) -> tuple[str, Wanted] | None:
    """Return the version of the daemon that wrote the file, and what it wants; None if there is no file."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    forwards = {(protocol, port): (address, target) for protocol, port, address, target in value["forwards"]}
    return value["version"], forwards


class Proxy:
    """Listens on what is wanted, until the file is gone or a daemon of another version has written it."""

    def __init__(self, directory: Path, lock: int) -> None:
        """Take the directory of the file, and the lock, which is given back with the ports."""
        self._directory = directory
        self._lock = lock
        self._forwards: dict[Key, TcpForward | UdpForward] = {}
        self._draining: list[TcpForward] = []
        self._complaints: dict[Key, str] = {}
        self._changed = asyncio.Event()

    async def run(self, poked: socket.socket) -> None:
        """Serve. `poked`: what a datagram comes to when the file has changed."""
        asyncio.get_running_loop().add_reader(poked.fileno(), self._on_poke, poked)
        try:
            await self._follow()
        finally:
            asyncio.get_running_loop().remove_reader(poked.fileno())
            await self._lead_to({})
            os.close(self._lock)
        # another version has taken over: connections under way are served to their end
        while self._draining and read_wanted(self._directory / WANTED_FILE) is not None:
            await asyncio.sleep(CHECK_SECONDS)
            self._tidy()

    async def _follow(self) -> None:
        while True:
            found = read_wanted(self._directory / WANTED_FILE)
            if found is None or found[0] != shoal.__version__:
                return
            wanted = found[1]
            await self._lead_to(wanted)
            if not wanted and not self._draining:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            self._tidy()

    def _on_poke(self, poked: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while poked.recv(16):
                pass
        self._changed.set()

    def _tidy(self) -> None:
        self._draining = [forward for forward in self._draining if forward.flows]
        for forward in self._forwards.values():
            if isinstance(forward, UdpForward):
                forward.expire()

    async def _lead_to(self, wanted: Wanted) -> None:
        for key in self._forwards.keys() - wanted.keys():
            forward = self._forwards.pop(key)
            forward.close()
            if isinstance(forward, TcpForward):
                self._draining.append(forward)
        for key, target in wanted.items():
            known = self._forwards.get(key)
            if known is not None and isinstance(known, UdpForward) and known.target != target:
                known.close()
                known = None
            if known is not None:
                known.target = target
                continue
            kind = TcpForward if key[0] == "tcp" else UdpForward
            try:
                forward = kind(key[1], target)
                await forward.start()
            except OSError as error:
                self._complain(key, error)
            else:
                self._forwards[key] = forward
                self._complaints.pop(key, None)

    def _complain(self, key: Key, error: OSError) -> None:
        if self._complaints.get(key) != str(error):
            self._complaints[key] = str(error)
            print(f"[::]:{key[1]}/{key[0]} is not served: {error}", file=sys.stderr, flush=True)  # noqa: T201


def take_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, None if another holds on to it for long."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(LOCK_RETRY_SECONDS)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {shoal.__version__}".encode(), 0)
            return descriptor


def main() -> None:
    """Serve until there is nothing to serve."""
    directory = Path(sys.argv[1]) / DIRECTORY
    os.chdir("/")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    while True:
        lock = take_lock(directory / LOCK_FILE)
        if lock is None:
            return
        _serve(directory, lock)
        # the daemon may have written the file while it still saw the lock
        found = read_wanted(directory / WANTED_FILE)
        if found is None or not found[1] or found[0] != shoal.__version__:
            return


def _serve(directory: Path, lock: int) -> None:
    # a path of any length: the directory's own is often longer than a socket's address may be
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    (directory / SOCKET_FILE).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as poked:
        poked.bind(f"/proc/self/fd/{place}/{SOCKET_FILE}")
        os.close(place)
        # the socket is there before the file is read: no change is missed
        asyncio.run(Proxy(directory, lock).run(poked))


if __name__ == "__main__":
    main()
