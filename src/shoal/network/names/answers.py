"""What a container is answered from its own networks, and what is to be asked elsewhere. Pure but for counting turns.

The order is Docker's: the whole name on each network of the container in turn, then `a.b.c` as `a.b` on a network `c`,
then as `a` on `b.c`. A name that is known is never asked elsewhere, whatever type of record is wanted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from shoal.network.names import codec
from shoal.network.names.codec import Question, Refusal
from shoal.network.names.table import Addresses, NetworkTable

# short, since names change; not zero, which some resolvers take for "do not use"
SECONDS_TO_LIVE = 2
MOST_PREPARED = 512
MOST_PREPARED_QUERY_BYTES = 512
# of a name with many addresses that many orders are prepared: each answer begins with another address
MOST_ORDERS = 32
_IPV4_REVERSE, _IPV6_REVERSE = b".in-addr.arpa", b".ip6.arpa"


class Elsewhere:
    """Nobody on the container's networks has the name: to be asked of a name server."""

    __slots__ = ("question",)

    def __init__(self, question: Question) -> None:
        """Take the question as it was cut."""
        self.question = question


class _Prepared:
    """The answers to one query, without its first two bytes; they are sent in turn."""

    __slots__ = ("_answers", "_turn")

    def __init__(self, answers: Sequence[bytes]) -> None:
        self._answers = answers
        self._turn = 0

    def next(self) -> bytes:
        self._turn = (self._turn + 1) % len(self._answers)
        return self._answers[self._turn]


class Answers:
    """Answers for one container.

    Args:
        network_ids: its networks, in order.
        tables: all tables of the node; networks that are not there yet know no names.
    """

    def __init__(self, network_ids: Sequence[str], tables: Mapping[str, NetworkTable]) -> None:
        self.network_ids = network_ids
        self._tables = tables
        self._prepared: dict[bytes, _Prepared] = {}
        self._prepared_stream: dict[bytes, _Prepared] = {}

    def forget(self) -> None:
        """Forget prepared answers: a table has changed."""
        self._prepared.clear()
        self._prepared_stream.clear()

    def answer(self, query: bytes, is_stream: bool = False) -> bytes | Elsewhere | None:
        """Return the answer to a query, or where it must be found; None: no answer at all."""
        prepared = self._prepared_stream if is_stream else self._prepared
        ready = prepared.get(query[2:])
        if ready is not None:
            return query[:2] + ready.next()
        question = codec.parse(query)
        if question is None:
            return None
        if isinstance(question, Refusal):
            return codec.refuse(query, question.code)
        orders = self._find(question)
        if orders is None:
            return Elsewhere(question)
        code, lists = orders
        most_bytes = codec.MOST_TCP_BYTES if is_stream else question.udp_bytes
        ready = _Prepared([codec.respond(query, question, code, records, most_bytes)[2:] for records in lists])
        if len(query) <= MOST_PREPARED_QUERY_BYTES:
            if len(prepared) >= MOST_PREPARED:
                prepared.clear()
            prepared[query[2:]] = ready
        return query[:2] + ready.next()

    def _find(self, question: Question) -> tuple[int, list[Sequence[bytes]]] | None:
        """Return the code and the records in each of their orders; None: not of these networks."""
        if question.class_ != codec.INTERNET:
            return None
        name, kind = question.name, question.kind
        address = _reversed_address(name)
        if address is not None:
            return self._find_reverse(address, kind)
        found = self._find_name(name)
        if found is None:
            return None
        records: list[bytes] = []
        if kind in (codec.A, codec.ANY):
            records += _records(codec.A, found.ipv4)
        if kind in (codec.AAAA, codec.ANY):
            records += _records(codec.AAAA, found.ipv6)
        count = len(records)
        firsts = range(count) if count <= MOST_ORDERS else (count * turn // MOST_ORDERS for turn in range(MOST_ORDERS))
        lists: list[Sequence[bytes]] = [records[first:] + records[:first] for first in firsts]
        return codec.NO_ERROR, lists or [()]

    def _networks(self) -> Iterable[NetworkTable]:
        for network_id in self.network_ids:
            table = self._tables.get(network_id)
            if table is not None:
                yield table

    def _find_name(self, name: bytes) -> Addresses | None:
        tables = list(self._networks())
        for table in tables:
            found = table.find(name)
            if found is not None:
                return found
        dot = name.rfind(b".")
        while dot > 0:
            network = name[dot + 1 :]
            for table in tables:
                if table.name == network:
                    found = table.find(name[:dot])
                    if found is not None:
                        return found
            dot = name.rfind(b".", 0, dot)
        return None

    def _find_reverse(self, address: bytes, kind: int) -> tuple[int, list[Sequence[bytes]]] | None:
        covered = False
        for table in self._networks():
            name = table.name_of(address)
            target = codec.encode_name(name) if name is not None else None
            if target is not None:
                wanted = kind in (codec.PTR, codec.ANY)
                return codec.NO_ERROR, [[codec.record(codec.PTR, SECONDS_TO_LIVE, target)] if wanted else ()]
            covered = covered or table.covers(address)
        return (codec.NO_SUCH_NAME, [()]) if covered else None


def _records(kind: int, addresses: Iterable[bytes]) -> list[bytes]:
    return [codec.record(kind, SECONDS_TO_LIVE, address) for address in addresses]


def _reversed_address(name: bytes) -> bytes | None:
    """Return the address that a name under in-addr.arpa or ip6.arpa stands for; None: it is another name."""
    try:
        if name.endswith(_IPV4_REVERSE):
            octets = name[: -len(_IPV4_REVERSE)].decode("ascii").split(".")
            return ipaddress.IPv4Address(".".join(reversed(octets))).packed
        if name.endswith(_IPV6_REVERSE):
            digits = name[: -len(_IPV6_REVERSE)].decode("ascii").split(".")
            if len(digits) == 32 and all(len(digit) == 1 for digit in digits):
                return bytes.fromhex("".join(reversed(digits)))
    except ValueError:
        pass
    return None
