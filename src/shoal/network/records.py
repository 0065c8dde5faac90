"""What a node's network remembers in the exec root, so that a daemon that was killed takes its work up again.

The records live and die with the kernel's state (the exec root is a tmpfs), so they are renamed into place, not synced.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from shoal.lib.files import write_atomically
from shoal.model.base import Struct
from shoal.model.netstate import DataPath, GatewayNetwork, IngressState, SandboxRequest
from shoal.network.overlays import HeldOverlay, Holding

RecordType = TypeVar("RecordType", bound=Struct)

# networks with thousands of services are written at every change
COMPACT = ".msgpack"

_log = structlog.get_logger(__name__)


class NodeRecord(Struct):
    """The ranges this node chose (CIDR), and what was asked for of the second."""

    link_network: str
    gateway_network: str
    asked: GatewayNetwork = GatewayNetwork()


class DataPathRecord(Struct):
    """The nodes of the swarm, and this node's number among them (0: none)."""

    node_number: int = 0
    data_path: DataPath = DataPath()


class TaskRecord(Struct):
    """A task's namespace; `complete` False: the daemon was killed while it made it.

    `address`: of its way out, empty if it has none. `numbers`: N of the ethN on each network, by id. `changing`:
    networks whose link was being added or removed.
    """

    request: SandboxRequest
    address: str = ""
    complete: bool = False
    numbers: dict[str, int] = {}
    changing: tuple[str, ...] = ()


class NetworkRecord(Struct):
    """What the VXLAN of an overlay network's namespace was made with; `local` may be empty."""

    network_id: str
    vni: int
    port: int
    mtu_bytes: int
    local: str = ""


class HoldingRecord(Struct):
    """What is held of all overlay networks together; each one has a file of its own."""

    version: int = 0
    data_path: DataPath = DataPath()


class Records:
    """Files under one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tasks = directory / "tasks"
        self._networks = directory / "networks"
        self._overlays = directory / "overlays"

    def prepare(self) -> None:
        """Make the directories."""
        for made in (self._tasks, self._networks, self._overlays):
            made.mkdir(parents=True, exist_ok=True)

    def read_node(self) -> NodeRecord | None:
        """Return the ranges, None on a fresh node."""
        return _read(self._directory / "node.json", NodeRecord)

    def write_node(self, record: NodeRecord) -> None:
        """Keep the ranges."""
        _write(self._directory / "node.json", record)

    def read_ingress(self) -> IngressState:
        """Return the mesh that was set last, an empty one on a fresh node."""
        return _read(self._directory / "ingress.json", IngressState) or IngressState()

    def write_ingress(self, state: IngressState) -> None:
        """Keep the mesh."""
        _write(self._directory / "ingress.json", state)

    def read_data_path(self) -> DataPathRecord:
        """Return the nodes that were set last, none on a fresh node."""
        return _read(self._directory / "data_path.json", DataPathRecord) or DataPathRecord()

    def write_data_path(self, record: DataPathRecord) -> None:
        """Keep the nodes."""
        _write(self._directory / "data_path.json", record)

    def read_tasks(self) -> list[TaskRecord]:
        """Return all tasks."""
        found = (_read(path, TaskRecord) for path in sorted(self._tasks.glob("*.json")))
        return [record for record in found if record is not None]

    def write_task(self, record: TaskRecord) -> None:
        """Keep a task."""
        _write(self._tasks / f"{record.request.task_id}.json", record)

    def forget_task(self, task_id: str) -> None:
        """Forget a task."""
        (self._tasks / f"{task_id}.json").unlink(missing_ok=True)

    def read_network(self, network_id: str) -> NetworkRecord | None:
        """Return what a network's VXLAN was made with."""
        return _read(self._networks / f"{network_id}.json", NetworkRecord)

    def write_network(self, record: NetworkRecord) -> None:
        """Keep what a network's VXLAN is made with."""
        _write(self._networks / f"{record.network_id}.json", record)

    def forget_network(self, network_id: str) -> None:
        """Forget it."""
        (self._networks / f"{network_id}.json").unlink(missing_ok=True)

    def read_holding(self) -> Holding:
        """Return what was held of the overlay networks, nothing on a fresh node."""
        record = _read(self._directory / "holding.json", HoldingRecord) or HoldingRecord()
        found = (_read(path, HeldOverlay) for path in sorted(self._overlays.glob("*.msgpack")))
        overlays = {held.overlay.network_id: held for held in found if held is not None}
        return Holding(version=record.version, data_path=record.data_path, overlays=overlays)

    def write_holding(self, before: Holding, after: Holding) -> None:
        """Keep the networks that changed; the version comes last: what is half written is sent again."""
        for network_id, held in after.overlays.items():
            if before.overlays.get(network_id) is not held:
                _write(self._overlays / f"{network_id}.msgpack", held)
        for network_id in before.overlays.keys() - after.overlays.keys():
            (self._overlays / f"{network_id}.msgpack").unlink(missing_ok=True)
        if before.version != after.version or before.data_path != after.data_path:
            _write(self._directory / "holding.json", HoldingRecord(version=after.version, data_path=after.data_path))

    def forget_all(self) -> None:
        """Take the directory away."""
        for directory in (self._tasks, self._networks, self._overlays, self._directory):
            if directory.is_dir():
                for path in directory.iterdir():
                    path.unlink()
                directory.rmdir()


def _read(path: Path, kind: type[RecordType]) -> RecordType | None:
    try:
        decode = msgspec.msgpack.decode if path.suffix == COMPACT else msgspec.json.decode
        return decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        _log.warning("a record of the network is unreadable and is left out", path=str(path), reason=str(error))
        return None


def _write(path: Path, record: Struct) -> None:
    # Records are of what the kernel holds: they need not outlive it.
    encode = msgspec.msgpack.encode if path.suffix == COMPACT else msgspec.json.encode
    write_atomically(path, encode(record), sync=False)
