"""One round of allocation: endpoints of services, then addresses of new tasks, which become PENDING."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from shoal.core.allocate.ipam import free_addresses
from shoal.core.allocate.ports import allocate_ports, complete
from shoal.core.network_keys import is_encrypted
from shoal.core.networks import PREDEFINED, driver_of, is_overlay
from shoal.model.actions import Action, PatchService, PatchTask
from shoal.model.base import Struct
from shoal.model.objects import Attachment, Endpoint, Network, Service, Task, TaskStatus, VirtualIP
from shoal.model.specs import PortConfig, ServiceSpec
from shoal.model.states import TaskState

PENDING_MESSAGE = "pending task scheduling"


class State(Protocol):
    """What allocation asks of the store."""

    def addresses_in_use(self, network_id: str) -> frozenset[str]:
        """Return the addresses taken on a network."""

    def port_user(self, protocol: str, published_port: int, mode: str) -> Service | None:
        """Return a service that claims a published port."""


class Networks:
    """The networks of the swarm as allocation asks for them.

    Args:
        find: the network of an id.
        ingress: that of the routing mesh; None if it was removed.
    """

    def __init__(self, find: Callable[[str], Network | None], ingress: Network | None) -> None:
        self._find = find
        self.ingress = ingress

    def find(self, network_id: str) -> Network | None:
        """Return a network of the swarm, or one that every node has."""
        return self._find(network_id) or PREDEFINED.get(network_id)

    def of_spec(self, spec: ServiceSpec) -> tuple[Network, ...]:
        """Return the networks that a service asks to be on, in its order; those that are gone are left out."""
        found = (self.find(attachment.target) for attachment in spec.task_template.networks)
        return tuple(network for network in found if network is not None)

    def balanced(self, service: Service, ports: tuple[PortConfig, ...]) -> tuple[Network, ...]:
        """Return the networks on which a service with these ports has a virtual address, that of the mesh first."""
        spec = service.spec.endpoint_spec
        if spec is not None and spec.mode == "dnsrr":
            return ()
        mesh = (self.ingress,) if self.ingress is not None and ingress_ports(ports) else ()
        return (*mesh, *(network for network in self.of_spec(service.spec) if is_overlay(network)))


class Claims:
    """What is taken: by the store, and by what was given in this round and is not in the store yet.

    Everything allocated from one view shares one of these, or two services would be given the same.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._addresses: dict[str, set[str]] = {}
        self._ports: dict[tuple[str, int], str] = {}

    def take_addresses(self, network: Network, owner_id: str) -> tuple[str, ...] | None:
        """Give a free address of each family of a network (CIDR); None if there is none."""
        if network.id not in self._addresses:
            self._addresses[network.id] = set(self._state.addresses_in_use(network.id))
        used = self._addresses[network.id]
        addresses = free_addresses(network, used, owner_id)
        if addresses is not None:
            used.update(address.partition("/")[0] for address in addresses)
        return addresses

    def give_back(self, network: Network, addresses: tuple[str, ...]) -> None:
        """Take back what was given in this round and is not used after all."""
        self._addresses[network.id].difference_update(address.partition("/")[0] for address in addresses)

    def port_used(self, service: Service, protocol: str, number: int) -> bool:
        """Whether another service has a port."""
        if self._ports.get((protocol, number), service.id) != service.id:
            return True
        users = (self._state.port_user(protocol, number, mode) for mode in ("ingress", "host"))
        return any(user is not None and user.id != service.id for user in users)

    def note_ports(self, service: Service, ports: tuple[PortConfig, ...]) -> None:
        """Note what a service was given."""
        self._ports.update({(p.protocol, p.published_port): service.id for p in ports if p.published_port})


class ServiceAllocation(Struct):
    """What is to be written about a service, and what it cannot have and why."""

    patch: PatchService | None = None
    lacks: str = ""


def ingress_ports(ports: Iterable[PortConfig]) -> tuple[PortConfig, ...]:
    """Return the ports that the routing mesh publishes."""
    return tuple(port for port in map(complete, ports) if port.publish_mode == "ingress")


def is_allocated(service: Service, networks: Networks) -> bool:
    """Whether a service has what its present spec asks for."""
    given = service.endpoint
    spec = service.spec.endpoint_spec
    asked_ports = tuple(map(complete, spec.ports)) if spec is not None else ()
    if len(asked_ports) != len(given.ports) or not all(map(_is_given, asked_ports, given.ports)):
        return False
    wanted = {network.id for network in networks.balanced(service, given.ports)}
    if wanted != {virtual_ip.network_id for virtual_ip in given.virtual_ips}:
        return False
    needs_mode = bool(wanted or given.ports or (spec is not None and spec.mode))
    return not needs_mode or given.mode == _mode(service)


