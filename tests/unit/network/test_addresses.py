import ipaddress

from shoal.network.addresses import choose_range, host_of, next_address


def test_choose_range_takes_the_first_that_overlaps_nothing():
    taken = [ipaddress.IPv4Network("172.18.4.0/24"), ipaddress.IPv4Network("172.16.0.0/13")]
    assert choose_range(["172.18.0.0/16", "172.23.0.0/16", "172.24.0.0/16"], taken) == "172.24.0.0/16"
    assert choose_range(["172.18.0.0/16"], taken) is None


def test_addresses_go_round_and_end():
    network = "10.9.0.0/29"
    assert host_of(network, 1) == "10.9.0.1"
    given, last = [], None
    for _ in range(5):
        last = next_address(network, given, last)
        given.append(last)
    assert given == [f"10.9.0.{number}" for number in range(2, 7)]
    assert next_address(network, given, last) is None
    given.remove("10.9.0.3")
    assert next_address(network, given, last) == "10.9.0.3"
    assert next_address(network, [], "10.9.0.3") == "10.9.0.4", "not the one that was just given back"
