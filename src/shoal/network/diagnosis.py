"""What the network's worker thread tells of the ways to other nodes, and the asking outside that thread.

`Question` is made in the worker thread; `answer` may be called in any, as it takes its time.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Collection

from shoal.model.base import replace
from shoal.model.diagnosis import PeerFacts, SecretPeerFacts
from shoal.model.netstate import DataPath
from shoal.network import mesh_link, namespace, probe
from shoal.network.mesh import Mesh
from shoal.network.mesh_state import link_address
from shoal.network.plumbing import Plumbing
from shoal.network.secret_paths import SecretPaths

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


class SecretQuestion:
    """The nodes that are to be asked through the mesh of encrypted networks; none while this node is on none.

    `port_refusal`: why nothing can listen on the port of encrypted networks, empty if it can.
    """

    def __init__(
        self, plumbing: Plumbing, secret: SecretPaths, data_path: DataPath, node_numbers: Collection[int]
    ) -> None:
        network = plumbing.settings.wireguard_network
        peers = [peer for peer in data_path.peers if peer.node_number in node_numbers]
        self._addresses = {
            peer.node_number: link_address(network, peer.node_number) for peer in peers if peer.wireguard_key
        }
        self._facts = [
            SecretPeerFacts(
                node_number=peer.node_number,
                address=peer.address,
                port=peer.wireguard_port,
                has_key=bool(peer.wireguard_key),
                mtu_bytes=secret.mtu_bytes,
            )
            for peer in peers
        ]
        self.port_refusal = "" if secret.is_up or not secret.public_key else _refusal(plumbing.settings.wireguard_port)
        self._mtu_bytes = secret.mtu_bytes
        self._channel: socket.socket | None = None
        if secret.is_up and self._addresses:
            # a link that has just gone leads nowhere
            with contextlib.suppress(OSError):
                self._channel = probe.open_socket(plumbing.names.secret_link)

    def answer(self) -> tuple[SecretPeerFacts, ...]:
        """Ask, and return what there is to tell of every node that was to be asked."""
        if self._channel is None:
            return tuple(self._facts)
        found = probe.ask(self._channel, self._addresses, self._mtu_bytes)
        return tuple(
            replace(facts, answers=answer.answers, carries_whole=answer.carries_whole)
            if (answer := found.get(facts.node_number)) is not None
            else facts
            for facts in self._facts
        )


def _refusal(port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as trying:
        try:
            trying.bind(("", port))
        except OSError as error:
            return "another program has it" if error.errno == errno.EADDRINUSE else str(error)
    return ""