def _mode(service: Service) -> str:
    spec = service.spec.endpoint_spec
    return (spec.mode if spec is not None else "") or "vip"


def _is_given(asked: PortConfig, given: PortConfig) -> bool:
    same = (asked.name, asked.protocol, asked.target_port, asked.publish_mode) == (
        given.name,
        given.protocol,
        given.target_port,
        given.publish_mode,
    )
    return same and asked.published_port in (0, given.published_port)


def plan_service(service: Service, networks: Networks, claims: Claims) -> ServiceAllocation:
    """Give a service its ports and virtual addresses; nothing if it has them, or there are none to give."""
    if is_allocated(service, networks):
        return ServiceAllocation()
    spec = service.spec.endpoint_spec
    ports = allocate_ports(
        spec.ports if spec is not None else (),
        service.endpoint.ports,
        lambda protocol, number: claims.port_used(service, protocol, number),
    )
    if ports is None:
        return ServiceAllocation(lacks="no dynamic port is free")
    claims.note_ports(service, ports)
    virtual_ips: list[VirtualIP] = []
    for network in networks.balanced(service, ports):
        held = [each for each in service.endpoint.virtual_ips if each.network_id == network.id]
        if not held:
            addresses = claims.take_addresses(network, service.id)
            if addresses is None:
                return ServiceAllocation(lacks=_exhausted(network))
            held = [VirtualIP(network_id=network.id, address=address) for address in addresses]
        virtual_ips += held
    mode = _mode(service) if ports or virtual_ips or spec is not None else ""
    endpoint = Endpoint(mode=mode, ports=ports, virtual_ips=tuple(virtual_ips))
    return ServiceAllocation(patch=PatchService(id=service.id, spec_version=service.spec_version, endpoint=endpoint))


def _exhausted(network: Network) -> str:
    return f"no free address in {', '.join(network.subnets)} of network {network.spec.name}"


def leaves_address(leaving: Task, lacks: str, network_of: Callable[[str], Network | None]) -> bool:
    """Whether `lacks`, what a NEW task was told it waits for, is an address such as `leaving` holds."""
    networks = [network_of(each.network_id) for each in leaving.attachments if each.addresses]
    return any(lacks == _exhausted(network) for network in networks if network is not None)


def plan_tasks(
    tasks: Iterable[Task],
    service: Service,
    spec_of: Callable[[Task], ServiceSpec],
    networks: Networks,
    claims: Claims,
    now_ns: int,
) -> list[Action]:
    """Give NEW tasks of a service their addresses and make them PENDING; one without a free address says why."""
    if not is_allocated(service, networks):
        return []
    patches: list[Action] = []
    for task in tasks:
        mesh = (networks.ingress,) if networks.ingress is not None and ingress_ports(service.endpoint.ports) else ()
        wanted = (*mesh, *networks.of_spec(spec_of(task)))
        attachments = _attach(task, wanted, claims)
        if isinstance(attachments, str):
            patches += say_what_is_lacking((task,), attachments, now_ns)
            continue
        status = TaskStatus(state=TaskState.PENDING, timestamp_ns=now_ns, message=PENDING_MESSAGE)
        patches.append(PatchTask(id=task.id, status=status, attachments=attachments))
    return patches


def say_what_is_lacking(tasks: Iterable[Task], lacks: str, now_ns: int) -> list[Action]:
    """Return the patches that tell NEW tasks what they wait for."""
    status = TaskStatus(state=TaskState.NEW, timestamp_ns=now_ns, message="created", err=lacks)
    return [PatchTask(id=task.id, status=status) for task in tasks if task.status.err != lacks]


def _attach(task: Task, networks: Iterable[Network], claims: Claims) -> tuple[Attachment, ...] | str:
    """Return a task's attachments; a text says which network has no address left, and nothing is taken then."""
    attachments: list[Attachment] = []
    taken: list[tuple[Network, tuple[str, ...]]] = []
    for network in networks:
        if not is_overlay(network):
            spec = network.spec if network.id not in PREDEFINED else None
            driver, internal = driver_of(network.spec), network.spec.internal
            attachments.append(Attachment(network_id=network.id, driver=driver, internal=internal, spec=spec))
            continue
        addresses = claims.take_addresses(network, task.id)
        if addresses is None:
            for other, given in taken:
                claims.give_back(other, given)
            return _exhausted(network)
        taken.append((network, addresses))
        driver = "" if network.spec.ingress else driver_of(network.spec)
        attachments.append(
            Attachment(
                network_id=network.id,
                addresses=addresses,
                driver=driver,
                internal=network.spec.internal,
                encrypted=is_encrypted(network),
            )
        )
    return tuple(attachments)
