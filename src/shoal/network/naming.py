"""What a node's network asks of who answers names for containers: the resolver's client fulfils it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from shoal.model.netstate import OverlayUpdate, SandboxRequest


class NameServer(Protocol):
    """Told in the network's worker thread, in order; may block for a moment. What it has been told it keeps.

    After `start` it is told everything that is held (complete updates) and every container there is.
    """

    def start(self) -> None:
        """Begin: start the process that answers, or take up the one that runs."""

    def set_network(self, update: OverlayUpdate) -> None:
        """Take a network's change."""

    def remove_network(self, network_id: str) -> None:
        """Forget a network."""

    def add_container(self, request: SandboxRequest, namespace: Path) -> None:
        """Answer a container, or answer it from other networks than before."""

    def remove_container(self, task_id: str) -> None:
        """Stop answering a container, before its namespace goes; that it was not answered is fine."""

    def close(self, remove: bool) -> None:
        """End. `remove`: the process that answers too; otherwise it goes on."""


class NoNames:
    """Answers nobody."""

    def start(self) -> None:
        """Do nothing."""

    def set_network(self, update: OverlayUpdate) -> None:
        """Do nothing."""

    def remove_network(self, network_id: str) -> None:
        """Do nothing."""

    def add_container(self, request: SandboxRequest, namespace: Path) -> None:
        """Do nothing."""

    def remove_container(self, task_id: str) -> None:
        """Do nothing."""

    def close(self, remove: bool) -> None:
        """Do nothing."""
