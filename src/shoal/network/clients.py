"""Containers as clients of virtual addresses: keeps the table in each one's namespace true, and cuts dead flows there.

A container knows the services of the networks it is on, no others. One change is encoded once for all of them.
Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import structlog

from shoal.model.netstate import OverlayService
from shoal.network import conntrack
from shoal.network.netlink import Socket
from shoal.network.overlays import Balance, Cuts, balances_of, cuts_between, in_order_of
from shoal.network.vips import Way, change_batch, ways_of, whole_batch

_log = structlog.get_logger(__name__)

# more of them are not waited on by anybody
MOST_GONE = 256


class Client:
    """One container: a netfilter socket in its namespace, and its networks."""

    def __init__(self, rules: Socket, network_ids: tuple[str, ...]) -> None:
        self.rules = rules
        self.network_ids = network_ids
        self.is_known = False
        self.ways: frozenset[Way] = frozenset()


class Whole(NamedTuple):
    """The batch that loads a table, its last sequence number, and the ways of picking it has."""

    data: bytes
    last: int
    ways: frozenset[Way]


class Clients:
    """The containers of this node that are on overlay networks, by task id."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}
        self._balances: dict[str, dict[str, Balance]] = {}
        # addresses of tasks that are no more, the oldest first
        self._gone: dict[str, dict[str, None]] = {}
        # the batches that load a table, by networks, until something changes: many containers begin at once
        self._whole: dict[tuple[str, ...], Whole] = {}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._clients

    def has_network(self, network_id: str) -> bool:
        """Tell whether what stands on the network is kept here."""
        return network_id in self._balances

    def add_network(self, network_id: str, services: Iterable[OverlayService], node_number: int) -> None:
        """Begin to keep what stands on a network, before its first container."""
        if network_id not in self._balances:
            self._balances[network_id] = balances_of(services, node_number)
            self._gone[network_id] = {}
            self._whole.clear()

    def drop_network(self, network_id: str) -> None:
        """Forget a network without containers."""
        self._balances.pop(network_id, None)
        self._gone.pop(network_id, None)
        self._whole.clear()

    def add(self, task_id: str, rules: Socket, network_ids: tuple[str, ...]) -> None:
        """Load a container's table; the socket is this object's from now on.

        Raises:
            OSError: the kernel refuses the table.
        """
        self.remove(task_id)
        client = Client(rules, network_ids)
        try:
            self._load(client)
        except OSError:
            rules.close()
            raise
        self._clients[task_id] = client

    def move(self, task_id: str, network_ids: tuple[str, ...]) -> None:
        """Give a container other networks."""
        client = self._clients[task_id]
        client.network_ids = network_ids
        self._load(client)

    def remove(self, task_id: str) -> None:
        """Let go of a container; its table goes with its namespace."""
        client = self._clients.pop(task_id, None)
        if client is not None:
            client.rules.close()

    def change(self, network_id: str, was: list[OverlayService], now: list[OverlayService], node_number: int) -> Cuts:
        """Lead the containers of a network from services as they were to what they are now; return what was cut."""
        known = self._balances[network_id]
        wanted = balances_of(now, node_number)
        touched = {vip for service in was for vip in service.virtual_ips} | wanted.keys()
        before = {vip: known[vip] for vip in touched if vip in known}
        after = {vip: in_order_of(known.get(vip), balance) for vip, balance in wanted.items()}
        cuts = cuts_between(was, now, before, after)
        for vip in before.keys() - after.keys():
            del known[vip]
        known.update(after)
        gone, back = self._take_gone(network_id, cuts.gone, now)
        if before == after and not gone and not back:
            return cuts
        self._whole.clear()
        clients = [client for client in self._clients.values() if network_id in client.network_ids]
        needed = ways_of(after.values())
        batches: dict[frozenset[Way], tuple[bytes, int]] = {}
        for client in clients:
            new_ways = needed - client.ways
            if new_ways not in batches:
                batches[new_ways] = change_batch(before, after, new_ways, gone, back).finish()
            self._send(client, batches[new_ways], new_ways)
        if not cuts.is_empty:
            for client in clients:
                _cut(client, cuts)
        return cuts

    def _take_gone(
        self, network_id: str, addresses: Iterable[str], now: Iterable[OverlayService]
    ) -> tuple[list[str], list[str]]:
        """Remember addresses of tasks that are no more; return those that are new, and those to let go of."""
        known = self._gone[network_id]
        gone = [address for address in addresses if address not in known]
        known.update(dict.fromkeys(gone))
        here = {address for service in now for endpoint in service.endpoints for address in endpoint.addresses}
        back = [address for address in known if address in here]
        beyond = max(0, len(known) - len(back) - MOST_GONE)
        back += itertools.islice((address for address in known if address not in here), beyond)
        for address in back:
            del known[address]
        added = [address for address in gone if address in known]
        return added, [address for address in back if address not in gone]

    def _send(self, client: Client, batch: tuple[bytes, int], new_ways: frozenset[Way]) -> None:
        try:
            if not client.is_known:
                raise OSError("an earlier load failed")
            client.is_known = False
            client.rules.send_batch(*batch)
            client.is_known = True
            client.ways |= new_ways
        except OSError as error:
            _log.warning("a change of virtual addresses was refused: loading them whole", reason=str(error))
            self._try_load(client)

    def _try_load(self, client: Client) -> None:
        try:
            self._load(client)
        except OSError as error:
            _log.error("a container's virtual addresses could not be loaded; tried again at the next change",
                       reason=str(error))  # fmt: skip

    def _load(self, client: Client) -> None:
        client.is_known = False
        whole = self._whole.get(client.network_ids)
        if whole is None:
            balances: dict[str, Balance] = {}
            gone: dict[str, None] = {}
            for network_id in client.network_ids:
                balances.update(self._balances.get(network_id, {}))
                gone.update(self._gone.get(network_id, {}))
            whole = Whole(*whole_batch(balances, gone).finish(), ways_of(balances.values()))
            self._whole[client.network_ids] = whole
        client.rules.send_batch(whole.data, whole.last)
        client.ways = whole.ways
        client.is_known = True

    def close(self) -> None:
        """Give the descriptors back."""
        for client in self._clients.values():
            client.rules.close()
        self._clients.clear()
        self._balances.clear()
        self._gone.clear()
        self._whole.clear()


def _cut(client: Client, cuts: Cuts) -> None:
    """Cut dead flows; failing is no reason to fail a change: they age out."""

    def is_stale(flow: conntrack.Flow) -> bool:
        if flow.answering_address in cuts.gone:
            return True
        is_udp = flow.protocol == conntrack.UDP
        return is_udp and (flow.destination_address, flow.answering_address) in cuts.withdrawn

    try:
        count = conntrack.cut(client.rules, is_stale)
    except OSError as error:
        _log.warning("dead flows of a container could not be cut: they age out", reason=str(error))
        return
    if count:
        _log.debug("cut dead flows of a container", count=count)
