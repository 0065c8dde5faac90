"""Places of plain containers on networks of the swarm: who may have one, and at which address. Pure.

Each is a task of the attachment runtime: it belongs to no service, no node runs it, and as long as it is there the
node of its container takes part in the network.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable

from shoal.core.allocate.ipam import free_addresses
from shoal.core.networks import PREDEFINED, driver_of, is_overlay
from shoal.errors import Conflict, Forbidden, InvalidArgument
from shoal.model.objects import AttachedContainer, Attachment, Network, Task, TaskStatus
from shoal.model.states import TaskState

ATTACHMENT_RUNTIME = "attachment"
COULD_NOT = "Could not attach to network {name}: rpc error: code = {code} desc = "


def is_attachment(task: Task) -> bool:
    """Tell whether a task stands for a plain container on a network."""
    return task.container is not None


def check_attachable(network: Network, reference: str) -> None:
    """Refuse a network that plain containers may not be on, with Docker's text. Raises Forbidden."""
    if network.id in PREDEFINED or network.spec.ingress or not network.spec.attachable:
        prefix = COULD_NOT.format(name=reference, code="PermissionDenied")
        raise Forbidden(f"{prefix}network {reference} not manually attachable")


def choose_addresses(network: Network, asked: Iterable[str], used: Container[str], owner_id: str) -> tuple[str, ...]:
    """Return the addresses (CIDR) a container gets: those it asks for, and of the other families any that is free.

    Raises:
        InvalidArgument: an address that is in no subnet of the network.
        Conflict: an address that is taken, or a network that has none left.
    """
    chosen: dict[int, str] = {}
    for text in asked:
        address = ipaddress.ip_address(text)
        subnets = (ipaddress.ip_network(subnet) for subnet in network.subnets)
        subnet = next((each for each in subnets if each.version == address.version and address in each), None)
        if subnet is None:
            raise InvalidArgument(
                f"invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {text}"
            )
        gateways = {gateway.partition("/")[0] for gateway in network.gateways}
        reserved = {text for pool in network.spec.ipam.config for text in pool.auxiliary_addresses.values()}
        is_special = (
            address in (subnet.network_address, subnet.broadcast_address) or str(address) in gateways | reserved
        )
        if is_special or str(address) in used:
            raise Conflict(f"Address already in use: {text} on network {network.spec.name}")
        chosen[address.version] = f"{address}/{subnet.prefixlen}"
    free = free_addresses(network, used, owner_id) if len(chosen) < len(_families(network)) else ()
    if free is None:
        subnets_text = ", ".join(network.subnets)
        raise Conflict(f"no free address in {subnets_text} of network {network.spec.name}")
    for cidr in free:
        chosen.setdefault(6 if ":" in cidr else 4, cidr)
    return tuple(chosen[version] for version in sorted(chosen))


def _families(network: Network) -> frozenset[bool]:
    return frozenset(":" in subnet for subnet in network.subnets)


def attachment_task(
    task_id: str,
    node_id: str,
    network: Network,
    addresses: tuple[str, ...],
    container: AttachedContainer,
    now_ns: int,
) -> Task:
    """Return the task that stands for a container on a network; it counts as running from the first."""
    return Task(
        id=task_id,
        # a service of its own, so that what is worked out a service at a time holds for it, too
        service_id=task_id,
        spec_version=0,
        node_id=node_id,
        status=TaskStatus(state=TaskState.RUNNING, timestamp_ns=now_ns, message="attached"),
        attachments=(
            Attachment(
                network_id=network.id,
                addresses=addresses,
                driver=driver_of(network.spec),
                internal=network.spec.internal,
                spec=None if is_overlay(network) else network.spec,
            ),
        ),
        container=container,
    )
