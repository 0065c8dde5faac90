from shoal.network.mesh_rules import (
    mesh_batch,
    render_mesh,
    render_path,
    render_return,
    return_batch,
)
from shoal.network.nfnetlink import sandbox_batch
from shoal.network.nft import render_sandbox, take_away
from shoal.network.settings import names_of
from shoal.network.state import BalancedPort, KernelState, SetBalanced
from tests.unit.network.test_rules import RANGES, messages

NAMES = names_of("daemon")


def test_rulesets_replace_their_table_and_know_the_nodes():
    text = render_mesh(NAMES, RANGES, [3, 258])
    assert text.startswith(f"table ip {NAMES.table}_mesh {{\n}}\ndelete table ip {NAMES.table}_mesh\n")
    assert "elements = { 02:42:0a:ff:00:03 : 0x10003, 02:42:0a:ff:01:02 : 0x10102 }" in text
    assert "elements = { 02:42:0a:ff:00:03 : 3, 02:42:0a:ff:01:02 : 258 }" in text
    assert "elements" not in render_mesh(NAMES, RANGES, [])
    back = render_return(NAMES, [3])
    assert "elements = { 0x10003 : 02:42:0a:ff:00:03 }" in back
    assert 'hook egress device "ing0"' in back
    assert back.startswith(take_away("netdev", NAMES.mesh_table))
    path = render_path(NAMES, 4790)
    assert path.startswith(take_away("inet", NAMES.path_table))
    assert path.count("udp dport 4790") == 2


def test_batches_name_the_nodes_that_come_or_go():
    begin, end, new_element, delete_element = 16, 17, 12, 14
    assert mesh_batch("t", [], []).is_empty
    assert messages(mesh_batch("t", [2], [])) == [begin, new_element, new_element, end]
    assert messages(mesh_batch("t", [2], [3])) == [begin, *[delete_element] * 2, *[new_element] * 2, end]
    assert messages(return_batch("t", range(1, 2002), [])) == [begin, *[new_element] * 3, end]


def test_affinity_to_the_source_as_text_and_as_batch():
    port = BalancedPort(protocol="tcp", published_port=80, target_port=8080, addresses=("10.0.0.1",), by_source=True)
    text = render_sandbox(NAMES, RANGES, KernelState(balanced=(port,)))
    assert "dnat to jhash ip saddr mod 1 seed 0x5ea5 map { 0 : 10.0.0.1 }:8080" in text
    data, _ = sandbox_batch("t", [SetBalanced(port=port, is_new=True)], {}).finish()
    assert b"hash\0" in data
    assert b"numgen" not in data
