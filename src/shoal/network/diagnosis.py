"""What the network's worker thread tells of the ways to other nodes, and the asking outside that thread.

`Question` is made in the worker thread; `answer` may be called in any, as it takes its time.
"""

from __future__ import annotations

import socket

from shoal.model.diagnosis import PeerFacts
from shoal.model.netstate import DataPath
from shoal.network import mesh_link, namespace, probe
from shoal.network.mesh import Mesh
from shoal.network.mesh_state import link_address
from shoal.network.plumbing import Plumbing

NO_MESH = "this node has no mesh with the others"


class Question:
    """Who is to be asked, and by which socket; None: there is no mesh, `refusal` says why."""

    def __init__(self, plumbing: Plumbing, mesh: Mesh, data_path: DataPath, number: int) -> None:
        self._peers = [peer for peer in data_path.peers if peer.node_number != number]
        self._network = plumbing.settings.mesh_network
        self._reached = mesh.reached
        self._refusal = mesh.complaint or NO_MESH
        self._channel: socket.socket | None = None
        self._mtu_bytes = 0
        found = mesh_link.read(plumbing.sandbox_links, plumbing.names.mesh_link) if self._reached else None
        if found is not None:
            self._mtu_bytes = found.mtu_bytes
            with namespace.inside(plumbing.sandbox, plumbing.home):
                self._channel = probe.open_socket(plumbing.names.mesh_link)

    def answer(self) -> tuple[PeerFacts, ...]:
        """Ask, and return what there is to tell of every other node."""
        if self._channel is None:
            return tuple(self._unasked(peer.node_number, peer.address) for peer in self._peers)
        asked = {
            peer.node_number: link_address(self._network, peer.node_number)
            for peer in self._peers
            if peer.node_number in self._reached
        }
        found = probe.ask(self._channel, asked, self._mtu_bytes)
        return tuple(
            PeerFacts(
                node_number=peer.node_number,
                address=peer.address,
                answers=found[peer.node_number].answers,
                carries_whole=found[peer.node_number].carries_whole,
                mtu_bytes=self._mtu_bytes,
                skew_ms=found[peer.node_number].skew_ms,
            )
            if peer.node_number in found
            else self._unasked(peer.node_number, peer.address)
            for peer in self._peers
        )

    def _unasked(self, number: int, address: str) -> PeerFacts:
        return PeerFacts(node_number=number, address=address, refusal=self._refusal)
