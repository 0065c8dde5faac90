"""Where a daemon keeps things on disk, the version of that layout, and the lock that keeps a second daemon out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from shutil import rmtree as erase

import msgspec

from shoal.errors import Conflict
from shoal.lib.files import sync_directory, write_atomically
from shoal.lib.ids import Ids
from shoal.model.base import Struct
from shoal.model.node_port import ManagerAddress
from shoal.rpc.tls import CertificateFiles

DISK_FORMAT = 1


class SwarmMembership(Struct):
    """What a node remembers of the swarm it is in.

    `raft_id` 0: no manager runs here. `managers`: where they answered last.
    """

    node_id: str
    cluster_id: str
    raft_id: int
    advertise_address: str
    listen_address: str
    data_path_address: str = ""
    node_number: int = 1
    managers: tuple[ManagerAddress, ...] = ()


class Layout:
    """The roots of a daemon.

    `DATA/{FORMAT,daemon-id,images,containers,volumes,swarm/{state.json,certificates,raft,worker}}` and
    `EXEC/{shoal.sock,keeper.sock,netns,…}` (architecture.md 4.9).
    """

    def __init__(self, data_root: Path, exec_root: Path) -> None:
        self.data_root = data_root
        self.exec_root = exec_root
        self.swarm = data_root / "swarm"
        self.certificates = self.swarm / "certificates"
        self.raft = self.swarm / "raft"
        self.worker_database = self.swarm / "worker" / "tasks.sqlite"
        self.certificate_files = CertificateFiles(
            roots=self.certificates / "swarm-root-ca.crt",
            certificate=self.certificates / "swarm-node.crt",
            key=self.certificates / "swarm-node.key",
        )
        self._membership_file = self.swarm / "state.json"
        self._lock_descriptor: int | None = None

    def open(self, ids: Ids) -> str:
        """Make the roots, take the lock and return this daemon's id (made at the first start).

        Raises:
            Conflict: another daemon uses the data root, or the layout is of a newer version.
        """
        self.data_root.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.exec_root.mkdir(parents=True, exist_ok=True, mode=0o711)
        descriptor = os.open(self.data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(f"another shoald uses {self.data_root}: give this one another --data-root") from None
        self._lock_descriptor = descriptor
        self._check_format()
        id_file = self.data_root / "daemon-id"
        if not id_file.exists():
            write_atomically(id_file, ids.new().encode())
        return id_file.read_text().strip()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _check_format(self) -> None:
        path = self.data_root / "FORMAT"
        if not path.exists():
            write_atomically(path, f"{DISK_FORMAT}\n".encode())
        found = int(path.read_text().strip() or 0)
        if found > DISK_FORMAT:
            raise Conflict(f"{self.data_root} was written by a newer shoald (format {found}, this knows {DISK_FORMAT})")

    def read_membership(self) -> SwarmMembership | None:
        """Return what this node remembers of its swarm, None outside one."""
        try:
            return msgspec.json.decode(self._membership_file.read_bytes(), type=SwarmMembership)
        except FileNotFoundError:
            return None

    def write_membership(self, membership: SwarmMembership) -> None:
        """Remember a swarm; once this returns it survives a crash."""
        self.swarm.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._membership_file, msgspec.json.encode(membership))

    def erase_raft(self) -> None:
        """Forget what this node's manager knew: it is one no more."""
        erase(self.raft, ignore_errors=True)

    def erase_swarm(self) -> None:
        """Forget the swarm and all that was kept of it: the membership first, so that no half of it is taken up."""
        self._membership_file.unlink(missing_ok=True)
        if self.swarm.exists():
            sync_directory(self.swarm)
        erase(self.swarm, ignore_errors=True)
