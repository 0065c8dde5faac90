import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.model.netstate import Overlay, OverlayEndpoint, OverlayService, OverlayUpdate
from shoal.network.names.answers import Answers, Elsewhere
from shoal.network.names.table import NetworkTable
from tests import dns

FRONT = Overlay(network_id="n1", name="Front", vni=4097, subnets=("10.0.1.0/24", "fd00:1::/64"))
BACK = Overlay(network_id="n2", name="back.end", vni=4098, subnets=("10.0.2.0/24",))


def endpoint(name, *addresses, aliases=(), serving=True):
    return OverlayEndpoint(
        task_id=name, name=name, addresses=addresses, node_number=1, aliases=aliases, serving=serving
    )


def service(service_id, names, *endpoints, virtual_ips=()):
    return OverlayService(service_id=service_id, names=names, virtual_ips=virtual_ips, endpoints=endpoints)


WEB = service(
    "s1", ("web", "WWW"),
    endpoint("web.1.T1", "10.0.1.11", "fd00:1::11", aliases=("first",)),
    endpoint("web.2.t2", "10.0.1.12"),
    endpoint("web.3.t3", "10.0.1.13", serving=False),
    virtual_ips=("10.0.1.2",),
)  # fmt: skip
DATABASE = service("s2", ("db",), endpoint("db.1.x", "10.0.2.21"), endpoint("db.2.y", "10.0.2.22"))


def make(*networks):
    tables = {}
    for overlay, services in networks:
        tables[overlay.network_id] = NetworkTable(overlay)
        tables[overlay.network_id].update(OverlayUpdate(overlay=overlay, complete=True, services=services))
    return Answers([overlay.network_id for overlay, _ in networks], tables), tables


def ask(answers, name, kind="A", is_stream=False, **keywords):
    response = answers.answer(dns.query(name, kind, **keywords), is_stream)
    if isinstance(response, Elsewhere):
        return "elsewhere"
    found = dns.read(response)
    return sorted(found.records) if found.code == 0 else found.code


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("web", ["10.0.1.2"]),
        ("www", ["10.0.1.2"]),
        ("WEB.", ["10.0.1.2"]),
        ("web.front", ["10.0.1.2"]),
        ("tasks.web", ["10.0.1.11", "10.0.1.12"]),
        ("tasks.www.front", ["10.0.1.11", "10.0.1.12"]),
        ("web.1.t1", ["10.0.1.11"]),
        ("web.1.t1.front", ["10.0.1.11"]),
        ("first", ["10.0.1.11"]),
        ("web.3.t3", "elsewhere"),
        ("db", ["10.0.2.21", "10.0.2.22"]),
        ("tasks.db", ["10.0.2.21", "10.0.2.22"]),
        ("db.back.end", ["10.0.2.21", "10.0.2.22"]),
        ("db.front", "elsewhere"),
        ("web.back.end", "elsewhere"),
        ("front", "elsewhere"),
        ("example.org", "elsewhere"),
        ("", "elsewhere"),
    ],
)
def test_names(name, expected):
    answers, _ = make((FRONT, (WEB,)), (BACK, (DATABASE,)))
    for _ in range(2):
        assert ask(answers, name) == expected
        assert ask(answers, name, is_stream=True) == expected
        assert ask(answers, name, udp_bytes=1232) == expected


def test_a_known_name_is_never_asked_elsewhere():
    answers, _ = make((FRONT, (WEB,)))
    assert ask(answers, "web", "AAAA") == []
    assert ask(answers, "web", "MX") == []
    assert ask(answers, "web.1.t1", "AAAA") == ["fd00:1::11"]
    assert ask(answers, "web.1.t1", "ANY") == ["10.0.1.11", "fd00:1::11"]
    assert ask(answers, "web", class_=3) == "elsewhere"


def test_a_service_without_serving_tasks_is_known():
    answers, _ = make((BACK, (service("s", ("db",), endpoint("db.1.x", "10.0.2.21", serving=False)),)))
    assert ask(answers, "db") == []
    assert ask(answers, "tasks.db") == []


def test_reverse():
    answers, _ = make((FRONT, (WEB,)), (BACK, (DATABASE,)))

    def reverse(address):
        return ask(answers, ipaddress.ip_address(address).reverse_pointer, "PTR")

    assert reverse("10.0.1.11") == ["web.1.t1.front"]
    assert reverse("fd00:1::11") == ["web.1.t1.front"]
    assert reverse("10.0.1.2") == ["web.front"]
    assert reverse("10.0.2.22") == ["db.2.y.back.end"]
    assert reverse("10.0.1.200") == 3, "an address of a network, but nobody's"
    assert reverse("10.0.9.1") == "elsewhere"
    assert ask(answers, "11.1.0.10.in-addr.arpa", "A") == []
    for broken in ("1.0.10.in-addr.arpa", "x.1.0.10.in-addr.arpa", "1.2.ip6.arpa", ".".join("g" * 32) + ".ip6.arpa"):
        assert ask(answers, broken, "PTR") == "elsewhere"


