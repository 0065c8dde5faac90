"""Networks of one node: subnets, places, refusals."""

from __future__ import annotations

import pytest

from shoal.core.local_networks import POOLS, make_local_network, place_container, update_of
from shoal.core.validate.network import prepare_local_network
from shoal.errors import Conflict, Forbidden, InvalidArgument, NotBuilt, NotFound, ShoalError
from shoal.model.netstate import OverlayService
from shoal.model.node_port import AttachCall
from shoal.model.objects import Network
from shoal.model.specs import IPAMOptions, IPAMPool, NetworkSpec


def made(name: str, *others: Network, subnet: str = "", host: tuple[str, ...] = ()) -> Network:
    ipam = IPAMOptions(config=(IPAMPool(subnet=subnet),)) if subnet else IPAMOptions()
    return make_local_network(f"{name:0>64}", prepare_local_network(NetworkSpec(name=name, ipam=ipam)), others, host, 1)


def test_subnets_come_in_order_and_avoid_those_of_the_host() -> None:
    first = made("aa", host=("172.19.0.0/24", "192.168.0.0/24"))
    assert (first.subnets, first.gateways, first.vni) == (("172.20.0.0/16",), ("172.20.0.1",), 0)
    networks = [first]
    while len(networks) < len(POOLS) - 1:
        networks.append(made(f"n{len(networks)}", *networks, host=("172.19.0.0/24",)))
    small = made("small", *networks, host=("172.19.0.0/24", "192.168.0.0/24"))
    assert small.subnets == ("192.168.16.0/20",), "when the large ones are gone"


def test_what_is_asked_for_is_given_unless_another_network_has_it() -> None:
    first = made("aa", subnet="10.5.0.0/24")
    assert first.subnets == ("10.5.0.0/24",)
    assert made("bb", subnet="192.168.1.0/24", host=("192.168.1.0/24",)).subnets == ("192.168.1.0/24",)
    with pytest.raises(InvalidArgument, match="Pool overlaps with other one on this address space"):
        made("bb", first, subnet="10.5.0.128/25")


def test_places_are_not_given_twice() -> None:
    network = made("aa", subnet="10.5.0.0/29")
    held: list[OverlayService] = []
    for number in range(5):
        call = AttachCall(network="aa", container_id=f"{number}" * 64, name=f"c{number}", aliases=("x",))
        answer, service = place_container(network, call, held)
        assert answer.addresses[0].endswith("/29")
        held.append(service)
    given = {address for service in held for endpoint in service.endpoints for address in endpoint.addresses}
    assert given == {f"10.5.0.{number}" for number in range(2, 7)}
    last = AttachCall(network="aa", container_id="9" * 64, name="late")
    with pytest.raises(Conflict, match="no free address"):
        place_container(network, last, held)
    again, service = place_container(network, last, held[1:])
    assert again.addresses == (f"{held[0].endpoints[0].addresses[0]}/29",)
    assert service.endpoints[0].aliases == ("9" * 12,)
    update = update_of(network, [service])
    assert (update.overlay.vni, update.complete, update.services) == (0, True, (service,))


@pytest.mark.parametrize(
    ("spec", "kind", "text"),
    [
        (NetworkSpec(name="bridge"), Forbidden, "predefined bridge network"),
        (NetworkSpec(name=""), InvalidArgument, "invalid name"),
        (NetworkSpec(name="net", driver="macvlan"), NotBuilt, 'driver "macvlan"'),
        (NetworkSpec(name="net", driver="nosuch"), NotFound, 'plugin "nosuch" not found'),
        (NetworkSpec(name="net", config_only=True), NotBuilt, "--config-only"),
        (NetworkSpec(name="net", ingress=True), InvalidArgument, "Ingress"),
        (NetworkSpec(name="net", options={"com.docker.network.bridge.enable_icc": "false"}), NotBuilt, "enable_icc"),
        (NetworkSpec(name="net", options={"com.docker.network.driver.mtu": "x"}), InvalidArgument, "Options"),
        (NetworkSpec(name="net", enable_ipv4=False), InvalidArgument, "EnableIPv4"),
        (
            NetworkSpec(name="net", ipam=IPAMOptions(config=(IPAMPool(subnet="10.0.0.1/24"),))),
            InvalidArgument,
            "10.0.0.0/24",
        ),
    ],
)
def test_what_is_refused(spec: NetworkSpec, kind: type[ShoalError], text: str) -> None:
    with pytest.raises(kind) as caught:
        prepare_local_network(spec)
    assert text in caught.value.message
