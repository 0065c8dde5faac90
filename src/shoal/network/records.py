"""What a node's network remembers in the exec root, so that a daemon that was killed takes its work up again.

The records live and die with the kernel's state (the exec root is a tmpfs), so they are renamed into place, not synced.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from shoal.lib.files import write_atomically
from shoal.model.base import Struct
from shoal.model.netstate import DataPath, GatewayNetwork, IngressState, OverlayUpdate, SandboxRequest
from shoal.network.overlays import HeldOverlay, Holding, merge_overlay

RecordType = TypeVar("RecordType", bound=Struct)

# networks with thousands of services are written at every change
COMPACT = ".msgpack"
CHANGES = ".changes"
LENGTH_BYTES = 4
LEAST_ROOM_BYTES = 4096

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

    `address`: of its way out, empty if it has none. `names`: of the links to each network, by id. `changing`:
    networks whose link was being added or removed.
    """

    request: SandboxRequest
    address: str = ""
    complete: bool = False
    names: dict[str, str] = {}
    changing: tuple[str, ...] = ()


class NetworkRecord(Struct):
    """What the VXLAN of an overlay network's namespace was made with; `local` may be empty."""

    network_id: str
    vni: int
    port: int
    mtu_bytes: int
    local: str = ""


class OverlayRecord(Struct):
    """An overlay network; the changes since are in a file of this generation."""

    generation: int
    held: HeldOverlay


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
        # of each overlay network: which of its records counts, and how many bytes of changes may follow it
        self._generations: dict[str, int] = {}
        self._room: dict[str, int] = {}

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
        overlays = {}
        for path in sorted(self._overlays.glob(f"*{COMPACT}")):
            base = _read(path, OverlayRecord)
            if base is not None:
                held = base.held
                for update in _read_changes(self._changes_of(held.overlay.network_id, base.generation)):
                    held = merge_overlay(held, update)
                overlays[held.overlay.network_id] = held
                self._generations[held.overlay.network_id] = base.generation
                # what is half written at the end of the changes is not to be written after
                self._write_whole(held)
        return Holding(version=record.version, data_path=record.data_path, overlays=overlays)

    def write_holding(self, before: Holding, after: Holding, updates: Iterable[OverlayUpdate]) -> None:
        """Keep what `updates` changed; the version comes last: what is half written is sent again.

        A difference is written behind those before it, until they are as long as the whole.
        """
        for update in updates:
            network_id = update.overlay.network_id
            held = after.overlays[network_id]
            if update.complete or network_id not in self._room or not self._write_change(network_id, update):
                self._write_whole(held)
        for network_id in before.overlays.keys() - after.overlays.keys():
            self._forget_overlay(network_id)
        if before.version != after.version or before.data_path != after.data_path:
            _write(self._directory / "holding.json", HoldingRecord(version=after.version, data_path=after.data_path))

    def _changes_of(self, network_id: str, generation: int) -> Path:
        return self._overlays / f"{network_id}.{generation}{CHANGES}"

    def _write_whole(self, held: HeldOverlay) -> None:
        network_id = held.overlay.network_id
        old = self._generations.get(network_id, 0)
        content = msgspec.msgpack.encode(OverlayRecord(generation=old + 1, held=held))
        write_atomically(self._overlays / f"{network_id}{COMPACT}", content, sync=False)
        # of another generation: they are no longer read
        self._changes_of(network_id, old).unlink(missing_ok=True)
        self._generations[network_id] = old + 1
        self._room[network_id] = max(len(content), LEAST_ROOM_BYTES)

    def _write_change(self, network_id: str, update: OverlayUpdate) -> bool:
        """Write a difference behind the others; False: there is no room, or it is no shorter than the whole."""
        content = msgspec.msgpack.encode(update)
        if len(content) > self._room[network_id]:
            return False
        self._room[network_id] -= len(content)
        with self._changes_of(network_id, self._generations[network_id]).open("ab") as file:
            file.write(len(content).to_bytes(LENGTH_BYTES, "big") + content)
        return True

    def _forget_overlay(self, network_id: str) -> None:
        (self._overlays / f"{network_id}{COMPACT}").unlink(missing_ok=True)
        self._changes_of(network_id, self._generations.pop(network_id, 0)).unlink(missing_ok=True)
        self._room.pop(network_id, None)

    def forget_all(self) -> None:
        """Take the directory away."""
        self._generations.clear()
        self._room.clear()
        for directory in (self._tasks, self._networks, self._overlays, self._directory):
            if directory.is_dir():
                for path in directory.iterdir():
                    path.unlink()
                directory.rmdir()


def _read_changes(path: Path) -> Iterator[OverlayUpdate]:
    """Yield the changes of a file; one that is not whole is the last, and was not acknowledged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    position = 0
    while position < len(data):
        start = position + LENGTH_BYTES
        position = start + int.from_bytes(data[position:start], "big")
        if position > len(data):
            return
        try:
            yield msgspec.msgpack.decode(data[start:position], type=OverlayUpdate)
        except msgspec.MsgspecError as error:
            _log.warning("changes of a network are unreadable and are left out", path=str(path), reason=str(error))
            return


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
