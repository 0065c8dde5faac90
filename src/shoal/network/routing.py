"""Rules, routes of other tables than the main one, and next hops that need no route, as rtnetlink messages (IPv4).

Encodes and decodes; decides nothing. Numbers are those of linux/rtnetlink.h and linux/fib_rules.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from shoal.network.netlink import CREATE, EXCLUSIVE, REPLACE, Message, Socket, attribute, attributes
from shoal.network.rtnetlink import (
    DELROUTE,
    EXISTS_IS_FINE,
    GETROUTE,
    GONE_IS_FINE,
    NEWROUTE,
    PROTOCOL_STATIC,
    ROUTE_DESTINATION,
    ROUTE_DEVICE,
    ROUTE_GATEWAY,
    SCOPE_UNIVERSE,
    TABLE_MAIN,
    UNICAST,
)

NEWRULE, DELRULE = 32, 33
RULE_SOURCE, RULE_PRIORITY, RULE_MARK, RULE_TABLE, RULE_MASK = 2, 6, 10, 15, 16
TO_TABLE = 1
ROUTE_TABLE = 15
NEXT_HOP_ON_LINK = 4


def _rule(table: int, mark: int, mask: int, priority: int) -> bytes:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, TO_TABLE, 0)
    numbers = (RULE_PRIORITY, priority), (RULE_MARK, mark), (RULE_MASK, mask), (RULE_TABLE, table)
    return body + b"".join(attribute(kind, struct.pack("=I", number)) for kind, number in numbers)


def add_rule(table: int, mark: int, mask: int, priority: int) -> Message:
    """Look packets with a mark up in a table (`ip rule add pref … fwmark MARK/MASK lookup TABLE`)."""
    return Message(NEWRULE, CREATE | EXCLUSIVE, _rule(table, mark, mask, priority), EXISTS_IS_FINE)


def delete_rule(table: int, mark: int, mask: int, priority: int) -> Message:
    """Take `add_rule` back; that there is none is fine."""
    return Message(DELRULE, 0, _rule(table, mark, mask, priority), GONE_IS_FINE)


def _source_rule(source: str, table: int, priority: int) -> bytes:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 32, 0, 0, 0, 0, TO_TABLE, 0)
    numbers = (RULE_PRIORITY, priority), (RULE_TABLE, table)
    body += b"".join(attribute(kind, struct.pack("=I", number)) for kind, number in numbers)
    return body + attribute(RULE_SOURCE, socket.inet_aton(source))


def add_source_rule(source: str, table: int, priority: int) -> Message:
    """Look packets from an address up in a table (`ip rule add pref … from SOURCE lookup TABLE`)."""
    return Message(NEWRULE, CREATE | EXCLUSIVE, _source_rule(source, table, priority), EXISTS_IS_FINE)


def delete_source_rule(source: str, table: int, priority: int) -> Message:
    """Take `add_source_rule` back; that there is none is fine."""
    return Message(DELRULE, 0, _source_rule(source, table, priority), GONE_IS_FINE)


def _route(destination: str | None, gateway: str, index: int, table: int) -> bytes:
    bits = 0 if destination is None else 32
    body = struct.pack(
        "=BBBBBBBBI",
        socket.AF_INET, bits, 0, 0, 0, PROTOCOL_STATIC, SCOPE_UNIVERSE, UNICAST, NEXT_HOP_ON_LINK,
    )  # fmt: skip
    body += attribute(ROUTE_TABLE, struct.pack("=I", table))
    if destination is not None:
        body += attribute(ROUTE_DESTINATION, socket.inet_aton(destination))
    return (
        body + attribute(ROUTE_GATEWAY, socket.inet_aton(gateway)) + attribute(ROUTE_DEVICE, struct.pack("=I", index))
    )


def set_route_on_link(destination: str | None, gateway: str, index: int, table: int = TABLE_MAIN) -> Message:
    """Route an address (None: everything) through a next hop that is on the link though no route says so."""
    return Message(NEWROUTE, CREATE | REPLACE, _route(destination, gateway, index, table))


def delete_route_on_link(destination: str | None, gateway: str, index: int, table: int = TABLE_MAIN) -> Message:
    """Take `set_route_on_link` back; that there is none is fine."""
    return Message(DELROUTE, 0, _route(destination, gateway, index, table), GONE_IS_FINE)


def routes_through(channel: Socket, index: int) -> Iterator[tuple[str, str]]:
    """Yield address and next hop of the main table's routes to single addresses through a link."""
    for body in channel.dump(GETROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        values = dict(attributes(body[12:]))
        is_whole = {ROUTE_DEVICE, ROUTE_DESTINATION, ROUTE_GATEWAY} <= values.keys()
        if is_whole and body[1] == 32 and body[4] == TABLE_MAIN and _number(values[ROUTE_DEVICE]) == index:
            yield socket.inet_ntoa(values[ROUTE_DESTINATION]), socket.inet_ntoa(values[ROUTE_GATEWAY])


def _number(raw: bytes) -> int:
    return int(struct.unpack("=I", raw)[0])
