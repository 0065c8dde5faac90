"""What the resolver keeps under EXEC/resolver, so that the next one serves again by itself.

Files are renamed into place, not synced: they live and die with the namespaces they are about. Networks are written a
moment after a change, many changes at once; a daemon that lives tells a new resolver everything anew besides.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec
import structlog

from shoal.lib.files import write_atomically
from shoal.model.base import Struct
from shoal.model.netstate import OverlayUpdate
from shoal.network.names.messages import ContainerRecord
from shoal.network.names.table import NetworkTable

_log = structlog.get_logger(__name__)

WRITE_AFTER_SECONDS = 0.05
# of the time, the writing of large networks takes a twentieth
WRITE_SHARE = 20

RecordType = TypeVar("RecordType", bound=Struct)


class Memory:
    """Files of networks and containers."""

    def __init__(self, directory: Path) -> None:
        self._networks = directory / "networks"
        self._containers = directory / "containers"
        for path in (self._networks, self._containers):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._changed: dict[str, NetworkTable] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._seconds_of_last = 0.0

    def read_networks(self) -> list[OverlayUpdate]:
        """Return all networks, whole."""
        return _read_all(self._networks, OverlayUpdate)

    def read_containers(self) -> list[ContainerRecord]:
        """Return all containers."""
        return _read_all(self._containers, ContainerRecord)

    def keep_network(self, table: NetworkTable) -> None:
        """Write a network soon."""
        self._changed[table.overlay.network_id] = table
        if self._timer is None:
            delay = max(WRITE_AFTER_SECONDS, WRITE_SHARE * self._seconds_of_last)
            self._timer = asyncio.get_running_loop().call_later(delay, self.flush)

    def flush(self) -> None:
        """Write what has not been written yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        begin = loop.time()
        for network_id, table in self._changed.items():
            _write(self._networks / _file_name(network_id), table.whole())
        self._changed.clear()
        self._seconds_of_last = loop.time() - begin

    def forget_network(self, network_id: str) -> None:
        """Forget a network."""
        self._changed.pop(network_id, None)
        (self._networks / _file_name(network_id)).unlink(missing_ok=True)

    def keep_container(self, record: ContainerRecord) -> None:
        """Write a container now."""
        _write(self._containers / _file_name(record.container.task_id), record)

    def forget_container(self, task_id: str) -> None:
        """Forget a container."""
        (self._containers / _file_name(task_id)).unlink(missing_ok=True)


def _file_name(key: str) -> str:
    return f"{quote(key, safe='')}.msgpack"


def _write(path: Path, record: Struct) -> None:
    write_atomically(path, msgspec.msgpack.encode(record), sync=False)


def _read_all(directory: Path, kind: type[RecordType]) -> list[RecordType]:
    found = []
    for path in sorted(directory.glob("*.msgpack")):
        try:
            found.append(msgspec.msgpack.decode(path.read_bytes(), type=kind))
        except msgspec.MsgspecError as error:
            _log.warning("a record of the resolver is unreadable and is left out", path=str(path), reason=str(error))
            with contextlib.suppress(OSError):
                path.unlink()
    return found
