from shoal.network.overlays import Balance
from shoal.network.vips import change_batch, way_of, ways_of, whole_batch
from tests.unit.network.test_rules import messages

BEGIN, END = 16, 17
NEW_CHAIN, NEW_RULE, NEW_ELEMENT, DELETE_ELEMENT = 3, 6, 12, 14
VIP = "10.0.1.2"


def balances(*addresses, by_source=False):
    return {VIP: Balance(virtual_ip=VIP, addresses=addresses, is_by_source=by_source)}


def test_ways_are_told_apart():
    random, source = balances("10.0.1.3", "10.0.1.4")[VIP], balances("10.0.1.3", "10.0.1.4", by_source=True)[VIP]
    six = Balance(virtual_ip="fd00::2", addresses=("fd00::3", "fd00::4"))
    ways = [way_of(balance) for balance in (random, source, six)]
    assert [way.chain for way in ways] == ["random_2", "source_2", "random6_2"]
    assert len({way.number for way in ways}) == 3
    nobody = way_of(balances()[VIP])
    assert (nobody.chain, nobody.number) == ("refuse", 0)
    assert ways_of([random, balances()[VIP]]) == {ways[0]}


def test_a_change_holds_the_least_that_leads_there():
    two, three = balances("10.0.1.3", "10.0.1.4"), balances("10.0.1.3", "10.0.1.4", "10.0.1.5")
    assert messages(change_batch(two, three)) == [BEGIN, DELETE_ELEMENT, NEW_ELEMENT, NEW_ELEMENT, END]
    assert messages(change_batch(two, three, ways_of(three.values()))) == [
        BEGIN, NEW_CHAIN, NEW_RULE, NEW_ELEMENT, DELETE_ELEMENT, NEW_ELEMENT, NEW_ELEMENT, END
    ]  # fmt: skip
    other = balances("10.0.1.3", "10.0.1.9")
    assert messages(change_batch(two, other)) == [BEGIN, DELETE_ELEMENT, NEW_ELEMENT, END]
    assert messages(change_batch(two, {})) == [BEGIN, DELETE_ELEMENT, DELETE_ELEMENT, END]
    assert change_batch(two, two).is_empty


def test_a_thousand_services_are_a_handful_of_messages():
    many = {}
    for number in range(1000):
        vip = f"10.1.{number // 250}.{number % 250}"
        addresses = tuple(f"10.2.{number // 250}.{number % 250}" for _ in range(1))
        many[vip] = Balance(virtual_ip=vip, addresses=addresses)
    assert len(messages(whole_batch(many))) < 30
