"""The link between the ingress sandboxes of all nodes, what it knows of them, and the way back (dataplane.md 3, 3b).

Every step creates what is missing and adopts what is there. A mesh that cannot be had leaves the node serving its own
tasks: the reason is logged, and every later change tries again. Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import structlog

from shoal.errors import ShoalError
from shoal.network import (
    mesh_link,
    mesh_rules,
    namespace,
    nfnetlink,
    nft,
    nft_process,
    routing,
    rtnetlink,
    underlay,
    vxlan,
)
from shoal.network.mesh_state import (
    NOWHERE_MAC,
    RETURN_BIT,
    RETURN_MASK,
    MeshState,
    MeshSteps,
    link_address,
    mac_of_node,
    mark_of_node,
    mesh_steps,
)
from shoal.network.netlink import Message
from shoal.network.plumbing import Plumbing

_log = structlog.get_logger(__name__)

RETURN_TABLE, RETURN_PRIORITY = 1000, 100
# on a kernel without egress hooks: a table for every node, counted from here
FIRST_NODE_TABLE = 0x10000
# acknowledgements of a send are kept in the socket's buffer until the last is there
MESSAGES_PER_SEND = 128


class Mesh:
    """What the kernel holds of the mesh between nodes, and the way to change it.

    A change is `begin`, what relies on it, then `finish`: traffic never meets a route that is gone already.
    """

    def __init__(self, plumbing: Plumbing) -> None:
        self._plumbing = plumbing
        self._actual = MeshState()
        self._steps = MeshSteps()
        self._index = 0
        self._is_known = False
        self._has_egress_hook = plumbing.settings.has_egress_hook
        self._complaint = ""

    @property
    def reached(self) -> frozenset[int]:
        """The numbers of the other nodes whose tasks can be reached; none while there is no mesh."""
        return frozenset(self._actual.remotes) if self._is_known else frozenset()

    @property
    def complaint(self) -> str:
        """Why there is no mesh, empty if there is one or none is wanted."""
        return self._complaint

    def begin(self, wanted: MeshState) -> None:
        """Make everything new; what is to go stays until `finish`."""
        try:
            if not self._is_known or wanted.link != self._actual.link:
                self._is_known = False
                self._take_up(wanted)
            if wanted.link is None:
                return
            self._is_known = False
            self._steps = mesh_steps(self._actual, wanted)
            self._add(self._steps)
            self._actual = wanted
            self._is_known = True
            self._complaint = ""
        except (OSError, ShoalError) as error:
            self._give_up(error)

    def stay_alone(self, reason: Exception) -> None:
        """Have no link to other nodes, for this reason."""
        self.begin(MeshState())
        self._give_up(reason)

    def finish(self) -> None:
        """Take away what `begin` found to be no longer wanted."""
        steps, self._steps = self._steps, MeshSteps()
        if self._is_known and not steps.is_empty:
            try:
                self._remove(steps)
            except (OSError, ShoalError) as error:
                self._give_up(error)

    def delete(self) -> None:
        """Take the link away at once: the kernel ends a namespace in its own time, and its UDP port with it."""
        plumbing = self._plumbing
        plumbing.sandbox_links.talk([rtnetlink.delete_link(plumbing.names.mesh_link)])
        nft_process.load(plumbing.settings.nft_command, nft.take_away("inet", plumbing.names.path_table))
        self._is_known = False

    def _give_up(self, error: Exception) -> None:
        self._is_known = False
        reason = str(error)
        if reason != self._complaint:
            self._complaint = reason
            _log.error("no mesh between nodes: published ports lead to the tasks of this node only", reason=reason)

    def _talk(self, messages: list[Message]) -> None:
        for first in range(0, len(messages), MESSAGES_PER_SEND):
            self._plumbing.sandbox_links.talk(messages[first : first + MESSAGES_PER_SEND])

    def _take_up(self, wanted: MeshState) -> None:
        """Learn what is there; make the link, and the rules, anew unless they are as they should be."""
        plumbing = self._plumbing
        names, settings = plumbing.names, plumbing.settings
        found = mesh_link.read(plumbing.sandbox_links, names.mesh_link)
        if wanted.link is None:
            self._actual = MeshState()
            if found is not None:
                self.delete()
                self._talk([routing.delete_rule(RETURN_TABLE, RETURN_BIT, RETURN_BIT, RETURN_PRIORITY)])
            self._is_known = True
            return
        link = wanted.link
        address = link_address(settings.mesh_network, link.number)
        path = underlay.look(plumbing.host_links, link.local, tuple(wanted.remotes.values()))
        mtu_bytes = min(settings.task_mtu_bytes, link.mtu_bytes or path.mtu_bytes)
        # behind a router that translates, the address others know is none of this host
        like = mesh_link.FoundLink(
            index=0 if found is None else found.index,
            mac=mac_of_node(link.number),
            vni=settings.mesh_vni,
            port=link.port,
            local=path.local,
            mtu_bytes=mtu_bytes,
        )
        if found is not None and found != like:
            self.delete()
            found = None
        if found is None:
            made = vxlan.add_vxlan(
                names.mesh_link,
                settings.mesh_vni,
                link.port,
                plumbing.sandbox,
                mtu_bytes,
                local=path.local,
                mac=mac_of_node(link.number),
            )
            vxlan.create(plumbing.host_links, made, settings.mesh_vni, link.port)
            found = mesh_link.read(plumbing.sandbox_links, names.mesh_link)
            if found is None:
                raise OSError(f"the link {names.mesh_link} is gone as soon as it was made")
        self._index = found.index
        range_start, _, bits = settings.mesh_network.partition("/")
        self._talk(
            [
                rtnetlink.add_address(found.index, address, 32),
                rtnetlink.set_up(found.index),
                # the sandboxes answer each other's echo requests by it: `shoal doctor` asks
                rtnetlink.set_route(range_start, int(bits), found.index),
            ]
        )
        self._actual = mesh_link.read_state(plumbing.sandbox_links, found.index, link, settings.mesh_network)
        self._load(frozenset(self._actual.remotes))

    def _load(self, numbers: frozenset[int]) -> None:
        """Load the rules whole, and make the way back."""
        plumbing, command = self._plumbing, self._plumbing.settings.nft_command
        if self._actual.link is not None:
            nft_process.load(command, mesh_rules.render_path(plumbing.names, self._actual.link.port))
        with namespace.inside(plumbing.sandbox, plumbing.home):
            nft_process.load(command, mesh_rules.render_mesh(plumbing.names, plumbing.ranges, numbers))
            if self._has_egress_hook:
                try:
                    nft_process.load(command, mesh_rules.render_return(plumbing.names, numbers))
                except ShoalError as error:
                    self._has_egress_hook = False
                    _log.warning(
                        "this kernel has no hook at the way out of a link (Linux 5.16 has): replies find their way "
                        "back by a rule for every node, searched one after another",
                        reason=str(error),
                    )
        nowhere = link_address(plumbing.settings.mesh_network, 0)
        if self._has_egress_hook:
            self._talk(
                [
                    vxlan.set_neighbour(self._index, nowhere, NOWHERE_MAC),
                    routing.set_route_on_link(None, nowhere, self._index, RETURN_TABLE),
                    routing.add_rule(RETURN_TABLE, RETURN_BIT, RETURN_BIT, RETURN_PRIORITY),
                ]
            )
        else:
            self._talk([message for number in sorted(numbers) for message in self._node_rule(number)])

    def _node_rule(self, number: int) -> list[Message]:
        table = FIRST_NODE_TABLE + number
        gateway = link_address(self._plumbing.settings.mesh_network, number)
        return [
            routing.set_route_on_link(None, gateway, self._index, table),
            routing.add_rule(table, mark_of_node(number), RETURN_MASK, RETURN_PRIORITY),
        ]

    def _add(self, steps: MeshSteps) -> None:
        network = self._plumbing.settings.mesh_network
        messages: list[Message] = []
        for number, host in steps.remotes.items():
            mac = mac_of_node(number)
            messages.append(vxlan.set_remote(self._index, mac, host))
            messages.append(vxlan.set_neighbour(self._index, link_address(network, number), mac))
            if not self._has_egress_hook:
                messages += self._node_rule(number)
        for address, number in steps.routes.items():
            messages.append(routing.set_route_on_link(address, link_address(network, number), self._index))
        self._talk(messages)
        self._change_rules(steps.remotes.keys() - self._actual.remotes.keys(), frozenset())

    def _remove(self, steps: MeshSteps) -> None:
        network = self._plumbing.settings.mesh_network
        messages: list[Message] = []
        for address, number in steps.gone_routes.items():
            messages.append(routing.delete_route_on_link(address, link_address(network, number), self._index))
        for number in steps.gone_remotes:
            messages.append(vxlan.delete_remote(self._index, mac_of_node(number)))
            messages.append(vxlan.delete_neighbour(self._index, link_address(network, number)))
            if not self._has_egress_hook:
                table = FIRST_NODE_TABLE + number
                messages.append(routing.delete_rule(table, mark_of_node(number), RETURN_MASK, RETURN_PRIORITY))
        self._talk(messages)
        self._change_rules(frozenset(), frozenset(steps.gone_remotes))

    def _change_rules(self, added: frozenset[int] | set[int], gone: frozenset[int]) -> None:
        """Make nodes known to the rules, or forgotten; a batch that the kernel refuses is answered by a whole load."""
        plumbing = self._plumbing
        if not added and not gone:
            return
        try:
            table = plumbing.names.mesh_table
            nfnetlink.commit(plumbing.sandbox_rules, mesh_rules.mesh_batch(table, added, gone))
            if self._has_egress_hook:
                nfnetlink.commit(plumbing.sandbox_rules, mesh_rules.return_batch(table, added, gone))
        except OSError as error:
            _log.warning("an update of the mesh's rules was refused: loading them whole", reason=str(error))
            self._load((frozenset(self._actual.remotes) | added) - gone)
