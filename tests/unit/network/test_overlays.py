from hypothesis import given
from hypothesis import strategies as st

from shoal.model.netstate import (
    DataPath,
    NetworkChange,
    Overlay,
    OverlayEndpoint,
    OverlayService,
    OverlayUpdate,
    Peer,
)
from shoal.network.overlays import (
    Balance,
    Holding,
    balances_of,
    changed_services,
    cuts_between,
    hosts_of,
    in_order_of,
    mac_of_addresses,
    merge,
    own_address,
    remotes_of,
)

BLUE, GREEN = (Overlay(network_id=name, name=name, vni=4097) for name in ("blue", "green"))
PATH = DataPath(peers=(Peer(node_number=1, address="10.98.0.1"), Peer(node_number=2, address="10.98.0.2")))


def endpoint(last, node_number=1, serving=True):
    return OverlayEndpoint(
        task_id=f"t{last}", name=f"t{last}", addresses=(f"10.0.1.{last}",), node_number=node_number, serving=serving
    )


def service(name, *endpoints, affinity="random"):
    return OverlayService(
        service_id=name, names=(name,), virtual_ips=("10.0.1.2",), affinity=affinity, endpoints=endpoints
    )


def change(version, *updates, **others):
    return NetworkChange(version=version, overlays=updates, **others)


def test_a_difference_changes_what_it_names_and_a_whole_replaces():
    held = merge(
        Holding(), change(1, OverlayUpdate(overlay=BLUE, services=(service("a"), service("b"))), data_path=PATH)
    )
    held = merge(held, change(2, OverlayUpdate(overlay=BLUE, services=(service("c"),), removed_service_ids=("a",))))
    assert held.overlays["blue"].services.keys() == {"b", "c"}
    assert (held.version, held.data_path) == (2, PATH)
    held = merge(held, change(3, OverlayUpdate(overlay=BLUE, complete=True, services=(service("d"),))))
    assert held.overlays["blue"].services.keys() == {"d"}


def test_networks_come_stay_and_go():
    held = merge(Holding(), change(1, OverlayUpdate(overlay=BLUE), OverlayUpdate(overlay=GREEN)))
    assert merge(held, change(2)).overlays == held.overlays
    assert merge(held, change(2, removed_network_ids=("blue",))).overlays.keys() == {"green"}
    assert merge(held, change(2, OverlayUpdate(overlay=BLUE), complete=True)).overlays.keys() == {"blue"}


def test_only_what_differs_counts_as_changed():
    first, second = service("a", endpoint(11)), service("b", endpoint(12))
    before = merge(Holding(), change(1, OverlayUpdate(overlay=BLUE, services=(first, second)))).overlays["blue"]
    alike = OverlayUpdate(
        overlay=BLUE, complete=True, services=(service("a", endpoint(11)), service("b", endpoint(13)))
    )
    after = merge(Holding(overlays={"blue": before}), change(2, alike)).overlays["blue"]
    assert changed_services(before, after) == ([second], [service("b", endpoint(13))])
    assert changed_services(None, after)[0] == []
    assert changed_services(after, None)[1] == []


def test_remotes_are_on_nodes_that_are_known_and_not_this_one():
    services = [service("a", endpoint(11, 1), endpoint(12, 2), endpoint(13, 3, serving=False))]
    remotes = remotes_of(services, hosts_of(PATH, 1))
    assert [(remote.host, remote.addresses) for remote in remotes.values()] == [("10.98.0.2", ("10.0.1.12",))]
    assert list(remotes) == [bytes.fromhex("02420a00010c")]
    assert (own_address(PATH, 1), own_address(PATH, 9)) == ("10.98.0.1", None)


def test_the_mac_follows_the_ipv4_address_else_a_hash():
    assert mac_of_addresses(("fd00::5/64", "10.0.1.12/24")) == bytes.fromhex("02420a00010c")
    assert mac_of_addresses(("fd00::5/64",)) == mac_of_addresses(("fd00:0::5",))
    assert mac_of_addresses(("fd00::5",)) != mac_of_addresses(("fd00::6",))


def test_only_serving_endpoints_are_balanced_and_near_ones_preferred():
    endpoints = endpoint(11, 1), endpoint(12, 2), endpoint(13, 2, serving=False)
    found = balances_of([service("a", *endpoints)], 1)["10.0.1.2"]
    assert (found.addresses, found.is_by_source) == (("10.0.1.11", "10.0.1.12"), False)
    near = service("a", *endpoints, affinity="prefer-local")
    assert balances_of([near], 2)["10.0.1.2"].addresses == ("10.0.1.12",)
    assert balances_of([near], 3)["10.0.1.2"].addresses == ("10.0.1.11", "10.0.1.12")
    assert balances_of([service("a", affinity="source")], 1)["10.0.1.2"].is_by_source


def balance(*addresses):
    return Balance(virtual_ip="10.0.1.2", addresses=addresses)


def test_order_changes_least():
    assert in_order_of(balance("a", "b", "c", "d"), balance("a", "c", "d")).addresses == ("a", "d", "c")
    assert in_order_of(balance("a", "b"), balance("b", "c", "a")).addresses == ("a", "b", "c")
    assert in_order_of(balance("a", "b"), balance()).addresses == ()


ADDRESSES = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(ADDRESSES, ADDRESSES)
def test_order_keeps_the_content_and_touches_few(before, wanted):
    made = in_order_of(balance(*before), balance(*wanted)).addresses
    assert sorted(made) == sorted(wanted)
    touched = sum(made[index : index + 1] != tuple(before[index : index + 1]) for index in range(len(made)))
    assert touched <= len(set(wanted) ^ set(before))


def test_flows_are_cut_by_what_became_of_the_backend():
    was = [service("a", endpoint(11), endpoint(12), endpoint(13))]
    now = [service("a", endpoint(11), endpoint(12, serving=False))]
    cuts = cuts_between(was, now, balances_of(was, 1), balances_of(now, 1))
    assert cuts.withdrawn == {("10.0.1.2", "10.0.1.12"), ("10.0.1.2", "10.0.1.13")}
    assert cuts.gone == {"10.0.1.13"}
    assert cuts_between(now, was, balances_of(now, 1), balances_of(was, 1)).is_empty
