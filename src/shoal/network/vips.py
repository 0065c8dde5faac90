"""The table that balances virtual addresses inside a container's namespace, as hand-made nfnetlink batches. Pure.

One table for both families. A virtual address leads (map `services`) to a way of picking: a number of backends, and
whether by chance or by source. That leads (map `ways`) to a chain, which looks `address . picked number` up in the map
`backends`. So a service is some entries of maps, not a rule, chain and set: a thousand load in milliseconds, and one
backend more or less is three entries in one transaction. No entry of a service names a chain, because the kernel
validates every such entry of a table at each change. Only the first packet of a flow comes here; connection tracking
does the rest. dataplane.md 2.

What is sent to a task that is no more (set `gone`) is refused at once, so that its clients try elsewhere at once. This,
too, is asked of a flow's first packet only: flows under way are cut from connection tracking, and are new with the next
one. A chain that looked at every packet took a tenth of what a request costs.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from shoal.model.base import Struct
from shoal.network.netlink import APPEND, CREATE, attribute, nest, text
from shoal.network.nfnetlink import (
    COMPARE_EQUAL,
    DELETE_ELEMENT,
    DESTINATION_NAT,
    ELEMENTS_PER_MESSAGE,
    GOTO,
    MAP,
    META_L4PROTO,
    NEW_CHAIN,
    NEW_ELEMENT,
    NEW_RULE,
    NEW_SET,
    NFTABLES_SUBSYSTEM,
    REGISTER_1,
    TYPE_ADDRESS,
    Batch,
)
from shoal.network.overlays import Balance, is_ipv4

TABLE = "shoal_vips"
FAMILY_INET = 1
NEW_TABLE, DELETE_TABLE = 0, 2
HOOK_OUTPUT, PRIORITY_NAT, POLICY_ACCEPT = 3, -100, 1
TYPE_ADDRESS_6, TYPE_MARK, TYPE_BITS = 8, 19, 6
DATA_VERDICT, REGISTER_VERDICT = 0xFFFFFF00, 0
REGISTER_32_0 = 8
NETWORK_HEADER = 1
META_FAMILY = 15
NUMBER_RANDOM, HASH_JENKINS, HASH_SEED = 1, 0, 0x5EED
REJECT_TCP_RESET, REJECT_ICMP, ICMP_PORT_UNREACHABLE = 1, 2, 1
TCP = 6
REFUSE = "refuse"
ENCODED_KEPT = 1 << 14


class Family(Struct):
    """What differs between IPv4 and IPv6: numbers, offsets in the header, names."""

    number: int
    suffix: str
    type_number: int
    address_bytes: int
    source_offset: int
    destination_offset: int


IPV4 = Family(
    number=socket.AF_INET,
    suffix="",
    type_number=TYPE_ADDRESS,
    address_bytes=4,
    source_offset=12,
    destination_offset=16,
)
IPV6 = Family(
    number=socket.AF_INET6,
    suffix="6",
    type_number=TYPE_ADDRESS_6,
    address_bytes=16,
    source_offset=8,
    destination_offset=24,
)


def _big(number: int) -> bytes:
    return struct.pack(">I", number & 0xFFFFFFFF)


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, attribute(1, text(name)), nest(2, *parts))


def _family_of(address: str) -> Family:
    return IPV4 if is_ipv4(address) else IPV6


class Way(NamedTuple):
    """A way of picking a backend: how many there are (0: it refuses), by source or by chance, and the family."""

    backend_count: int
    is_by_source: bool
    is_ipv6: bool

    @property
    def number(self) -> int:
        """The mark that stands for it."""
        return self.backend_count | self.is_by_source << 24 | self.is_ipv6 << 25 if self.backend_count else 0

    @property
    def chain(self) -> str:
        """The chain that does it."""
        if not self.backend_count:
            return REFUSE
        return f"{'source' if self.is_by_source else 'random'}{6 if self.is_ipv6 else ''}_{self.backend_count}"


def way_of(balance: Balance) -> Way:
    """Return how the backends of a virtual address are picked."""
    return Way(len(balance.addresses), balance.is_by_source, not is_ipv4(balance.virtual_ip))


NOBODY = Way(0, False, False)


class VipBatch(Batch):
    """One transaction on the table of a container's namespace."""

    def __init__(self) -> None:
        super().__init__(TABLE)

    def _add(self, kind: int, flags: int, *parts: bytes) -> None:
        header = struct.pack(">BBH", FAMILY_INET, 0, 0)
        self._append(NFTABLES_SUBSYSTEM << 8 | kind, flags, header + self._table + b"".join(parts))

    def _add_set(self, name: str, key_type: int, key_bytes: int, *parts: bytes, flags: int = 0) -> None:
        self._set_number += 1
        self._add(
            NEW_SET,
            CREATE,
            attribute(2, text(name)),
            attribute(3, _big(flags)),
            attribute(4, _big(key_type)),
            attribute(5, _big(key_bytes)),
            *parts,
            attribute(10, _big(self._set_number)),
        )

    def _add_map(self, name: str, key_type: int, key_bytes: int, data_type: int, data_bytes: int) -> None:
        data = attribute(6, _big(data_type)), attribute(7, _big(data_bytes))
        self._add_set(name, key_type, key_bytes, *data, flags=MAP)

    def _add_hook(self, name: str, kind: str, priority: int) -> None:
        hook = nest(4, attribute(1, _big(HOOK_OUTPUT)), attribute(2, _big(priority)))
        policy, kind_part = attribute(5, _big(POLICY_ACCEPT)), attribute(7, text(kind))
        self._add(NEW_CHAIN, CREATE, attribute(3, text(name)), hook, policy, kind_part)

    def _add_rule(self, chain: str, *expressions: bytes) -> None:
        self._add(NEW_RULE, CREATE | APPEND, attribute(2, text(chain)), nest(4, *expressions))

    def replace_table(self) -> None:
        """Begin the table anew, empty, whether or not there is one; flows under way are not touched."""
        self._add(NEW_TABLE, CREATE)
        self._add(DELETE_TABLE, 0)
        self._add(NEW_TABLE, CREATE)
        for family in (IPV4, IPV6):
            concatenated = family.type_number << TYPE_BITS | TYPE_MARK
            size = family.address_bytes
            self._add_set(f"gone{family.suffix}", family.type_number, size)
            self._add_map(f"services{family.suffix}", family.type_number, size, TYPE_MARK, 4)
            self._add_map(f"backends{family.suffix}", concatenated, size + 4, family.type_number, size)
        self._add_map("ways", TYPE_MARK, 4, DATA_VERDICT, 16)
        self.add_chain(REFUSE)
        self._add_rule(REFUSE, _meta_equals(META_L4PROTO, TCP), _reject(REJECT_TCP_RESET, 0))
        self._add_rule(REFUSE, _reject(REJECT_ICMP, ICMP_PORT_UNREACHABLE))
        self._add_elements("ways", [_way_element(NOBODY)])
        self._add_hook("output", "nat", PRIORITY_NAT)
        for family in (IPV4, IPV6):
            to_address = (
                _meta_equals(META_FAMILY, family.number),
                _payload(family.destination_offset, family.address_bytes),
            )
            in_services = _lookup(f"services{family.suffix}", REGISTER_32_0)
            self._add_rule("output", *to_address, _lookup(f"gone{family.suffix}"), _refuse())
            self._add_rule("output", *to_address, in_services, _lookup("ways", REGISTER_VERDICT))

    def add_way(self, way: Way) -> None:
        """Add a way of picking, which the table has not yet."""
        family = IPV6 if way.is_ipv6 else IPV4
        index_register = REGISTER_32_0 + family.address_bytes // 4
        self.add_chain(way.chain)
        numbers: tuple[bytes, ...]
        if way.is_by_source:
            numbers = (
                _payload(family.source_offset, family.address_bytes),
                _expression(
                    "hash",
                    attribute(1, _big(REGISTER_32_0)),
                    attribute(2, _big(index_register)),
                    attribute(3, _big(family.address_bytes)),
                    attribute(4, _big(way.backend_count)),
                    # a fixed seed: else every change of the rule would send clients elsewhere
                    attribute(5, _big(HASH_SEED)),
                    attribute(7, _big(HASH_JENKINS)),
                ),
            )
        else:
            parts = (
                attribute(1, _big(index_register)),
                attribute(2, _big(way.backend_count)),
                attribute(3, _big(NUMBER_RANDOM)),
            )
            numbers = (_expression("numgen", *parts, attribute(4, _big(0))),)
        self._add_rule(
            way.chain,
            *numbers,
            _payload(family.destination_offset, family.address_bytes),
            _lookup(f"backends{family.suffix}", REGISTER_1),
            _expression(
                "nat",
                attribute(1, _big(DESTINATION_NAT)),
                attribute(2, _big(family.number)),
                attribute(3, _big(REGISTER_1)),
            ),
        )
        self._add_elements("ways", [_way_element(way)])

    def _add_elements(self, name: str, elements: list[bytes], remove: bool = False) -> None:
        kind, flags = (DELETE_ELEMENT, 0) if remove else (NEW_ELEMENT, CREATE)
        for first in range(0, len(elements), ELEMENTS_PER_MESSAGE):
            self._add(kind, flags, attribute(2, text(name)), nest(3, *elements[first : first + ELEMENTS_PER_MESSAGE]))

    def change(self, before: Mapping[str, Balance], after: Mapping[str, Balance]) -> None:
        """Lead from what stands behind virtual addresses (those of `before`) to what should (those of `after`)."""
        for family in (IPV4, IPV6):
            old = {vip: balance for vip, balance in before.items() if _family_of(vip) is family}
            new = {vip: balance for vip, balance in after.items() if _family_of(vip) is family}
            gone_vips, gone_backends = _entries(old, new)
            new_vips, new_backends = _entries(new, old)
            self._add_elements(f"services{family.suffix}", gone_vips, remove=True)
            self._add_elements(f"backends{family.suffix}", gone_backends, remove=True)
            self._add_elements(f"backends{family.suffix}", new_backends)
            self._add_elements(f"services{family.suffix}", new_vips)

    def set_gone(self, addresses: Iterable[str], remove: bool = False) -> None:
        """Refuse what is sent to these addresses, or no longer."""
        listed = list(addresses)
        for family in (IPV4, IPV6):
            keys = [ipaddress.ip_address(address).packed for address in listed if _family_of(address) is family]
            elements = [nest(1, nest(1, attribute(1, key))) for key in keys]
            self._add_elements(f"gone{family.suffix}", elements, remove)


