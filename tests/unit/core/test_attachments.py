"""Places of plain containers on networks of the swarm."""

from __future__ import annotations

import pytest

from shoal.core.assign import Sent, diff
from shoal.core.attachments import attachment_task, check_attachable, choose_addresses
from shoal.core.networks import PREDEFINED_BY_NAME
from shoal.core.overlay import overlay_service
from shoal.core.plain_network import attachment_of, endpoint_of, port_conflict, sandbox_request, wanted_ports
from shoal.errors import Conflict, Forbidden, InvalidArgument
from shoal.model.base import replace
from shoal.model.container import Container, ContainerConfig, ContainerState
from shoal.model.netstate import HostPort, OverlayEndpoint, OverlayLink, OverlayService
from shoal.model.objects import AttachedContainer, Network, Node
from shoal.model.plain import Attachment, EndpointRequest, PlainConfig, PortRequest
from shoal.model.specs import NetworkSpec

NETWORK = Network(
    id="net",
    spec=NetworkSpec(name="open", driver="overlay", attachable=True),
    subnets=("10.0.1.0/29", "fd00::/64"),
    gateways=("10.0.1.1", "fd00::1"),
)
CONTAINER = AttachedContainer(container_id="0123456789abcdef", name="one", aliases=("uno",))


@pytest.mark.parametrize(
    "spec",
    [
        NetworkSpec(name="closed", driver="overlay"),
        NetworkSpec(name="closed", driver="overlay", attachable=True, ingress=True),
        NetworkSpec(name="closed", driver="macvlan", scope="swarm"),
    ],
)
def test_networks_that_no_container_may_join(spec):
    text = "rpc error: code = PermissionDenied desc = network closed not manually attachable"
    with pytest.raises(Forbidden, match=text):
        check_attachable(Network(id="net", spec=spec), "closed")
    with pytest.raises(Forbidden, match="network host not manually attachable"):
        check_attachable(PREDEFINED_BY_NAME["host"], "host")
    check_attachable(NETWORK, "open")
    check_attachable(Network(id="net", spec=NetworkSpec(name="lan", driver="macvlan", attachable=True)), "lan")


def test_addresses():
    assert choose_addresses(NETWORK, ("10.0.1.5",), (), "t")[0] == "10.0.1.5/29"
    assert choose_addresses(NETWORK, ("fd00::9",), (), "t")[1] == "fd00::9/64"
    ipv4, ipv6 = choose_addresses(NETWORK, (), {"10.0.1.2", "10.0.1.3", "10.0.1.4", "10.0.1.5"}, "t")
    assert ipv4 == "10.0.1.6/29"
    assert ipv6.startswith("fd00::")


@pytest.mark.parametrize(
    ("asked", "used", "error", "text"),
    [
        ("10.9.9.9", (), InvalidArgument, "no configured subnet or ip-range contain the IP address 10.9.9.9"),
        ("10.0.1.1", (), Conflict, "Address already in use: 10.0.1.1"),
        ("10.0.1.7", (), Conflict, "Address already in use"),
        ("10.0.1.5", ("10.0.1.5",), Conflict, "Address already in use"),
        ("", tuple(f"10.0.1.{number}" for number in range(2, 7)), Conflict, "no free address"),
    ],
)
def test_addresses_that_cannot_be(asked, used, error, text):
    with pytest.raises(error, match=text):
        choose_addresses(NETWORK, (asked,) if asked else (), used, "t")


def test_what_nodes_are_told_of_a_container():
    task = attachment_task("t", "n", NETWORK, ("10.0.1.5/29",), CONTAINER, 1)
    found = overlay_service("net", "t", None, [task], lambda _id: Node(id="n", number=3))
    endpoint = OverlayEndpoint(
        task_id="t",
        name="one",
        addresses=("10.0.1.5",),
        node_number=3,
        aliases=("0123456789ab", "uno"),
        serving=True,
    )
    assert found == OverlayService(service_id="t", endpoints=(endpoint,))
    sent = Sent()
    told = diff(sent, [task], lambda _task: pytest.fail("it has no revision"))
    assert told is not None
    assert told.tasks == (), "there is nothing to run"


def test_what_a_container_wants_of_its_node():
    held = Attachment(task_id="t", network_id="abcdef", network_name="open", addresses=("10.0.1.5/29",), internal=True)
    plain = PlainConfig(network_mode="open", endpoints=(EndpointRequest(network="open"),), attachments=(held,))
    config = ContainerConfig(name="c", image="i", plain=plain)
    request = sandbox_request("id", config)
    assert request.overlays == (OverlayLink(network_id="abcdef", addresses=("10.0.1.5/29",)),)
    assert not request.outside, "an internal network leads nowhere"
    published = ContainerConfig(
        name="c", image="i", plain=plain, host_ports=(HostPort(protocol="tcp", published_port=1, target_port=1),)
    )
    assert sandbox_request("id", published).outside
    for reference in ("open", "abcdef", "abc"):
        assert attachment_of(plain, reference) == held
        assert endpoint_of(plain, reference) == plain.endpoints[0]
    assert endpoint_of(plain, "other") is None


def test_a_container_on_a_macvlan_goes_out_by_its_gateway_unless_it_is_internal():
    held = Attachment(task_id="t", network_id="lan", network_name="lan", addresses=("10.8.0.5/24",), driver="macvlan")
    config = ContainerConfig(name="c", image="i", plain=PlainConfig(network_mode="lan", attachments=(held,)))
    request = sandbox_request("id", config)
    assert (request.outside, request.default_network_id) == (False, "lan")
    assert config.plain is not None
    sealed = replace(config, plain=replace(config.plain, attachments=(replace(held, internal=True),)))
    request = sandbox_request("id", sealed)
    assert (request.outside, request.default_network_id) == (False, "")
    with_bridge = replace(config, plain=replace(config.plain, network_mode="bridge"))
    request = sandbox_request("id", with_bridge)
    assert (request.outside, request.default_network_id) == (True, ""), "by the order of names"
    higher = replace(config.plain, network_mode="bridge", attachments=(replace(held, priority=1),))
    request = sandbox_request("id", replace(config, plain=higher))
    assert (request.outside, request.default_network_id) == (True, "lan")


def test_ports_of_an_image_are_published_if_asked_for():
    plain = PlainConfig(
        ports=(PortRequest(protocol="tcp", target_port=80, published_port=8080),),
        exposed_ports=("80/tcp", "53/udp"),
    )
    assert wanted_ports(plain, ("443",)) == plain.ports
    every = PlainConfig(publish_all=True, ports=plain.ports, exposed_ports=plain.exposed_ports)
    assert wanted_ports(every, ("443", "53/udp")) == (
        *plain.ports,
        PortRequest(protocol="udp", target_port=53),
        PortRequest(protocol="tcp", target_port=443),
    )


def test_ports_of_plain_containers_are_not_a_tasks() -> None:
    port = HostPort(protocol="tcp", published_port=8080, target_port=80)
    config = ContainerConfig(name="c", image="i", host_ports=(port,), plain=PlainConfig())
    container = Container(id="i", config=config, image_id="", created_at_ns=0, state=ContainerState(status="running"))
    text = "Bind for 0.0.0.0:8080 failed: port is already allocated to container c"
    assert port_conflict((port,), [container]) == text
    assert port_conflict((HostPort(protocol="udp", published_port=8080, target_port=80),), [container]) == ""
    ended = replace(container, state=ContainerState(status="exited"))
    of_task = replace(container, config=replace(config, plain=None))
    assert port_conflict((port,), [ended, of_task]) == ""
