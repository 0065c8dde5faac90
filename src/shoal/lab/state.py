"""What is remembered of labs: one small JSON file each, changed by one process at a time. Blocking."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from shoal.errors import Conflict, NotFound
from shoal.lab.plan import LabState
from shoal.lib.files import write_atomically

ROOT = Path("/run/shoal-lab")
LOCK_SECONDS = 120.0
POLL_SECONDS = 0.02


class StateFile:
    """The file of one lab, in a directory which also holds the mounts of its uts namespaces."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = ROOT / name
        self._path = self.directory / "lab.json"

    def read(self) -> LabState:
        """Return what is remembered.

        Raises:
            NotFound: there is no such lab.
        """
        state = self.find()
        if state is None:
            there = ", ".join(list_labs())
            known = f"; there is {there} (--name)" if there else ""
            raise NotFound(f'there is no lab "{self.name}": make it with `shoal lab up`{known}')
        return state

    def find(self) -> LabState | None:
        """Return what is remembered, None if there is no such lab."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=LabState)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            raise Conflict(
                f"{self._path} cannot be read ({error}): `shoal lab down` takes away what it names"
            ) from None

    def write(self, state: LabState) -> None:
        """Remember a lab."""
        write_atomically(self._path, msgspec.json.format(msgspec.json.encode(state)) + b"\n", 0o644)

    def change(self, function: Callable[[LabState], LabState]) -> LabState:
        """Write what `function` makes of the state, and return it; the caller holds the lock."""
        state = function(self.read())
        self.write(state)
        return state

    def erase(self) -> None:
        """Forget the lab, the file first."""
        self._path.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            ROOT.rmdir()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who changes this lab.

        Raises:
            Conflict: another keeps it busy for too long.
        """
        deadline = time.monotonic() + LOCK_SECONDS
        while (descriptor := self._try_lock()) is None:
            if time.monotonic() > deadline:
                raise Conflict(f'another `shoal lab` has worked on lab "{self.name}" for {LOCK_SECONDS:.0f} s: end it')
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            os.close(descriptor)

    def _try_lock(self) -> int | None:
        path = self.directory / "lock"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # a lab that is being taken down
            return None
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # who had the lock may have taken the lab down, and the file with it
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)
        return None


def list_labs() -> list[str]:
    """Return the names of the labs on this machine."""
    return sorted(path.parent.name for path in ROOT.glob("*/lab.json"))