def test_networks_in_order_and_only_ones_own():
    other = service("s9", ("web",), endpoint("web.1.z", "10.0.2.9"))
    answers, tables = make((FRONT, (WEB,)), (BACK, (other,)))
    assert ask(answers, "web") == ["10.0.1.2"]
    assert ask(answers, "web.back.end") == ["10.0.2.9"]
    assert ask(Answers(["n2", "n1"], tables), "web") == ["10.0.2.9"]
    assert ask(Answers(["n2", "n3"], tables), "first") == "elsewhere"
    assert ask(Answers([], tables), "web") == "elsewhere"


def test_a_shared_alias_gives_the_addresses_of_both():
    blue = service("s1", ("blue", "app"), endpoint("blue.1.a", "10.0.1.11"), virtual_ips=("10.0.1.2",))
    green = service("s2", ("green", "app"), endpoint("green.1.a", "10.0.1.12"), virtual_ips=("10.0.1.3",))
    answers, tables = make((FRONT, (blue, green)))
    assert ask(answers, "app") == ["10.0.1.2", "10.0.1.3"]
    assert ask(answers, "tasks.app") == ["10.0.1.11", "10.0.1.12"]
    tables["n1"].update(OverlayUpdate(overlay=FRONT, removed_service_ids=("s1", "never")))
    answers.forget()
    assert ask(answers, "app") == ["10.0.1.3"]
    assert ask(answers, "blue") == "elsewhere"


def test_every_task_comes_first_in_its_turn():
    many = service("s", ("db",), *(endpoint(f"db.{n}.x", f"10.0.2.{n}") for n in range(1, 201)))
    answers, _ = make((BACK, (DATABASE,)))
    firsts = [dns.read(answers.answer(dns.query("db"))).records[0] for _ in range(4)]
    assert sorted(firsts) == ["10.0.2.21", "10.0.2.21", "10.0.2.22", "10.0.2.22"]
    answers, _ = make((BACK, (many,)))
    seen = set()
    for _ in range(32):
        response = dns.read(answers.answer(dns.query("db")))
        assert response.truncated
        seen.update(response.records)
    assert len(seen) == 200
    assert len(ask(answers, "db", is_stream=True)) == 200


def test_many_queries_do_not_fill_the_memory():
    answers, _ = make((FRONT, (WEB,)))
    for number in range(2000):
        assert ask(answers, "web", number=number) == ["10.0.1.2"]
        assert ask(answers, f"{''.join(c.upper() if number >> i & 1 else c for i, c in enumerate('first.front'))}")
    assert len(answers._prepared) <= 512


SERVICES = st.builds(
    service,
    st.sampled_from(["s1", "s2", "s3"]),
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=2, unique=True).map(tuple),
    st.builds(
        endpoint,
        st.sampled_from(["a", "t1", "t2"]),
        st.sampled_from(["10.0.1.1", "10.0.1.2", "fd00:1::1", "nonsense"]),
        serving=st.booleans(),
    ),
    virtual_ips=st.sampled_from([(), ("10.0.1.9",), ("10.0.1.8", "fd00:1::8")]),
)
UPDATES = st.builds(
    lambda complete, services, removed: OverlayUpdate(
        overlay=FRONT, complete=complete, services=tuple(services), removed_service_ids=() if complete else removed
    ),
    st.booleans(),
    st.lists(SERVICES, max_size=3, unique_by=lambda each: each.service_id),
    st.lists(st.sampled_from(["s1", "s2", "s3"]), max_size=2, unique=True).map(tuple),
)


@given(st.lists(UPDATES, max_size=8))
def test_differences_lead_where_the_whole_leads(updates):
    table = NetworkTable(FRONT)
    for update in updates:
        table.update(update)
    fresh = NetworkTable(FRONT)
    fresh.update(table.whole())
    assert table._names == fresh._names
    assert table._reverse == fresh._reverse


@given(st.binary(max_size=60))
def test_nothing_raises(data):
    answers, _ = make((FRONT, (WEB,)))
    for query in (data, dns.query("web")[:12] + data, dns.query("web") + data):
        for is_stream in (False, True):
            answers.answer(query, is_stream)
