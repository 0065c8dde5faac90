"""The named volumes of a node, on disk: DATA/volumes/NAME with `volume.json` (what it is) and `_data`.

Blocking; its own lock orders threads. A directory without `volume.json` is half-made, or of a version of Shoal that
wrote none: where it has `_data` it is a plain volume. Knows nothing of containers.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from shoal.core.volume import check_volume, mount_command, server_of
from shoal.engine import syscalls
from shoal.errors import NotFound, ShoalError
from shoal.lib.clock import Clock
from shoal.lib.files import remove_tree, size_of_tree, sync_directory, write_atomically
from shoal.model.volume import Volume

_log = structlog.get_logger(__name__)

RECORD_FILE = "volume.json"
DATA = "_data"
# no volume is called so: what is being removed
REMOVED = ".removed-"


class LocalVolumes:
    """The volumes below one directory.

    Args:
        root: where they are.
        clock: source of time.
    """

    def __init__(self, root: Path, clock: Clock) -> None:
        self._root = root
        self._clock = clock
        self._lock = threading.RLock()
        self._known: dict[str, Volume] = {}

    def start_up(self) -> None:
        """Read the records; what is left of others is taken away."""
        with self._lock:
            for directory in sorted(self._root.iterdir()):
                record = directory / RECORD_FILE
                if directory.name.startswith(REMOVED):
                    remove_tree(directory)
                elif record.exists():
                    self._known[directory.name] = msgspec.json.decode(record.read_bytes(), type=Volume)
                elif (directory / DATA).is_dir():
                    made_at_ns = directory.stat().st_ctime_ns
                    self._known[directory.name] = self._write(Volume(name=directory.name, created_at_ns=made_at_ns))
                else:
                    _log.info("removing what is left of a volume", name=directory.name, reason="it has no data")
                    remove_tree(directory)

    def path(self, name: str) -> Path:
        """Return the directory of a volume's data."""
        return self._root / name / DATA

    def get(self, name: str) -> Volume:
        """Return a volume. Raises NotFound."""
        with self._lock:
            volume = self._known.get(name)
        if volume is None:
            raise NotFound(f"get {name}: no such volume")
        return volume

    def has(self, name: str) -> bool:
        """Tell whether there is a volume."""
        with self._lock:
            return name in self._known

    def list(self) -> tuple[Volume, ...]:
        """Return all volumes by name."""
        with self._lock:
            return tuple(self._known[name] for name in sorted(self._known))

    def create(self, name: str, driver: str, options: Mapping[str, str], labels: Mapping[str, str]) -> Volume:
        """Return a volume, made if there is none of that name: then it has these options and labels.

        Raises:
            InvalidArgument, NotFound, NotBuilt: see `check_volume`.
        """
        with self._lock:
            check_volume(name, driver, options)
            if name in self._known:
                return self._known[name]
            volume = Volume(name=name, labels=dict(labels), options=dict(options), created_at_ns=self._clock.now_ns())
            self._known[name] = self._write(volume)
        _log.info("volume created", name=name)
        return volume

    def _write(self, volume: Volume) -> Volume:
        directory = self._root / volume.name
        directory.mkdir(exist_ok=True, mode=0o701)
        write_atomically(directory / RECORD_FILE, msgspec.json.encode(volume))
        sync_directory(self._root)
        return volume

    def provide(self, name: str) -> tuple[Path, bool]:
        """Return where a volume's data is, mounted if it has options, and whether nothing was ever in it.

        Raises:
            NotFound: there is no such volume.
            ShoalError: it cannot be mounted.
        """
        with self._lock:
            volume, path = self.get(name), self.path(name)
            is_fresh = not path.exists()
            path.mkdir(exist_ok=True, mode=0o755)
            if volume.options and not path.is_mount():
                _mount(volume, path)
            return path, is_fresh

    def let_go(self, used: frozenset[str]) -> None:
        """Unmount the volumes with options that are not `used`."""
        with self._lock:
            for volume in self._known.values():
                if volume.options and volume.name not in used:
                    syscalls.unmount(self.path(volume.name))

    @property
    def has_mounts(self) -> bool:
        """Whether there is anything that `let_go` may have to do."""
        with self._lock:
            return any(volume.options for volume in self._known.values())

    def remove(self, name: str) -> None:
        """Take a volume and its data away. Raises NotFound, ShoalError (its mount is busy)."""
        with self._lock:
            volume, path = self.get(name), self.path(name)
            if volume.options:
                syscalls.unmount(path)
                if path.is_mount():
                    raise ShoalError(f"remove {name}: {path} is mounted more than once; unmount it by hand")
            # one step for the disk: whoever crashes has the whole volume, or none
            gone = path.parent.rename(self._root / f"{REMOVED}{name}")
            sync_directory(self._root)
            del self._known[name]
            remove_tree(gone)
        _log.info("volume removed", name=name)

    def size_bytes(self, name: str) -> int:
        """Return what a volume's data takes; what is mounted there from elsewhere counts as nothing."""
        if self.get(name).options:
            return 0
        return size_of_tree(self.path(name))


def _mount(volume: Volume, path: Path) -> None:
    server = server_of(volume.options)
    address = ""
    if server:
        try:
            address = str(socket.getaddrinfo(server, None)[0][4][0])
        except OSError as error:
            raise ShoalError(f"error resolving passed in network volume address {server}: {error}") from error
    done = subprocess.run(
        mount_command(volume.options, str(path), address), capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = " ".join(f"{key}={value}" for key, value in sorted(volume.options.items()))
        raise ShoalError(f"failed to mount local volume {volume.name} ({words}): {done.stderr.strip()}")
