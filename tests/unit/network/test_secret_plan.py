"""The WireGuard mesh of encrypted networks, as it should be and as texts."""

import pytest

from shoal.errors import Unavailable
from shoal.model.base import replace
from shoal.model.netstate import DataPath, Peer
from shoal.network.nft import take_away
from shoal.network.secret_plan import (
    desired_secret,
    peers_to_greet,
    published_key,
    render_configuration,
    render_guard,
    secret_hosts,
    secret_mtu_bytes,
)
from shoal.network.settings import NetworkSettings, names_of
from shoal.network.wireguard import find_way

SETTINGS = NetworkSettings()
PATH = DataPath(
    peers=(
        Peer(node_number=3, address="fd00::3", wireguard_key="k3"),
        Peer(node_number=1, address="10.0.0.1", wireguard_key="k1"),
        Peer(node_number=2, address="10.0.0.2"),
        Peer(node_number=258, address="10.0.0.4", wireguard_key="k258", wireguard_port=7000),
    )
)


def test_nodes_without_a_key_and_this_one_are_left_out():
    mesh = desired_secret(PATH, 1, SETTINGS)
    assert (mesh.address, mesh.port) == ("100.126.0.1", 51820)
    assert [(peer.key, peer.address) for peer in mesh.peers] == [("k3", "100.126.0.3"), ("k258", "100.126.1.2")]
    assert secret_hosts(PATH, 1, SETTINGS) == {3: "100.126.0.3", 258: "100.126.1.2"}
    with pytest.raises(Unavailable, match="no number"):
        desired_secret(PATH, 0, SETTINGS)


def test_the_configuration_leads_each_address_to_its_node_alone():
    text = render_configuration(desired_secret(PATH, 1, SETTINGS), "private")
    assert text.startswith("[Interface]\nPrivateKey = private\nListenPort = 51820\n[Peer]\nPublicKey = k3\n")
    assert "Endpoint = [fd00::3]:51820\nAllowedIPs = 100.126.0.3/32\n" in text
    assert "Endpoint = 10.0.0.4:7000\nAllowedIPs = 100.126.1.2/32\n" in text


def test_peers_whose_key_changed_are_greeted_all_after_the_own_has_and_none_that_is_not_talked_to():
    after = desired_secret(PATH, 1, SETTINGS)
    before = replace(after, peers=(after.peers[0], replace(after.peers[1], key="old")))
    both = ["100.126.0.3", "100.126.1.2"]
    assert peers_to_greet(None, after, False, both) == both
    assert peers_to_greet(before, after, False, both) == both[1:]
    assert peers_to_greet(after, after, True, both) == both
    assert peers_to_greet(after, after, True, both[:1]) == both[:1]
    assert peers_to_greet(after, after, False, both) == []
    assert (published_key(PATH, 3), published_key(PATH, 9)) == ("k3", "")


def test_the_guard_drops_by_identifier_whatever_is_not_on_the_link():
    names = names_of("d")
    text = render_guard(names, 4790, {4102, 4099})
    assert text.startswith(take_away("inet", names.secret_table))
    for way in ("iifname", "oifname"):
        assert f'{way} != "{names.secret_link}" udp dport 4790 @th,96,24 {{ 4099, 4102 }} drop\n' in text
    assert len(names.secret_link) <= 15


def test_packets_are_shorter_by_what_wireguard_adds():
    assert secret_mtu_bytes(1450) == 1370
    assert secret_mtu_bytes(1300) == 1280


def test_without_programs_the_reason_says_what_to_install():
    with pytest.raises(Unavailable, match=r"wg-absent is missing: install wireguard-tools.*wireguard-go"):
        find_way(NetworkSettings(wireguard_tool="wg-absent"))
    absent = NetworkSettings(wireguard_tool="true", wireguard_program="absent", has_kernel_wireguard=False)
    with pytest.raises(Unavailable, match="neither the kernel nor a program"):
        find_way(absent)
