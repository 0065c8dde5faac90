import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidArgument
from shoal.model.netstate import Backend, DataPath, IngressPort, IngressState, Peer
from shoal.network.mesh_state import (
    HIGHEST_NODE_NUMBER,
    NOWHERE_MAC,
    MeshLink,
    MeshState,
    desired_mesh,
    encrypted_mesh,
    link_address,
    mac_of_node,
    mark_of_node,
    mesh_steps,
    node_of_mac,
    nodes_spoken_to,
)
from shoal.network.state import desired

DATA_PATH = DataPath(
    port=4790, peers=tuple(Peer(node_number=number, address=f"192.0.2.{number}") for number in (1, 2, 3))
)


def backend(address, number):
    return Backend(task_id=f"t-{address}", address=address, node_number=number)


def port(*backends, **options):
    return IngressPort(
        protocol="tcp", published_port=80, target_port=8080, service_id="s", backends=tuple(backends), **options
    )


@given(st.integers(1, HIGHEST_NODE_NUMBER))
def test_what_follows_from_a_number_is_the_nodes_alone(number):
    assert node_of_mac(mac_of_node(number)) == number
    assert mac_of_node(number) != NOWHERE_MAC
    assert mark_of_node(number) & 0xFFFF == number
    assert mark_of_node(number) > 0xFFFF
    assert link_address("100.127.0.0/16", number) != link_address("100.127.0.0/16", 0)


def test_numbers_as_they_are_written():
    assert mac_of_node(258).hex(":") == "02:42:0a:ff:01:02"
    assert link_address("100.127.0.0/16", 258) == "100.127.1.2"
    assert node_of_mac(bytes.fromhex("0242ac110002")) == 0
    assert node_of_mac(NOWHERE_MAC) == 0
    with pytest.raises(InvalidArgument, match=r"no address for node 256"):
        link_address("10.0.0.0/24", 256)


def test_a_node_that_is_alone_or_without_a_number_has_no_link():
    assert desired_mesh(IngressState(), DATA_PATH, 0) == MeshState()
    alone = DataPath(peers=DATA_PATH.peers[:1])
    assert desired_mesh(IngressState(), alone, 1) == MeshState()
    assert desired_mesh(IngressState(), DataPath(), 1) == MeshState()


def test_routes_lead_to_endpoints_and_backends_elsewhere():
    ingress = IngressState(
        ports=(port(backend("10.0.0.2", 2), backend("10.0.0.1", 1)),),
        endpoints=(backend("10.0.0.3", 3), backend("10.0.0.1", 1), backend("10.0.0.9", 9)),
    )
    assert desired_mesh(ingress, DATA_PATH, 1) == MeshState(
        link=MeshLink(number=1, local="192.0.2.1", port=4790),
        remotes={2: "192.0.2.2", 3: "192.0.2.3"},
        routes={"10.0.0.2": 2, "10.0.0.3": 3},
    )


def test_the_port_of_a_data_path_without_one_is_the_usual():
    made = desired_mesh(IngressState(), DataPath(port=0, peers=DATA_PATH.peers), 3)
    assert made.link == MeshLink(number=3, local="192.0.2.3", port=4789)


REMOTES = st.dictionaries(st.integers(1, 5), st.sampled_from(["192.0.2.1", "192.0.2.2"]))
ROUTES = st.dictionaries(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), st.integers(1, 3))
STATES = st.builds(lambda remotes, routes: MeshState(remotes=remotes, routes=routes), REMOTES, ROUTES)


@given(STATES, STATES)
def test_applying_the_steps_gives_what_is_wanted(actual, wanted):
    steps = mesh_steps(actual, wanted)
    remotes, routes = dict(actual.remotes) | steps.remotes, dict(actual.routes) | steps.routes
    for number in steps.gone_remotes:
        remotes.pop(number)
    for address, number in steps.gone_routes.items():
        assert routes.pop(address) == number
    assert (remotes, routes) == (wanted.remotes, wanted.routes)
    assert mesh_steps(wanted, wanted).is_empty


@pytest.mark.parametrize(
    ("options", "number", "reached", "addresses"),
    [
        ({}, 1, {2, 3}, ("10.0.0.1", "10.0.0.2", "10.0.0.3")),
        ({}, 1, {3}, ("10.0.0.1", "10.0.0.3")),
        ({}, 1, (), ("10.0.0.1",)),
        ({}, 0, (), ("10.0.0.1", "10.0.0.2", "10.0.0.3")),
        ({"policy": "local"}, 2, {1, 3}, ("10.0.0.2",)),
        ({"policy": "local"}, 4, {1, 2, 3}, ()),
        ({"affinity": "prefer-local"}, 2, {1, 3}, ("10.0.0.2",)),
        ({"affinity": "prefer-local"}, 4, {1, 3}, ("10.0.0.1", "10.0.0.3")),
    ],
)
def test_which_backends_take_part(options, number, reached, addresses):
    backends = [backend(f"10.0.0.{node}", node) for node in (3, 1, 2)]
    state = desired(IngressState(ports=(port(*backends, **options),)), (), number, frozenset(reached))
    assert state.balanced[0].addresses == addresses
    assert not state.balanced[0].by_source


def test_affinity_to_the_source():
    state = desired(IngressState(ports=(port(backend("10.0.0.1", 1), affinity="source"),)), (), 1)
    assert state.balanced[0].by_source


def test_an_encrypted_mesh_leads_to_nodes_with_a_key_only():
    backends = (backend("10.0.0.2", 2), backend("10.0.0.3", 3))
    ingress = IngressState(version=1, ports=(port(*backends),), endpoints=backends, encrypted=True)
    plain = desired_mesh(ingress, DATA_PATH, 1)
    mesh = encrypted_mesh(plain, "100.126.0.1", {2: "100.126.0.2"}, 1370)
    assert mesh.link == MeshLink(number=1, local="100.126.0.1", port=4790, mtu_bytes=1370)
    assert mesh.remotes == {2: "100.126.0.2"}
    assert mesh.routes == {"10.0.0.2": 2}
    # who has no tasks speaks to those who have; they must know the keys of all
    assert nodes_spoken_to(ingress, 1, (2, 3, 4)) == {2, 3}
    assert nodes_spoken_to(ingress, 2, (1, 3, 4)) == {1, 3, 4}
    assert nodes_spoken_to(IngressState(), 2, (1, 3)) == frozenset()
