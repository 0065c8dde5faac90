"""What the kernel of this node should balance and forward, and the steps from what it does to what it should. Pure.

How packets come to tasks on other nodes, and back, is mesh_state.py's.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.model.base import Struct
from shoal.model.netstate import IngressPort, IngressState, SandboxRequest

PROTOCOL_NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
BY_SOURCE, PREFER_LOCAL, LOCAL_POLICY = "source", "prefer-local", "local"
Key = tuple[str, int]


class BalancedPort(Struct):
    """A port of the mesh and the addresses behind it; with none the sandbox refuses (dataplane.md 3).

    `by_source`: a client's address stays with a task; otherwise new flows take the addresses in turn.
    """

    protocol: str
    published_port: int
    target_port: int
    addresses: tuple[str, ...] = ()
    by_source: bool = False

    @property
    def key(self) -> Key:
        """What tells ports apart."""
        return self.protocol, self.published_port


class ForwardedPort(Struct):
    """A host port: everything that reaches it, on one address of the node if `host_address` says so, goes to one."""

    protocol: str
    published_port: int
    address: str
    target_port: int
    host_address: str = ""

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells ports apart."""
        return self.protocol, self.published_port, self.host_address


class KernelState(Struct):
    """The ports of the mesh and the host ports, sorted by key."""

    balanced: tuple[BalancedPort, ...] = ()
    forwarded: tuple[ForwardedPort, ...] = ()


class SetBalanced(Struct):
    """Make a port of the mesh balance over these addresses; `is_new`: it has no chain yet."""

    port: BalancedPort
    is_new: bool


class RemoveBalanced(Struct):
    """Take a port of the mesh away."""

    port: BalancedPort


class SetForwarded(Struct):
    """Set a host port; `replaces`: what it forwarded to."""

    port: ForwardedPort
    replaces: ForwardedPort | None = None


class RemoveForwarded(Struct):
    """Take a host port away."""

    port: ForwardedPort


Operation = SetBalanced | RemoveBalanced | SetForwarded | RemoveForwarded


def desired(
    ingress: IngressState,
    tasks: Iterable[tuple[SandboxRequest, str]],
    node_number: int = 0,
    reached: frozenset[int] = frozenset(),
) -> KernelState:
    """Return what the kernel should hold.

    Args:
        ingress: the routing mesh.
        tasks: the requests of the tasks on this node, each with the task's address.
        node_number: this node's; 0: it has none, and every backend is its own.
        reached: the other nodes whose tasks the mesh leads to; backends of the rest are left out.
    """
    balanced = {}
    for port in ingress.ports:
        if port.protocol in PROTOCOL_NUMBERS:
            made = _balanced(port, node_number, reached)
            balanced[made.key] = made
    forwarded = {}
    for request, address in tasks:
        for host_port in request.host_ports:
            if host_port.protocol in PROTOCOL_NUMBERS and host_port.published_port:
                target = ForwardedPort(
                    protocol=host_port.protocol,
                    published_port=host_port.published_port,
                    address=address,
                    target_port=host_port.target_port,
                    host_address=host_port.host_address,
                )
                forwarded[target.key] = target
    return KernelState(
        balanced=tuple(balanced[key] for key in sorted(balanced)),
        forwarded=tuple(forwarded[key] for key in sorted(forwarded)),
    )


def _balanced(port: IngressPort, node_number: int, reached: frozenset[int]) -> BalancedPort:
    addresses = {
        backend.address
        for backend in port.backends
        if not node_number or backend.node_number == node_number or backend.node_number in reached
    }
    if port.policy == LOCAL_POLICY or port.affinity == PREFER_LOCAL:
        own = {backend.address for backend in port.backends if node_number in (0, backend.node_number)}
        if own or port.policy == LOCAL_POLICY:
            addresses = own
    return BalancedPort(
        protocol=port.protocol,
        published_port=port.published_port,
        target_port=port.target_port,
        addresses=tuple(sorted(addresses)),
        by_source=port.affinity == BY_SOURCE,
    )


def diff(actual: KernelState, wanted: KernelState) -> tuple[Operation, ...]:
    """Return the operations that lead from `actual` to `wanted`: removals first, then what is new or changed."""
    operations: list[Operation] = []
    balanced_now = {port.key: port for port in actual.balanced}
    forwarded_now = {port.key: port for port in actual.forwarded}
    balanced_keys = {port.key for port in wanted.balanced}
    forwarded_keys = {port.key for port in wanted.forwarded}
    operations += [RemoveBalanced(port=port) for port in actual.balanced if port.key not in balanced_keys]
    operations += [RemoveForwarded(port=port) for port in actual.forwarded if port.key not in forwarded_keys]
    for port in wanted.balanced:
        now = balanced_now.get(port.key)
        if now != port:
            operations.append(SetBalanced(port=port, is_new=now is None))
    for host_port in wanted.forwarded:
        before = forwarded_now.get(host_port.key)
        if before != host_port:
            operations.append(SetForwarded(port=host_port, replaces=before))
    return tuple(operations)


class FlowCuts(Struct):
    """UDP flows to forget, so that clients with one socket move on (dataplane.md 4)."""

    host_ports: frozenset[int] = frozenset()
    host_addresses: frozenset[str] = frozenset()
    backends: frozenset[tuple[int, str]] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Nothing to cut."""
        return not (self.host_ports or self.host_addresses or self.backends)


def flow_cuts(actual: KernelState, operations: tuple[Operation, ...]) -> FlowCuts:
    """Return which UDP flows the operations make stale.

    In the host's namespace: those of a port that begins or ends to be published (by destination port), and those to
    the task of a host port that went. In the sandbox: those of a backend that went, (published port, address).
    """
    before = {port.key: port for port in actual.balanced}
    host_ports: set[int] = set()
    host_addresses: set[str] = set()
    backends: set[tuple[int, str]] = set()
    for operation in operations:
        port = operation.port
        if port.protocol != "udp":
            continue
        if isinstance(operation, SetBalanced | RemoveBalanced):
            old = before.get((port.protocol, port.published_port))
            if isinstance(operation, RemoveBalanced) or old is None:
                host_ports.add(port.published_port)
            kept: set[str] = set()
            if isinstance(operation, SetBalanced) and old is not None and old.target_port == operation.port.target_port:
                kept = set(operation.port.addresses)
            gone = set(old.addresses) - kept if old is not None else set()
            backends |= {(port.published_port, address) for address in gone}
        else:
            host_ports.add(port.published_port)
            if isinstance(operation, RemoveForwarded):
                host_addresses.add(operation.port.address)
            elif operation.replaces is not None:
                host_addresses.add(operation.replaces.address)
    return FlowCuts(
        host_ports=frozenset(host_ports), host_addresses=frozenset(host_addresses), backends=frozenset(backends)
    )
