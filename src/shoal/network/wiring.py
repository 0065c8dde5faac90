"""The namespaces of tasks: made, linked, addressed, taken away. Raw rtnetlink, about 1 ms a link (dataplane.md 6).

A task has a link on each of its overlay networks, eth0 first, then one on `gw0` for its way out. Which networks there
are, and what is known on them, is not decided here. Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from shoal.core.endpoint_options import INTERFACE_WORD
from shoal.errors import Unavailable
from shoal.model.base import replace
from shoal.model.netstate import LinkOptions, Overlay, OverlayLink, Sandbox, SandboxRequest
from shoal.network import namespace, routing, rtnetlink
from shoal.network.addresses import next_address
from shoal.network.netlink import NETFILTER, ROUTE, Message, Socket
from shoal.network.overlays import is_ipv4, mac_of_addresses
from shoal.network.plumbing import Plumbing
from shoal.network.records import Records, TaskRecord
from shoal.network.sandboxes import Sandboxes
from shoal.network.settings import link_name_of

_log = structlog.get_logger(__name__)

SHORT_ID_LENGTH = 12
TASK_LINK = "eth"
# stands for the way out where links are told apart by network
OUTSIDE = ""
# inside a namespace that goes out by another network: what has the way out's address
OUTSIDE_TABLE, OUTSIDE_PRIORITY = 100, 100


class Inside(NamedTuple):
    """A task's namespace, and a socket there."""

    descriptor: int
    links: Socket

    def index_of(self, name: str) -> int:
        """Return the index of a link there; the kernel chooses it."""
        return rtnetlink.link_index(self.links, name)