class _Encoded(Struct):
    """The elements of a Balance: of the map of virtual addresses, and of the map of backends."""

    vip: bytes
    backends: tuple[bytes, ...]


@functools.lru_cache(ENCODED_KEPT)
def _encode(balance: Balance) -> _Encoded:
    # kept, since every new container gets the elements of every service on its networks
    key = ipaddress.ip_address(balance.virtual_ip).packed
    way = nest(2, attribute(1, struct.pack("=I", way_of(balance).number)))
    backends = []
    for index, address in enumerate(balance.addresses):
        data = nest(2, attribute(1, ipaddress.ip_address(address).packed))
        backends.append(nest(1, nest(1, attribute(1, key + struct.pack("=I", index))), data))
    return _Encoded(vip=nest(1, nest(1, attribute(1, key)), way), backends=tuple(backends))


def _entries(wanted: Mapping[str, Balance], other: Mapping[str, Balance]) -> tuple[list[bytes], list[bytes]]:
    """Return the elements of `wanted` that `other` has not: of the map of virtual addresses, and of backends."""
    vips: list[bytes] = []
    backends: list[bytes] = []
    for vip, balance in wanted.items():
        encoded, against = _encode(balance), other.get(vip)
        if against is None:
            vips.append(encoded.vip)
            backends += encoded.backends
            continue
        if way_of(against) != way_of(balance):
            vips.append(encoded.vip)
        had = against.addresses
        for index, address in enumerate(balance.addresses):
            if index >= len(had) or had[index] != address:
                backends.append(encoded.backends[index])
    return vips, backends


