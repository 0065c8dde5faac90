"""One round of allocation: endpoints of services, then addresses of new tasks, which become PENDING."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from shoal.core.allocate.ipam import first_free
from shoal.core.allocate.ports import allocate_ports, complete
from shoal.model.actions import Action, PatchService, PatchTask
from shoal.model.objects import Attachment, Endpoint, Network, Service, Task, TaskStatus, VirtualIP
from shoal.model.specs import PortConfig
from shoal.model.states import TaskState

PENDING_MESSAGE = "pending task scheduling"


class State(Protocol):
    """What allocation asks of the store."""

    def addresses_in_use(self, network_id: str) -> frozenset[str]:
        """Return the addresses taken on a network."""

    def port_user(self, protocol: str, published_port: int, mode: str) -> Service | None:
        """Return a service that claims a published port."""


class Claims:
    """What is taken: by the store, and by what was given in this round and is not in the store yet.

    Everything allocated from one view shares one of these, or two services would be given the same.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._addresses: dict[str, set[str]] = {}
        self._ports: dict[tuple[str, int], str] = {}

    def take_address(self, network: Network, owner_id: str) -> str | None:
        """Give a free address of a network (CIDR); None if there is none."""
        if network.id not in self._addresses:
            self._addresses[network.id] = set(self._state.addresses_in_use(network.id))
        used = self._addresses[network.id]
        address = first_free(network.subnets[0], network.gateways[0], used, owner_id)
        if address is not None:
            used.add(address.partition("/")[0])
        return address

    def port_used(self, service: Service, protocol: str, number: int) -> bool:
        """Whether another service has a port."""
        if self._ports.get((protocol, number), service.id) != service.id:
            return True
        users = (self._state.port_user(protocol, number, mode) for mode in ("ingress", "host"))
        return any(user is not None and user.id != service.id for user in users)

    def note_ports(self, service: Service, ports: tuple[PortConfig, ...]) -> None:
        """Note what a service was given."""
        self._ports.update({(p.protocol, p.published_port): service.id for p in ports if p.published_port})


def ingress_ports(ports: Iterable[PortConfig]) -> tuple[PortConfig, ...]:
    """Return the ports that the routing mesh publishes."""
    return tuple(port for port in map(complete, ports) if port.publish_mode == "ingress")


def is_allocated(service: Service) -> bool:
    """Whether a service has what its present spec asks for."""
    spec = service.spec.endpoint_spec
    if spec is None or (not spec.ports and not spec.mode):
        return not service.endpoint.ports
    if service.endpoint.mode != (spec.mode or "vip") or len(spec.ports) != len(service.endpoint.ports):
        return False
    for asked, given in zip(map(complete, spec.ports), service.endpoint.ports, strict=True):
        same = (asked.name, asked.protocol, asked.target_port, asked.publish_mode) == (
            given.name,
            given.protocol,
            given.target_port,
            given.publish_mode,
        )
        if not same or (asked.published_port and asked.published_port != given.published_port):
            return False
    return bool(ingress_ports(service.endpoint.ports)) == bool(service.endpoint.virtual_ips) or spec.mode == "dnsrr"


def plan_service(service: Service, ingress: Network | None, claims: Claims) -> PatchService | None:
    """Give a service its ports and virtual addresses; None if it has them, or there are none to give."""
    if is_allocated(service):
        return None
    spec = service.spec.endpoint_spec
    if spec is None:
        return PatchService(id=service.id, spec_version=service.spec_version, endpoint=Endpoint())
    ports = allocate_ports(
        spec.ports, service.endpoint.ports, lambda protocol, number: claims.port_used(service, protocol, number)
    )
    if ports is None:
        return None
    claims.note_ports(service, ports)
    virtual_ips: tuple[VirtualIP, ...] = ()
    if ingress_ports(ports) and spec.mode != "dnsrr":
        virtual_ips = service.endpoint.virtual_ips
        if not virtual_ips and ingress is not None:
            address = claims.take_address(ingress, service.id)
            if address is None:
                return None
            virtual_ips = (VirtualIP(network_id=ingress.id, address=address),)
    endpoint = Endpoint(mode=spec.mode or "vip", ports=ports, virtual_ips=virtual_ips)
    return PatchService(id=service.id, spec_version=service.spec_version, endpoint=endpoint)


def plan_tasks(
    tasks: Iterable[Task],
    service_of: Callable[[str], Service | None],
    ingress: Network | None,
    claims: Claims,
    now_ns: int,
) -> list[Action]:
    """Give NEW tasks their addresses and make them PENDING; one without a free address stays NEW and says why."""
    patches: list[Action] = []
    for task in tasks:
        service = service_of(task.service_id)
        if service is None or not is_allocated(service):
            continue
        status = TaskStatus(state=TaskState.PENDING, timestamp_ns=now_ns, message=PENDING_MESSAGE)
        attachments: tuple[Attachment, ...] = ()
        if ingress_ports(service.endpoint.ports) and ingress is not None:
            address = claims.take_address(ingress, task.id)
            if address is None:
                exhausted = f"no free address in {ingress.subnets[0]} of network {ingress.spec.name}"
                if task.status.err != exhausted:
                    status = TaskStatus(state=TaskState.NEW, timestamp_ns=now_ns, message="created", err=exhausted)
                    patches.append(PatchTask(id=task.id, status=status))
                continue
            attachments = (Attachment(network_id=ingress.id, addresses=(address,)),)
        patches.append(PatchTask(id=task.id, status=status, attachments=attachments))
    return patches
