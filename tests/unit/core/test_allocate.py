"""Addresses and ports (docker-swarm.md 4.11)."""

from __future__ import annotations

from shoal.core.allocate.ipam import first_free
from shoal.core.allocate.plan import Networks, is_allocated
from shoal.core.allocate.ports import DYNAMIC_FIRST, DYNAMIC_LAST, allocate_ports, complete
from shoal.model.actions import Remove
from shoal.model.base import replace
from shoal.model.objects import Endpoint, Service
from shoal.model.specs import EndpointSpec, PortConfig, ServiceSpec
from shoal.model.states import TaskState
from tests.doubles.swarm import PureSwarm, service_spec


def publishing(name: str, *ports: PortConfig, replicas: int = 1, mode: str = "") -> ServiceSpec:
    ports = ports or (PortConfig(target_port=80),)
    return replace(service_spec(name, replicas), endpoint_spec=EndpointSpec(ports=ports, mode=mode))


def test_the_subnets_own_addresses_are_never_given() -> None:
    used: set[str] = set()
    while (address := first_free("10.0.0.0/29", "10.0.0.1", used, "owner")) is not None:
        used.add(address.partition("/")[0])
    assert used == {f"10.0.0.{host}" for host in range(2, 7)}


def test_a_freed_address_is_not_the_next_one_given() -> None:
    first = first_free("10.0.0.0/24", "10.0.0.1", set(), "one")
    other = first_free("10.0.0.0/24", "10.0.0.1", set(), "two")
    assert first != other
    assert first is not None
    assert first.endswith("/24")


def test_ports_by_number_protocol_and_mode() -> None:
    asked = (
        PortConfig(target_port=80),
        PortConfig(target_port=81, published_port=DYNAMIC_FIRST),
        PortConfig(target_port=53, protocol="udp"),
        PortConfig(target_port=9, publish_mode="host"),
    )
    given = allocate_ports(asked, (), lambda _protocol, _number: False)
    assert given is not None
    assert [(p.protocol, p.published_port, p.publish_mode) for p in given] == [
        ("tcp", DYNAMIC_FIRST + 1, "ingress"),
        ("tcp", DYNAMIC_FIRST, "ingress"),
        ("udp", DYNAMIC_FIRST, "ingress"),
        ("tcp", 0, "host"),
    ]


def test_dynamic_ports_avoid_others_and_end() -> None:
    asked = (PortConfig(target_port=80),)
    given = allocate_ports(asked, (), lambda _protocol, number: number < DYNAMIC_LAST)
    assert given is not None
    assert given[0].published_port == DYNAMIC_LAST
    assert allocate_ports(asked, (), lambda _protocol, _number: True) is None


def test_a_dynamic_port_is_kept_over_updates_unless_it_is_asked_for_by_number() -> None:
    given = (complete(PortConfig(target_port=80, published_port=30_007)),)
    kept = allocate_ports((PortConfig(target_port=80),), given, lambda _p, _n: False)
    assert kept == given
    both = (PortConfig(target_port=80), PortConfig(target_port=90, published_port=30_007))
    settled = allocate_ports(both, given, lambda _p, _n: False)
    assert settled is not None
    assert [port.published_port for port in settled] == [DYNAMIC_FIRST, 30_007]


def test_what_is_allocated() -> None:
    networks = Networks({}.get, None)
    bare = Service(id="s", spec=ServiceSpec())
    assert is_allocated(bare, networks)
    asking = replace(bare, spec=ServiceSpec(endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=80),))))
    assert not is_allocated(asking, networks)
    left_over = replace(bare, endpoint=Endpoint(mode="vip", ports=(complete(PortConfig(published_port=80)),)))
    assert not is_allocated(left_over, networks), "ports that are not asked for any more go back"


def test_many_services_of_one_round_get_different_ports_and_addresses() -> None:
    """Planned from one view, they do not see each other in the store."""
    swarm = PureSwarm(2)
    ids = [swarm.create(publishing(f"web{number}", replicas=2)) for number in range(60)]
    swarm.settle()
    services = [swarm.service(id_) for id_ in ids]
    numbers = [port.published_port for service in services for port in service.endpoint.ports]
    assert sorted(numbers) == list(range(DYNAMIC_FIRST, DYNAMIC_FIRST + 60))
    assert len(swarm.view.addresses_in_use("ingress-id")) == 60 * 3
    assert all(len(swarm.running(id_)) == 2 for id_ in ids)


def test_what_is_given_comes_back() -> None:
    swarm = PureSwarm(1)
    id_ = swarm.create(publishing("web", replicas=3))
    swarm.settle()
    swarm.scale(id_, 1)
    swarm.settle()
    assert len(swarm.view.addresses_in_use("ingress-id")) == 2
    swarm.update(id_, lambda spec: replace(spec, endpoint_spec=None))
    swarm.settle()
    service = swarm.service(id_)
    assert (service.endpoint.ports, service.endpoint.virtual_ips) == ((), ())
    assert swarm.view.addresses_in_use("ingress-id") == frozenset()
    swarm.apply(Remove(kind="service", id=id_))
    swarm.settle()
    assert swarm.view.port_user("tcp", DYNAMIC_FIRST) is None


def test_an_update_keeps_the_port_and_the_address() -> None:
    swarm = PureSwarm(1)
    id_ = swarm.create(publishing("web"))
    swarm.settle()
    before = swarm.service(id_).endpoint
    swarm.set_image(id_, "new")
    swarm.settle()
    assert swarm.service(id_).endpoint == before


def test_dnsrr_and_host_ports_need_no_address() -> None:
    swarm = PureSwarm(1)
    host = PortConfig(target_port=80, published_port=8080, publish_mode="host")
    id_ = swarm.create(publishing("web", host))
    swarm.settle()
    assert swarm.service(id_).endpoint.virtual_ips == ()
    assert len(swarm.running(id_)) == 1
    assert swarm.running(id_)[0].attachments == ()


def test_who_gets_no_address_waits_says_why_and_goes_on_when_one_is_free() -> None:
    swarm = PureSwarm(1, subnet="10.0.0.0/29")
    id_ = swarm.create(publishing("web", replicas=6))
    swarm.settle()
    assert len(swarm.running(id_)) == 4
    waiting = swarm.tasks(id_, TaskState.NEW)
    assert {task.status.err for task in waiting} == {"no free address in 10.0.0.0/29 of network ingress"}
    swarm.scale(id_, 4)
    swarm.settle()
    assert len(swarm.running(id_)) == 4
    assert len(swarm.tasks(id_)) == 4