class Wiring:
    """The tasks of this node that have a namespace, by task id."""

    def __init__(self, directory: Path, plumbing: Plumbing, records: Records, sandboxes: Sandboxes) -> None:
        self._directory = directory
        self._plumbing = plumbing
        self._records = records
        self._sandboxes = sandboxes
        self._last_address: str | None = None
        self.tasks: dict[str, TaskRecord] = {}

    def path_of(self, task_id: str) -> Path:
        """Return where a task's namespace is bound."""
        return self._directory / task_id[:SHORT_ID_LENGTH]

    def adopt(self) -> None:
        """Take up what an earlier daemon left; what is half made, or lost a namespace, goes."""
        for record in self._records.read_tasks():
            request = record.request
            if record.complete and self._is_whole(request):
                self.tasks[request.task_id] = record
                _log.info("took up a task's namespace", task=request.task_id, address=record.address)
            else:
                _log.info("removing a task's namespace that is not whole", task=request.task_id)
                self._take_away(record)

    def _is_whole(self, request: SandboxRequest) -> bool:
        if request.host_network:
            return True
        return (
            namespace.exists(self.path_of(request.task_id))
            and not self._plumbing.is_sandbox_fresh
            and all(self._sandboxes.is_there(link.network_id) for link in request.overlays)
        )

    def finish_changes(self) -> None:
        """Carry out what an earlier daemon began to change on tasks; the networks are there by now."""
        for record in list(self.tasks.values()):
            if record.changing:
                self._change_links(record)

    def networks(self) -> frozenset[str]:
        """Return the networks that tasks here are on, or are just leaving."""
        return frozenset(
            network_id
            for record in self.tasks.values()
            for network_id in (*record.changing, *(link.network_id for link in record.request.overlays))
            if network_id != OUTSIDE
        )

    def attach(self, request: SandboxRequest) -> Sandbox:
        """Make a task's namespace, or lead the one it has to what the request says."""
        record = self.tasks.get(request.task_id)
        if record is not None:
            if record.request != request:
                self._change(record, request)
            return self._sandbox_of(self.tasks[request.task_id])
        address = ""
        if request.outside and not request.host_network:
            address = request.ingress_address or self._free_address()
        names = _names({}, request, bool(address))
        record = TaskRecord(request=request, address=address, names=names)
        self._records.write_task(record)
        try:
            if not request.host_network:
                self._make(record)
        except BaseException:
            self._take_away(record)
            raise
        record = replace(record, complete=True)
        self._records.write_task(record)
        self.tasks[request.task_id] = record
        return self._sandbox_of(record)

    def detach(self, task_id: str) -> None:
        """Take a task's namespace away; that there is none is fine."""
        record = self.tasks.pop(task_id, None)
        if record is not None:
            self._take_away(record)

    def open_socket(self, task_id: str, protocol: int) -> Socket:
        """Return a netlink socket in a task's namespace."""
        descriptor = os.open(self.path_of(task_id), os.O_RDONLY | os.O_CLOEXEC)
        try:
            with namespace.inside(descriptor, self._plumbing.home):
                return Socket(protocol)
        finally:
            os.close(descriptor)

    def open_rules(self, task_id: str) -> Socket:
        """Return a netfilter socket in a task's namespace."""
        rules = self.open_socket(task_id, NETFILTER)
        rules.enlarge_buffers()
        return rules

    def _sandbox_of(self, record: TaskRecord) -> Sandbox:
        request = record.request
        if request.host_network:
            return Sandbox(task_id=request.task_id, path="")
        path = str(self.path_of(request.task_id))
        addresses = [address for link in request.overlays for address in link.addresses]
        if record.address:
            addresses.append(f"{record.address}/32")
        return Sandbox(task_id=request.task_id, path=path, addresses=tuple(addresses))

    def _free_address(self) -> str:
        asked = self._plumbing.asked
        network = asked.address_range or self._plumbing.gateway_network
        in_use = {asked.gateway, *asked.reserved, *(record.address for record in self.tasks.values())}
        address = next_address(network, in_use, self._last_address)
        if address is None:
            raise Unavailable(f"no address is free for the task in {network}")
        self._last_address = address
        return address

    def _make(self, record: TaskRecord) -> None:
        plumbing, request = self._plumbing, record.request
        path = self.path_of(request.task_id)
        namespace.remove(path)
        with self._enter(namespace.make(path, plumbing.home)) as inside:
            messages = [rtnetlink.set_up(rtnetlink.LOOPBACK_INDEX)]
            for link in request.overlays:
                messages += self._plug(record, link, inside)
            if record.address:
                messages += self._plug_outside(record, inside)
            inside.links.talk([*messages, *self._lead_out(record, inside)])

    @contextlib.contextmanager
    def _enter(self, descriptor: int) -> Iterator[Inside]:
        """Yield a namespace with a socket inside; its links have IPv6 only if they are told so. Closes both."""
        try:
            with namespace.inside(descriptor, self._plumbing.home):
                namespace.write_setting("net/ipv6/conf/default/disable_ipv6", "1")
                links = Socket(ROUTE)
            try:
                yield Inside(descriptor, links)
            finally:
                links.close()
        finally:
            os.close(descriptor)

    def _plug(self, record: TaskRecord, link: OverlayLink, inside: Inside) -> list[Message]:
        """Link a namespace to a network; return what is left to say inside it."""
        sandbox = self._sandboxes[link.network_id]
        inner_name = record.names[link.network_id]
        if sandbox.overlay is not None and sandbox.overlay.parent:
            self._put_on_parent(sandbox.overlay, link, inner_name, inside)
        else:
            name = link_name_of(record.request.task_id)
            sandbox.links.talk(
                [
                    rtnetlink.delete_link(name),
                    rtnetlink.add_veth(
                        name,
                        inner_name,
                        inside.descriptor,
                        sandbox.mtu_bytes,
                        mac_of_addresses(link.addresses),
                        sandbox.bridge_index,
                    ),
                ]
            )
        if not all(is_ipv4(address) for address in link.addresses):
            with namespace.inside(inside.descriptor, self._plumbing.home):
                namespace.write_setting(f"net/ipv6/conf/{inner_name}/disable_ipv6", "0")
        self._set(link.options, inner_name, inside)
        index = inside.index_of(inner_name)
        split = (address.partition("/") for address in link.addresses)
        addresses = [rtnetlink.add_address(index, address, int(bits)) for address, _, bits in split]
        return [*addresses, rtnetlink.set_up(index)]

    def _set(self, options: LinkOptions, name: str, inside: Inside) -> None:
        """Set what was asked of a link before it is up. Raises InvalidArgument: the kernel takes it not."""
        if options.sysctls:
            with namespace.inside(inside.descriptor, self._plumbing.home):
                for path, value in options.sysctls:
                    namespace.demand_setting(path.replace(INTERFACE_WORD, name), value)

    def _put_on_parent(self, overlay: Overlay, link: OverlayLink, name: str, inside: Inside) -> None:
        """Give a namespace a macvlan. Raises Unavailable: the node has no such parent, or it takes none."""
        links = self._plumbing.host_links
        parent_index = rtnetlink.link_index(links, overlay.parent)
        if not parent_index:
            raise Unavailable(f"network {overlay.name}: this node has no link {overlay.parent} any more")
        mac = mac_of_addresses(link.addresses)
        macvlan = rtnetlink.add_macvlan(name, parent_index, overlay.mode, inside.descriptor, mac, overlay.mtu_bytes)
        try:
            links.talk([macvlan])
        except OSError as error:
            raise Unavailable(
                f"network {overlay.name}: the kernel gives no macvlan on {overlay.parent} ({error}): it needs the "
                "module macvlan, and a parent that is not part of a bridge"
            ) from error

    def _plug_outside(self, record: TaskRecord, inside: Inside) -> list[Message]:
        """Link a namespace to `gw0`; return what is left to say inside it."""
        plumbing, address = self._plumbing, record.address
        name, gateway = link_name_of(record.request.task_id), plumbing.settings.sandbox_gateway
        inner_name = record.names[OUTSIDE]
        plumbing.sandbox_links.talk(
            [
                rtnetlink.delete_link(name),
                rtnetlink.add_veth(
                    name,
                    inner_name,
                    inside.descriptor,
                    plumbing.settings.task_mtu_bytes,
                    rtnetlink.mac_of(address),
                    plumbing.sandbox_bridge_index,
                ),
                rtnetlink.isolate_port(name),
                rtnetlink.set_route(address, 32, plumbing.sandbox_bridge_index),
            ]
        )
        plumbing.host_links.talk(
            [rtnetlink.set_route(address, 32, plumbing.host_link_index, plumbing.ranges.sandbox_end)]
        )
        self._set(record.request.outside_options, inner_name, inside)
        index = inside.index_of(inner_name)
        return [
            rtnetlink.add_address(index, address, 32),
            rtnetlink.set_up(index),
            rtnetlink.set_route(gateway, 32, index),
        ]

    def _lead_out(self, record: TaskRecord, inside: Inside) -> list[Message]:
        """Return what leads out of a namespace whose links are there: a network's own gateway, or the way out."""
        messages: list[Message] = []
        own = record.request.default_network_id
        if own:
            overlay = self._sandboxes[own].overlay
            index = inside.index_of(record.names[own])
            gateways = overlay.gateways if overlay is not None else ()
            messages += [rtnetlink.set_default_route(index, gateway) for gateway in gateways]
        if record.address and record.request.outside:
            index, gateway = inside.index_of(record.names[OUTSIDE]), self._plumbing.settings.sandbox_gateway
            if own:
                # what comes in by a published port goes out where it came from, which is not where the rest goes
                with namespace.inside(inside.descriptor, self._plumbing.home):
                    for links in ("all", record.names[OUTSIDE]):
                        namespace.write_setting(f"net/ipv4/conf/{links}/rp_filter", "0")
                messages += [
                    routing.set_route_on_link(None, gateway, index, OUTSIDE_TABLE),
                    routing.add_source_rule(record.address, OUTSIDE_TABLE, OUTSIDE_PRIORITY),
                ]
            else:
                messages.append(rtnetlink.set_default_route(index, gateway))
                if record.complete:
                    # it may have gone out by a network before
                    messages.append(routing.delete_source_rule(record.address, OUTSIDE_TABLE, OUTSIDE_PRIORITY))
        return messages

    def _change(self, record: TaskRecord, request: SandboxRequest) -> None:
        """Lead a living namespace to other networks and host ports."""
        before = {link.network_id: link for link in record.request.overlays}
        after = {link.network_id: link for link in request.overlays}
        changing = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
        if request.outside != bool(record.address) and not request.host_network:
            changing.append(OUTSIDE)
            if request.outside:
                record = replace(record, address=request.ingress_address or self._free_address())
        # those that go are kept until their links have gone
        names = _names(record.names, request, request.outside)
        record = replace(record, request=request, names=names, changing=tuple(changing))
        self._records.write_task(record)
        self.tasks[request.task_id] = record
        self._change_links(record)

    def _change_links(self, record: TaskRecord) -> None:
        request = record.request
        wanted = {link.network_id: link for link in request.overlays}
        if not request.host_network:
            descriptor = os.open(self.path_of(request.task_id), os.O_RDONLY | os.O_CLOEXEC)
            with self._enter(descriptor) as inside:
                old = (record.names[key] for key in record.changing if key in record.names)
                inside.links.talk([rtnetlink.delete_link(name) for name in old])
                for network_id in record.changing:
                    if network_id in wanted:
                        inside.links.talk(self._plug(record, wanted[network_id], inside))
                if OUTSIDE in record.changing and request.outside:
                    inside.links.talk(self._plug_outside(record, inside))
                inside.links.talk(self._lead_out(record, inside))
        if record.address and not request.outside:
            self._forget_outside(record)
            record = replace(record, address="")
        kept = wanted.keys() | ({OUTSIDE} if record.address else set())
        names = {key: name for key, name in record.names.items() if key in kept}
        record = replace(record, names=names, changing=())
        self._records.write_task(record)
        self.tasks[request.task_id] = record

    def _take_away(self, record: TaskRecord) -> None:
        request = record.request
        if not request.host_network:
            # an address is given on once its task has stopped: the routes may be another's by now
            if record.address and all(other.address != record.address for other in self.tasks.values()):
                self._forget_outside(record)
            # the links go with the namespace, many at once in the kernel's own time; one by one it takes 30 ms each
            namespace.remove(self.path_of(request.task_id))
        self._records.forget_task(request.task_id)

    def _forget_outside(self, record: TaskRecord) -> None:
        """Take the routes to a task's way out away."""
        plumbing = self._plumbing
        plumbing.host_links.talk(
            [rtnetlink.delete_route(record.address, 32, plumbing.host_link_index, plumbing.ranges.sandbox_end)]
        )
        plumbing.sandbox_links.talk([rtnetlink.delete_route(record.address, 32, plumbing.sandbox_bridge_index)])


def _names(held: dict[str, str], request: SandboxRequest, has_way_out: bool) -> dict[str, str]:
    """Return what the link to each network is called: as it is, as it was asked for, else the next ethN."""
    wanted = {link.network_id: link.options.interface for link in request.overlays}
    if has_way_out:
        wanted[OUTSIDE] = request.outside_options.interface
    taken = {*held.values(), *wanted.values()}
    free = (name for name in (f"{TASK_LINK}{number}" for number in itertools.count()) if name not in taken)
    return held | {key: name or next(free) for key, name in wanted.items() if key not in held}
