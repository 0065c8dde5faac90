"""The overlay networks of a node: what is held of them, and leading the kernel and the names there.

Joins the pure part (overlays.py) with namespaces of networks (sandboxes.py), containers' tables (clients.py) and names.
Which tasks there are is wiring.py's to know. Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from shoal.errors import Unavailable
from shoal.model.base import replace
from shoal.model.netstate import DataPath, JoinedNetwork, NetworkChange, OverlayService, OverlayUpdate, SandboxRequest
from shoal.network import underlay
from shoal.network.clients import Clients
from shoal.network.mesh_state import MeshState, encrypted_mesh
from shoal.network.naming import NameServer
from shoal.network.netlink import Socket
from shoal.network.overlays import (
    HeldOverlay,
    Holding,
    changed_services,
    hosts_of,
    merge,
    own_address,
    remotes_of,
)
from shoal.network.plumbing import Plumbing
from shoal.network.records import Records
from shoal.network.sandboxes import Sandboxes, Trunk
from shoal.network.secret_paths import SecretPaths
from shoal.network.secret_plan import secret_mtu_bytes

# of a bridge of this node alone; a macvlan has its parent's
LOCAL_MTU_BYTES = 1500
_log = structlog.get_logger(__name__)


class Lead(NamedTuple):
    """A network that is here and is led from one state to another: the services that differ, as they were and are."""

    network_id: str
    before: HeldOverlay | None
    after: HeldOverlay | None
    was: list[OverlayService]
    now: list[OverlayService]


class OverlaySide:
    """See the module; `version` is what kernel and names hold."""

    def __init__(
        self, directory: Path, plumbing: Plumbing, records: Records, names: NameServer, key_file: Path
    ) -> None:
        self.secret = SecretPaths(plumbing, key_file)
        self._plumbing = plumbing
        self._records = records
        self._names = names
        self._holding = Holding()
        self._node_number = 0
        # networks whose kernel state is not what is held: led there whole at the next change
        self._behind: set[str] = set()
        # of the routing mesh, while it is encrypted: its VXLAN identifier, and the nodes it speaks to
        self._mesh_vni = 0
        self._mesh_nodes: frozenset[int] = frozenset()
        self.sandboxes = Sandboxes(directory, plumbing, records)
        self.clients = Clients()
        self.version = 0

    def start(self, used: Collection[str], node_number: int) -> None:
        """Take up what an earlier daemon held and made, for the networks that tasks here are on."""
        self._node_number = node_number
        self._holding = self._records.read_holding()
        self.sandboxes.adopt(used)
        self.secret.start()
        self.secret.renew_key(self._holding.data_path.key_generation)
        self._names.start()
        for held in self._holding.overlays.values():
            services = tuple(held.services.values())
            self._names.set_network(OverlayUpdate(overlay=held.overlay, complete=True, services=services))
        for network_id in self.sandboxes.ids():
            if network_id in self._holding.overlays:
                self._bring_up(network_id)
            else:
                self.clients.add_network(network_id, (), node_number)
        self.version = self._holding.version

    def change(self, change: NetworkChange) -> None:
        """Lead everything to a change; a version lower than the held one is ignored.

        Raises:
            Unavailable: a part could not be led there; the next change, the same one too, tries again.
        """
        before = self._holding
        if change.version < before.version:
            _log.info("ignored an older change", version=change.version, current=before.version)
            return
        after = merge(before, change)
        self._records.write_holding(before, after, change.overlays)
        self._holding = after
        if after.data_path != before.data_path:
            self._behind |= set(self.sandboxes.ids())
            self.secret.renew_key(after.data_path.key_generation)
        updates = {update.overlay.network_id: update for update in change.overlays}
        refusals = []
        leads = []
        for network_id in self.sandboxes.ids():
            old, new = before.overlays.get(network_id), after.overlays.get(network_id)
            lead = Lead(network_id, old, new, *changed_services(old, new, updates.get(network_id)))
            leads.append(lead)
            try:
                self._lead(lead)
            except (OSError, Unavailable) as error:
                self._behind.add(network_id)
                refusals.append(f"network {network_id}: {error}")
        for update in change.overlays:
            self._names.set_network(update)
        for network_id in before.overlays.keys() - after.overlays.keys():
            self._names.remove_network(network_id)
        for lead in leads:
            try:
                self._leave(lead)
            except OSError as error:
                self._behind.add(lead.network_id)
                refusals.append(f"network {lead.network_id}: {error}")
        self.secret.greet(self.secret_nodes())
        if refusals:
            raise Unavailable(f"the kernel refuses a part of the overlay networks: {'; '.join(refusals)}")
        self.version = after.version

    def set_local_networks(self, updates: tuple[OverlayUpdate, ...]) -> None:
        """Lead everything to these networks of the node alone; others that are held are gone."""
        named = {update.overlay.network_id for update in updates}
        held = (each.overlay for each in self._holding.overlays.values())
        gone = tuple(overlay.network_id for overlay in held if not overlay.vni and overlay.network_id not in named)
        self.change(NetworkChange(version=self._holding.version, overlays=updates, removed_network_ids=gone))

    def is_known(self, network_id: str) -> bool:
        """Tell whether a change has told of a network; may be asked in any thread."""
        return network_id in self._holding.overlays

    def version_falls(self, version: int) -> None:
        """Count from this version on, if it is lower than the one held."""
        if version < self._holding.version:
            self._holding = replace(self._holding, version=version)
            self.version = version

    def set_node_number(self, number: int) -> None:
        """Take this node's number: tasks of this number are here, others behind VXLAN."""
        if number == self._node_number:
            return
        self._node_number = number
        for network_id in self.sandboxes.ids():
            held = self._holding.overlays.get(network_id)
            if held is not None:
                services = list(held.services.values())
                self._bring_up(network_id)
                self.clients.change(network_id, services, services, number)

    def prepare(self, request: SandboxRequest) -> None:
        """Make the namespaces of a task's networks.

        Raises:
            Unavailable: a network is not known here yet, or cannot be carried.
        """
        for link in request.overlays:
            if link.network_id not in self._holding.overlays:
                raise Unavailable(
                    f"nothing is known yet of network {link.network_id}: the node's manager has not told of it"
                )
            if not self.clients.has_network(link.network_id):
                self._bring_up(link.network_id)

    def joined(self, request: SandboxRequest) -> tuple[JoinedNetwork, ...]:
        """Return the overlay networks that a request names, by the names they have."""
        held = self._holding.overlays
        return tuple(
            JoinedNetwork(
                name=held[link.network_id].overlay.name if link.network_id in held else link.network_id,
                network_id=link.network_id,
                addresses=link.addresses,
            )
            for link in request.overlays
        )

    def connect(self, request: SandboxRequest, namespace: Path, rules: Socket | None) -> None:
        """Give a task's namespace, which is linked, virtual addresses and names. None: it has its socket already."""
        network_ids = tuple(link.network_id for link in request.overlays)
        if rules is not None:
            self.clients.add(request.task_id, rules, network_ids)
        else:
            self.clients.move(request.task_id, network_ids)
        self._names.add_container(request, namespace)

    def disconnect(self, task_id: str) -> None:
        """Take names and virtual addresses away, before the links go."""
        self._names.remove_container(task_id)
        self.clients.remove(task_id)

    def sweep(self, used: Collection[str]) -> None:
        """Take the namespaces of networks away that no task is on."""
        for network_id in self.sandboxes.ids():
            if network_id not in used:
                self.clients.drop_network(network_id)
                self._behind.discard(network_id)
                self.sandboxes.remove(network_id)
        self.shrink_secret()

    def shrink_secret(self) -> None:
        """Carry only what is still encrypted."""
        self.secret.shrink(self._holding.data_path.port, self._secret_vnis())

    def close(self, remove: bool) -> None:
        """Give the descriptors back. `remove`: forget everything; the namespaces went with the last tasks."""
        if remove:
            self.sweep(())
            for network_id in self._holding.overlays:
                self._names.remove_network(network_id)
            self._holding = Holding()
            self.version = 0
        self._names.close(remove)
        self.clients.close()
        self.sandboxes.close()

    def _lead(self, lead: Lead) -> None:
        network_id, before, after, was, now = lead
        overlay_changed = before is not None and after is not None and before.overlay != after.overlay
        if after is not None and (network_id in self._behind or overlay_changed or before is None):
            self._bring_up(network_id)
        elif was or now:
            self.sandboxes.tell(network_id, (), remotes_of(now, self._hosts(after)))
        if was or now:
            self.clients.change(network_id, was, now, self._node_number)
        self._behind.discard(network_id)

    def _leave(self, lead: Lead) -> None:
        """Forget where tasks were that nothing leads to any more."""
        if lead.was:
            hosts = self._hosts(lead.after or lead.before)
            self.sandboxes.tell(lead.network_id, remotes_of(lead.was, hosts), remotes_of(lead.now, hosts))

    def _bring_up(self, network_id: str) -> None:
        """Make a network's namespace, tell it of every task elsewhere, and know what stands on it."""
        held = self._holding.overlays[network_id]
        self.sandboxes.make(held.overlay, self._trunk(held))
        wanted = remotes_of(held.services.values(), self._hosts(held))
        self.sandboxes.tell(network_id, tuple(self.sandboxes[network_id].remotes), wanted)
        self.clients.add_network(network_id, held.services.values(), self._node_number)

    def _trunk(self, held: HeldOverlay) -> Trunk:
        if not held.overlay.vni:
            usual = 0 if held.overlay.parent else LOCAL_MTU_BYTES
            return Trunk(vni=0, port=0, local=None, mtu_bytes=held.overlay.mtu_bytes or usual)
        data_path = self._holding.data_path
        hosts: Iterable[str] = hosts_of(data_path, self._node_number).values()
        found = underlay.look(self._plumbing.host_links, own_address(data_path, self._node_number), tuple(hosts))
        local, mtu_bytes = found.local, found.mtu_bytes
        if held.overlay.encrypted:
            mtu_bytes = secret_mtu_bytes(mtu_bytes)
            vnis = self._secret_vnis() | {held.overlay.vni}
            # refused rather than in the clear
            local = self.secret.lead(data_path, self._node_number, vnis, held.overlay.mtu_bytes or mtu_bytes)
        return Trunk(
            vni=held.overlay.vni, port=data_path.port, local=local, mtu_bytes=held.overlay.mtu_bytes or mtu_bytes
        )

    def _hosts(self, held: HeldOverlay | None) -> dict[int, str]:
        """Return where VXLAN of a network is sent to, by node."""
        if held is not None and held.overlay.encrypted:
            return self.secret.hosts(self._holding.data_path, self._node_number)
        return hosts_of(self._holding.data_path, self._node_number)

    def expect_mesh(self, vni: int, nodes: frozenset[int] = frozenset()) -> None:
        """Know of the routing mesh's VXLAN identifier and nodes if it is encrypted (0: it is not)."""
        self._mesh_vni, self._mesh_nodes = vni, nodes

    def carry_mesh(self, mesh: MeshState, data_path: DataPath, most_mtu_bytes: int) -> MeshState:
        """Return the routing mesh, which has a link, as it goes through WireGuard.

        Raises:
            Unavailable: this node cannot encrypt.
        """
        hosts = tuple(mesh.remotes.values())
        path = underlay.look(self._plumbing.host_links, own_address(data_path, self._node_number), hosts)
        mtu_bytes = min(most_mtu_bytes, secret_mtu_bytes(path.mtu_bytes))
        local = self.secret.lead(data_path, self._node_number, self._secret_vnis(), mtu_bytes)
        return encrypted_mesh(mesh, local, self.secret.hosts(data_path, self._node_number), mtu_bytes)

    def secret_nodes(self) -> frozenset[int]:
        """Return the numbers of the other nodes that encrypted networks which are here lead to."""
        return self._mesh_nodes | frozenset(
            endpoint.node_number
            for held in self._secret_networks()
            for service in held.services.values()
            for endpoint in service.endpoints
            if endpoint.node_number != self._node_number
        )

    def _secret_vnis(self) -> frozenset[int]:
        mesh = {self._mesh_vni} if self._mesh_vni else set()
        return frozenset(held.overlay.vni for held in self._secret_networks()) | mesh

    def _secret_networks(self) -> Iterator[HeldOverlay]:
        """Yield the encrypted networks that are here."""
        for network_id in self.sandboxes.ids():
            held = self._holding.overlays.get(network_id)
            if held is not None and held.overlay.encrypted:
                yield held