def _way_element(way: Way) -> bytes:
    verdict = nest(2, nest(2, attribute(1, _big(GOTO)), attribute(2, text(way.chain))))
    return nest(1, nest(1, attribute(1, struct.pack("=I", way.number))), verdict)


def _meta_equals(what: int, value: int) -> bytes:
    load = _expression("meta", attribute(1, _big(REGISTER_1)), attribute(2, _big(what)))
    data = nest(3, attribute(1, bytes([value])))
    return load + _expression("cmp", attribute(1, _big(REGISTER_1)), attribute(2, _big(COMPARE_EQUAL)), data)


def _payload(offset: int, size: int) -> bytes:
    return _expression(
        "payload",
        attribute(1, _big(REGISTER_32_0)),
        attribute(2, _big(NETWORK_HEADER)),
        attribute(3, _big(offset)),
        attribute(4, _big(size)),
    )


def _lookup(name: str, register: int | None = None) -> bytes:
    found = [] if register is None else [attribute(3, _big(register))]
    return _expression("lookup", attribute(1, text(name)), attribute(2, _big(REGISTER_32_0)), *found)


def _refuse() -> bytes:
    verdict = nest(2, nest(2, attribute(1, _big(GOTO)), attribute(2, text(REFUSE))))
    return _expression("immediate", attribute(1, _big(REGISTER_VERDICT)), verdict)


def _reject(kind: int, code: int) -> bytes:
    return _expression("reject", attribute(1, _big(kind)), attribute(2, bytes([code])))


def ways_of(balances: Iterable[Balance]) -> frozenset[Way]:
    """Return the ways of picking that a table needs for these; the one that refuses is always there."""
    return frozenset(way_of(balance) for balance in balances if balance.addresses)


def whole_batch(balances: Mapping[str, Balance], gone: Iterable[str] = ()) -> VipBatch:
    """Return the batch that makes the table anew, with all that stands behind virtual addresses."""
    batch = VipBatch()
    batch.replace_table()
    for way in sorted(ways_of(balances.values())):
        batch.add_way(way)
    batch.change({}, balances)
    batch.set_gone(gone)
    return batch


def change_batch(
    before: Mapping[str, Balance],
    after: Mapping[str, Balance],
    new_ways: Collection[Way] = (),
    gone: Iterable[str] = (),
    back: Iterable[str] = (),
) -> VipBatch:
    """Return the batch of a change.

    Args:
        before: what stands behind the virtual addresses that change.
        after: what is to stand there.
        new_ways: those of `after` that the table has not yet.
        gone: addresses to refuse from now on.
        back: addresses refused until now.
    """
    batch = VipBatch()
    for way in sorted(new_ways):
        batch.add_way(way)
    batch.change(before, after)
    batch.set_gone(back, remove=True)
    batch.set_gone(gone)
    return batch
