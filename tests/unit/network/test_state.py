from hypothesis import given
from hypothesis import strategies as st

from shoal.model.netstate import Backend, HostPort, IngressPort, IngressState, SandboxRequest
from shoal.network.state import (
    BalancedPort,
    ForwardedPort,
    KernelState,
    RemoveBalanced,
    RemoveForwarded,
    SetBalanced,
    SetForwarded,
    desired,
    diff,
    flow_cuts,
)


def mesh(protocol, published, target, *backends):
    made = tuple(Backend(task_id=f"t{address}", address=address, node_number=node) for address, node in backends)
    return IngressPort(protocol=protocol, published_port=published, target_port=target, service_id="s", backends=made)


def balanced(protocol, published, target, *addresses):
    return BalancedPort(protocol=protocol, published_port=published, target_port=target, addresses=addresses)


def forwarded(protocol, published, address, target):
    return ForwardedPort(protocol=protocol, published_port=published, address=address, target_port=target)


def test_desired_sorts_ports_and_addresses_and_knows_the_node():
    state = IngressState(
        version=3,
        ports=(mesh("udp", 53, 5353, ("10.0.0.9", 1)), mesh("tcp", 80, 8080, ("10.0.0.3", 2), ("10.0.0.2", 1))),
    )
    assert desired(state, ()).balanced == (
        balanced("tcp", 80, 8080, "10.0.0.2", "10.0.0.3"),
        balanced("udp", 53, 5353, "10.0.0.9"),
    )
    assert desired(state, (), node_number=2).balanced[0].addresses == ("10.0.0.3",)


def test_desired_forwards_host_ports_to_the_task():
    ports = (HostPort(protocol="tcp", published_port=90, target_port=80),)
    request = SandboxRequest(
        task_id="t", host_ports=(*ports, HostPort(protocol="tcp", published_port=0, target_port=1))
    )
    assert desired(IngressState(), [(request, "172.18.0.2")]).forwarded == (forwarded("tcp", 90, "172.18.0.2", 80),)


def test_diff_says_what_is_new_changed_and_gone():
    old, new = balanced("tcp", 1, 1, "10.0.0.1"), balanced("tcp", 1, 1, "10.0.0.2")
    gone, host_old, host_new = (
        balanced("tcp", 2, 2),
        forwarded("udp", 5, "1.1.1.1", 5),
        forwarded("udp", 5, "1.1.1.2", 5),
    )
    actual = KernelState(balanced=(old, gone), forwarded=(host_old, forwarded("tcp", 6, "1.1.1.1", 6)))
    wanted = KernelState(balanced=(new, balanced("udp", 3, 3)), forwarded=(host_new,))
    assert diff(actual, wanted) == (
        RemoveBalanced(port=gone),
        RemoveForwarded(port=forwarded("tcp", 6, "1.1.1.1", 6)),
        SetBalanced(port=new, is_new=False),
        SetBalanced(port=balanced("udp", 3, 3), is_new=True),
        SetForwarded(port=host_new, replaces=host_old),
    )
    assert diff(wanted, wanted) == ()


ADDRESSES = st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), unique=True).map(sorted).map(tuple)
PORTS = st.builds(balanced, st.sampled_from(["tcp", "udp"]), st.integers(1, 4), st.integers(80, 81)).flatmap(
    lambda port: ADDRESSES.map(lambda addresses: balanced(port.protocol, port.published_port, 80, *addresses))
)
HOST_PORTS = st.builds(
    forwarded, st.sampled_from(["tcp", "udp"]), st.integers(1, 4), st.sampled_from(["1.1.1.1", "1.1.1.2"]), st.just(80)
)
STATES = st.builds(
    lambda mesh_ports, host_ports: KernelState(
        balanced=tuple(sorted({port.key: port for port in mesh_ports}.values(), key=lambda port: port.key)),
        forwarded=tuple(sorted({port.key: port for port in host_ports}.values(), key=lambda port: port.key)),
    ),
    st.lists(PORTS),
    st.lists(HOST_PORTS),
)


@given(STATES, STATES)
def test_applying_a_diff_gives_what_is_wanted(actual, wanted):
    ports, hosts = {port.key: port for port in actual.balanced}, {port.key: port for port in actual.forwarded}
    for operation in diff(actual, wanted):
        match operation:
            case SetBalanced(port=port, is_new=is_new):
                assert is_new == (port.key not in ports)
                ports[port.key] = port
            case RemoveBalanced(port=port):
                assert ports.pop(port.key) == port
            case SetForwarded(port=port, replaces=before):
                assert hosts.get(port.key) == before
                hosts[port.key] = port
            case RemoveForwarded(port=port):
                assert hosts.pop(port.key) == port
    assert {port.key: port for port in wanted.balanced} == ports
    assert {port.key: port for port in wanted.forwarded} == hosts


def cuts(actual, wanted):
    return flow_cuts(actual, diff(actual, wanted))


def test_udp_flows_are_cut_and_tcp_flows_never():
    before = KernelState(balanced=(balanced("tcp", 1, 1, "10.0.0.1"), balanced("udp", 5, 5, "10.0.0.1", "10.0.0.2")))
    after = KernelState(balanced=(balanced("udp", 5, 5, "10.0.0.2"),))
    made = cuts(before, after)
    assert made.backends == {(5, "10.0.0.1")}
    assert made.host_ports == frozenset()
    assert cuts(after, before).is_empty, "a backend that comes cuts nothing"
    assert cuts(after, KernelState()).host_ports == {5}
    assert cuts(KernelState(), after).host_ports == {5}, "flows from before the port was published"
    moved = cuts(after, KernelState(balanced=(balanced("udp", 5, 6, "10.0.0.2"),)))
    assert moved.backends == {(5, "10.0.0.2")}, "another target port moves every flow"
    host = KernelState(forwarded=(forwarded("udp", 7, "172.18.0.2", 7),))
    assert cuts(host, KernelState()).host_addresses == {"172.18.0.2"}
