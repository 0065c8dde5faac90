"""Networks of one node: subnets, places, refusals."""

from __future__ import annotations

import pytest

from shoal.core.local_networks import (
    POOLS,
    make_local_network,
    place_container,
    refuse_shared_parent,
    update_of,
    with_configuration,
)
from shoal.core.networks import choose_exit, exit_of, needs_way_out
from shoal.core.validate.network import prepare_local_network
from shoal.errors import Conflict, Forbidden, InvalidArgument, NotBuilt, NotFound, ShoalError
from shoal.model.base import replace
from shoal.model.netstate import OverlayService
from shoal.model.node_port import AttachCall
from shoal.model.objects import Network
from shoal.model.specs import IPAMOptions, IPAMPool, NetworkConfigSource, NetworkSpec

FROM = NetworkConfigSource(network="lan-config")


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


def test_what_is_reserved_or_the_gateways_is_no_containers():
    pool = IPAMPool(
        subnet="10.5.0.0/24", ip_range="10.5.0.64/30", gateway="10.5.0.1", auxiliary_addresses={"printer": "10.5.0.65"}
    )
    spec = prepare_local_network(NetworkSpec(name="aa", driver="macvlan", ipam=IPAMOptions(config=(pool,))))
    network = make_local_network("a" * 64, spec, (), (), 1)
    held: list[OverlayService] = []
    for number in range(3):
        call = AttachCall(network="aa", container_id=f"{number}" * 64, name=f"c{number}")
        held.append(place_container(network, call, held)[1])
    given = {address for service in held for endpoint in service.endpoints for address in endpoint.addresses}
    assert given == {"10.5.0.64", "10.5.0.66", "10.5.0.67"}
    for taken in ("10.5.0.65", "10.5.0.1"):
        with pytest.raises(Conflict, match=f"Address already in use: {taken}"):
            place_container(network, replace(call, addresses=(taken,)), held)


def test_a_network_takes_what_a_configuration_network_says():
    options = {"parent": "eth7"}
    held = prepare_local_network(NetworkSpec(name="lan-config", config_only=True, options=options, labels={"a": "b"}))
    assert (held.driver, held.scope) == ("null", "local")
    known = [make_local_network("c" * 64, held, (), (), 1)]
    assert known[0].subnets == ()
    spec = prepare_local_network(NetworkSpec(name="lan", driver="macvlan", config_from=FROM))
    whole = with_configuration(spec, known)
    assert (whole.options, whole.labels, whole.config_from) == (options, {"a": "b"}, FROM)
    with pytest.raises(NotFound, match='configuration network "lan-config" does not exist on this node'):
        with_configuration(spec, ())
    with pytest.raises(NotBuilt, match="Options: parent=eth7 of a network with driver bridge"):
        with_configuration(replace(spec, driver="bridge"), known)


def test_a_parent_of_mode_passthru_is_shared_with_nobody():
    spec = NetworkSpec(name="one", driver="macvlan", options={"parent": "eth7", "macvlan_mode": "passthru"})
    first = make_local_network("a" * 64, prepare_local_network(spec), (), (), 1)
    with pytest.raises(Forbidden, match="network one is already using parent interface eth7"):
        refuse_shared_parent(replace(spec, name="two", options={"parent": "eth7"}), [first])
    refuse_shared_parent(replace(spec, name="two", options={"parent": "eth8"}), [first])


def test_a_container_goes_out_by_the_gateway_that_comes_first():
    lan, wan = exit_of("l", "lan", "macvlan"), exit_of("w", "wan", "macvlan")
    bridge, overlay = exit_of("", "bridge", "bridge"), exit_of("o", "aaa", "overlay")
    assert choose_exit([]) == ""
    assert choose_exit([wan, lan]) == "l"
    assert choose_exit([wan, overlay]) == "w", "an overlay network has no gateway"
    assert choose_exit([wan, bridge]) == ""
    assert choose_exit([replace(wan, priority=1), bridge, lan]) == "w"
    assert [needs_way_out(each) for each in ([], [lan], [lan, overlay])] == [False, False, True]


@pytest.mark.parametrize(
    ("spec", "kind", "text"),
    [
        (NetworkSpec(name="bridge"), Forbidden, "predefined bridge network"),
        (NetworkSpec(name=""), InvalidArgument, "invalid name"),
        (NetworkSpec(name="net", driver="ipvlan"), NotBuilt, 'the driver "ipvlan"'),
        (NetworkSpec(name="net", driver="host"), Forbidden, 'only one instance of "host" network is allowed'),
        (NetworkSpec(name="net", driver="nosuch"), NotFound, 'plugin "nosuch" not found'),
        (NetworkSpec(name="net", config_only=True, internal=True), InvalidArgument, "configuration network can only"),
        (NetworkSpec(name="net", config_only=True, config_from=FROM), InvalidArgument, "cannot depend on another"),
        (NetworkSpec(name="net", config_from=FROM, options={"parent": "e"}), Forbidden, "network driver options"),
        (NetworkSpec(name="net", config_from=FROM, labels={"a": "b"}), Forbidden, "user specified configurations"),
        (NetworkSpec(name="net", driver="macvlan", options={"parent": "lo"}), InvalidArgument, "loopback interface"),
        (NetworkSpec(name="net", driver="macvlan", options={"macvlan_mode": "x"}), InvalidArgument, "mode 'x'"),
        (NetworkSpec(name="net", driver="macvlan", options={"colour": "x"}), NotBuilt, "Options: colour=x"),
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
