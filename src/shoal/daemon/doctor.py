"""Gathers what `shoal doctor` judges: of this machine, with or without a daemon, and of a daemon's part in a swarm.

Changes nothing that stays. What is good and what is not, core/diagnosis.py knows.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path

from shoal.core.diagnosis import (
    OVERLAYFS,
    PACKAGES,
    WIREGUARD_PROGRAM,
    WIREGUARD_TOOL,
    examine_machine,
)
from shoal.daemon.addresses import split_address
from shoal.daemon.leftovers import find_leftovers
from shoal.model.diagnosis import Finding, HelperFacts, MachineFacts, ManagerFacts
from shoal.network.features import try_features, try_filesystem
from shoal.network.names import messages

MANAGER_SECONDS = 3.0
PROGRAMS = (*PACKAGES, WIREGUARD_TOOL, WIREGUARD_PROGRAM)


def look_at_machine() -> MachineFacts:
    """Try the kernel's features and look for programs and leftovers; without root only what it takes no root for."""
    programs = {name: shutil.which(name) is not None for name in PROGRAMS}
    if os.geteuid() != 0:
        return MachineFacts(is_root=False, programs=programs)
    features = try_features("nft" if programs["nft"] else None)
    features[OVERLAYFS] = try_filesystem("overlay")
    return MachineFacts(is_root=True, programs=programs, features=features, leftovers=find_leftovers())


def examine_this_machine() -> tuple[Finding, ...]:
    """Return the findings about this machine."""
    return examine_machine(look_at_machine())


def look_at_helpers(exec_root: Path, has_overlays: bool) -> tuple[HelperFacts, ...]:
    """Ask whether the processes beside the daemon live.

    Args:
        exec_root: of the daemon.
        has_overlays: a container is on an overlay network: the resolver is wanted.
    """
    return (
        HelperFacts(
            name="keeper",
            is_alive=_listens(exec_root / "keeper.sock"),
            is_wanted=True,
            log=str(exec_root / "keeper.log"),
        ),
        HelperFacts(
            name="resolver",
            is_alive=_is_locked(exec_root / messages.LOCK_FILE),
            is_wanted=has_overlays,
            log=str(exec_root / messages.LOG_FILE),
        ),
    )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(path))
        except OSError:
            return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


async def look_at_managers(addresses: Iterable[str]) -> tuple[ManagerFacts, ...]:
    """Connect to the node ports of managers, all at once."""
    return tuple(await asyncio.gather(*(_look_at_manager(address) for address in dict.fromkeys(addresses))))


async def _look_at_manager(address: str) -> ManagerFacts:
    host, port = split_address(address)
    try:
        async with asyncio.timeout(MANAGER_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return ManagerFacts(address=address, refusal=f"no answer in {MANAGER_SECONDS:.0f} s")
    except OSError as error:
        return ManagerFacts(address=address, refusal=os.strerror(error.errno) if error.errno else str(error))
    writer.close()
    return ManagerFacts(address=address)
