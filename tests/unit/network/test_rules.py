from shoal.network.netlink import attributes
from shoal.network.nfnetlink import host_batch, sandbox_batch
from shoal.network.nft import Ranges, render_host, render_sandbox
from shoal.network.settings import link_name_of, names_of
from shoal.network.state import BalancedPort, ForwardedPort, KernelState, RemoveBalanced, SetBalanced, SetForwarded

RANGES = Ranges(host_end="172.31.255.1", sandbox_end="172.31.255.2", gateway_network="172.18.0.0/16")
NAMES = names_of("daemon")
SERVED = BalancedPort(protocol="tcp", published_port=8080, target_port=80, addresses=("10.0.0.2", "10.0.0.3"))
EMPTY = BalancedPort(protocol="udp", published_port=53, target_port=53)
HOST = ForwardedPort(protocol="tcp", published_port=9000, address="172.18.0.2", target_port=80)


def messages(batch):
    data, last = batch.finish()
    kinds, offset = [], 0
    while offset < len(data):
        length = int.from_bytes(data[offset : offset + 4], "little")
        kinds.append(int.from_bytes(data[offset + 4 : offset + 6], "little") & 0xFF)
        offset += (length + 3) & ~3
    assert last == len(kinds)
    return kinds


def test_names_fit_the_kernel_and_differ_by_daemon():
    assert names_of("a") != names_of("b")
    assert len(NAMES.host_link) <= 15
    assert len(link_name_of("x" * 25)) <= 15


def test_host_ruleset_publishes_every_port_in_one_transaction():
    text = render_host(NAMES, RANGES, KernelState(balanced=(SERVED, EMPTY), forwarded=(HOST,)))
    assert text.startswith(f"table ip {NAMES.table} {{\n}}\ndelete table ip {NAMES.table}\n")
    assert "elements = { tcp . 8080, udp . 53 }" in text
    assert "elements = { tcp . 9000 : 172.18.0.2 . 80 }" in text


def test_sandbox_ruleset_has_a_chain_only_for_ports_with_backends():
    text = render_sandbox(NAMES, RANGES, KernelState(balanced=(SERVED, EMPTY)))
    assert "elements = { tcp . 8080 : goto port_tcp_8080 }" in text
    assert "dnat to numgen inc mod 2 map { 0 : 10.0.0.2, 1 : 10.0.0.3 }:80" in text
    assert "port_udp_53" not in text


def test_batches_hold_the_least_that_leads_there():
    begin, end = 16, 17
    new_chain, delete_chain, new_rule, delete_rule, new_set, new_element, delete_element = 3, 5, 6, 8, 9, 12, 14
    added = SetBalanced(port=SERVED, is_new=True)
    assert messages(host_batch("t", [added])) == [begin, new_element, end]
    assert messages(sandbox_batch("t", [added], {})) == [
        begin, new_chain, new_set, new_element, new_rule, new_element, end
    ]  # fmt: skip
    changed = SetBalanced(port=SERVED, is_new=False)
    assert host_batch("t", [changed]).is_empty
    assert messages(sandbox_batch("t", [changed], {SERVED.key: SERVED})) == [
        begin, delete_rule, new_set, new_element, new_rule, end
    ]  # fmt: skip
    removed = RemoveBalanced(port=SERVED)
    assert messages(sandbox_batch("t", [removed], {SERVED.key: SERVED})) == [
        begin, delete_element, delete_rule, delete_chain, end
    ]  # fmt: skip
    assert sandbox_batch("t", [RemoveBalanced(port=EMPTY)], {EMPTY.key: EMPTY}).is_empty
    assert messages(host_batch("t", [SetForwarded(port=HOST, replaces=HOST)])) == [
        begin, delete_element, new_element, end
    ]  # fmt: skip


def test_attributes_stop_at_nonsense():
    assert list(attributes(b"\x06\x00\x01\x00ab\0\0\x00\x00\x02\x00")) == [(1, b"ab")]
