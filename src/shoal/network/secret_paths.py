"""The WireGuard mesh that carries this node's encrypted networks: there while one is here, and guarded by rules.

The rules come before the link and go after it: at no moment do frames of an encrypted network leave or come in the
clear. Every step creates what is missing and adopts what is there. Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

import structlog

from shoal.errors import Unavailable
from shoal.model.netstate import DataPath
from shoal.network import nft_process, rtnetlink, underlay, wireguard
from shoal.network.mesh_state import link_address
from shoal.network.nft import take_away
from shoal.network.plumbing import Plumbing
from shoal.network.secret_keys import SecretKeys
from shoal.network.secret_plan import (
    VXLAN_BYTES,
    SecretMesh,
    desired_secret,
    peers_to_greet,
    published_key,
    render_configuration,
    render_guard,
    secret_hosts,
)

NO_GUARD = (0, frozenset[int]())

_log = structlog.get_logger(__name__)


class SecretPaths:
    """See the module."""

    def __init__(self, plumbing: Plumbing, key_file: Path) -> None:
        self._plumbing = plumbing
        self._keys = SecretKeys(key_file)
        self._generation = 0
        self._way = ""
        self._refusal = ""
        self._private_key = ""
        # what the kernel was led to; None: nothing is known
        self._guarded: tuple[int, frozenset[int]] | None = None
        self._configured: str | None = None
        self._mesh: SecretMesh | None = None
        self._mtu_bytes = 0
        # by the last call of `lead`
        self._greeted: SecretMesh | None = None
        self._wanted: frozenset[str] = frozenset()
        self._key_in_use = ""

    @property
    def public_key(self) -> str:
        """What other nodes must know, empty while this node cannot encrypt."""
        return self._keys.public if self._way else ""

    @property
    def refusal(self) -> str:
        """Why this node cannot encrypt, empty if it can."""
        return self._refusal

    @property
    def is_up(self) -> bool:
        """Whether the link is there, as far as is known."""
        return self._mesh is not None

    @property
    def mtu_bytes(self) -> int:
        """How long packets through the link may be, 0 without it."""
        return self._mtu_bytes

    def start(self) -> None:
        """Find out whether this node can encrypt, and make its key."""
        try:
            way = wireguard.find_way(self._plumbing.settings)
        except Unavailable as error:
            if error.message != self._refusal:
                self._refusal = error.message
                _log.info("encrypted networks cannot be carried", reason=error.message)
            return
        self._keys.load()
        self._keys.renew(self._generation)
        self._way, self._refusal = way, ""

    def hosts(self, data_path: DataPath, node_number: int) -> dict[int, str]:
        """Return where VXLAN of encrypted networks is sent to, by node."""
        return secret_hosts(data_path, node_number, self._plumbing.settings)

    def lead(self, data_path: DataPath, node_number: int, vnis: Collection[int], mtu_bytes: int) -> str:
        """Carry encrypted networks of these VXLAN identifiers; return this node's address in the mesh.

        Args:
            data_path: the nodes with their keys.
            node_number: this node's.
            vnis: of all encrypted networks here.
            mtu_bytes: of the networks' packets.

        Raises:
            Unavailable: this node cannot; nothing goes out in the clear.
        """
        if not self._way:
            self.start()
        if not self._way:
            raise Unavailable(self._refusal)
        self._guard(data_path.port, frozenset(vnis))
        self._private_key = self._keys.private(published_key(data_path, node_number))
        mesh = desired_secret(data_path, node_number, self._plumbing.settings)
        self._mtu_bytes = max(self._mtu_bytes, mtu_bytes + VXLAN_BYTES)
        try:
            self._connect(mesh)
        except OSError as error:
            raise Unavailable(f"the kernel refuses the WireGuard link of encrypted networks: {error}") from error
        self._mesh = mesh
        return mesh.address

    def renew_key(self, generation: int) -> None:
        """Make a key if those here are of an earlier generation; it is used when the swarm has told it to all."""
        self._generation = generation
        if self._way and self._keys.renew(generation):
            _log.info("a new key for encrypted networks is made", generation=generation)

    def greet(self, node_numbers: Collection[int]) -> None:
        """Agree on keys now with those of these nodes whose key, or for whom the own one, has changed."""
        mesh, key = self._mesh, self._private_key
        if mesh is None:
            return
        network = self._plumbing.settings.wireguard_network
        self._wanted = frozenset(link_address(network, number) for number in node_numbers)
        wireguard.greet(peers_to_greet(self._greeted, mesh, key != self._key_in_use, self._wanted))
        self._greeted, self._key_in_use = mesh, key

    def ensure(self) -> None:
        """Make the link anew if the program that carried it has ended."""
        if self._mesh is None:
            if not self._way:
                self.start()
            return
        name = self._plumbing.names.secret_link
        if not rtnetlink.link_index(self._plumbing.host_links, name):
            _log.warning("the WireGuard link is gone and is made anew", link=name)
            try:
                self._connect(self._mesh)
                # they know nothing of the end of what they had agreed on
                wireguard.greet(self._wanted)
            except (OSError, Unavailable) as error:
                _log.error("encrypted networks lead to no other node", reason=str(error))

    def shrink(self, port: int, vnis: Collection[int]) -> None:
        """Carry only encrypted networks of these identifiers any more; with none, link, program and rules go."""
        if not vnis:
            self.remove()
        else:
            self._guard(port, frozenset(vnis))

    def remove(self) -> None:
        """Take everything away, also what an earlier daemon made."""
        if self._guarded == NO_GUARD and self._mesh is None:
            return
        name = self._plumbing.names.secret_link
        if rtnetlink.link_index(self._plumbing.host_links, name) or wireguard.control_socket(name).exists():
            wireguard.end(self._plumbing.host_links, name)
        if self._guarded != NO_GUARD:
            nft_process.load(self._plumbing.settings.nft_command, take_away("inet", self._plumbing.names.secret_table))
        self._mesh, self._configured, self._guarded, self._mtu_bytes = None, None, NO_GUARD, 0
        self._greeted = None

    def forget(self) -> None:
        """Take the key away; another one is made when it is needed."""
        self._keys.forget()
        self._way = self._private_key = ""

    def _guard(self, port: int, vnis: frozenset[int]) -> None:
        if self._guarded != (port, vnis):
            rules = render_guard(self._plumbing.names, port, vnis)
            nft_process.load(self._plumbing.settings.nft_command, rules)
            self._guarded = port, vnis

    def _connect(self, mesh: SecretMesh) -> None:
        name, settings = self._plumbing.names.secret_link, self._plumbing.settings
        links = self._plumbing.host_links
        index = rtnetlink.link_index(links, name)
        if index and underlay.index_with_address(links, mesh.address) != index:
            # of another number, or half made
            wireguard.end(links, name)
            index = 0
        configuration = render_configuration(mesh, self._private_key)
        if index and configuration != self._configured:
            with contextlib.suppress(Unavailable):
                wireguard.set_up(settings, name, configuration)
                self._configured = configuration
            if configuration != self._configured:
                # a link without the program that carried it
                wireguard.end(links, name)
                index = 0
        if not index:
            self._configured = None
            index = wireguard.make(links, name, self._way, settings, self._mtu_bytes)
            wireguard.set_up(settings, name, configuration)
            bits = int(settings.wireguard_network.partition("/")[2])
            links.talk([rtnetlink.set_mtu(index, self._mtu_bytes), rtnetlink.set_up(index)])
            # last: by the address the link counts as whole
            links.talk([rtnetlink.add_address(index, mesh.address, bits)])
            self._configured = configuration
            _log.info("the WireGuard mesh is up", link=name, way=self._way, address=mesh.address)
