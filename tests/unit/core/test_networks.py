"""Networks: their specs, their subnets and VXLAN ids, the addresses on them, Shoal's labels."""

import pytest

from shoal.core.allocate.ipam import free_addresses
from shoal.core.allocate.subnets import allocate_network
from shoal.core.networks import ENCRYPTED_OPTION, MTU_OPTION, VNI_OPTION, overlay_options
from shoal.core.validate.network import prepare_network
from shoal.errors import Forbidden, InvalidArgument, NotBuilt, NotFound, ShoalError, Unavailable
from shoal.model.base import replace
from shoal.model.objects import Cluster, Network
from shoal.model.specs import IPAMOptions, IPAMPool, NetworkConfigSource, NetworkSpec

CLUSTER = Cluster(id="c")
INGRESS = Network(
    id="ingress",
    spec=NetworkSpec(name="ingress", ingress=True),
    subnets=("10.0.0.0/24",),
    gateways=("10.0.0.1",),
    vni=4096,
)


def spec(*pools: IPAMPool, **fields: object) -> NetworkSpec:
    base = NetworkSpec(name="net", driver="overlay", ipam=IPAMOptions(config=pools))
    return replace(base, **fields)


def allocated(*pools: IPAMPool, others: tuple[Network, ...] = (INGRESS,), **fields: object) -> Network:
    return allocate_network(Network(id="id", spec=prepare_network(spec(*pools, **fields))), others, CLUSTER)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (spec(name="host"), Forbidden, "operation is not permitted on predefined host network"),
        (spec(name=""), InvalidArgument, "invalid name: "),
        (spec(name="a b"), InvalidArgument, "DNS name component"),
        (spec(driver="weave"), NotFound, 'plugin "weave" not found'),
        (spec(ipam=IPAMOptions(driver="dhcp")), NotBuilt, '"dhcp"'),
        (spec(IPAMPool(subnet="300.0.0.0/24")), InvalidArgument, "invalid subnet 300.0.0.0/24"),
        (spec(IPAMPool(subnet="10.1.0.1/24")), InvalidArgument, "it should be 10.1.0.0/24"),
        (spec(IPAMPool(subnet="10.1.0.0/30")), InvalidArgument, "too small"),
        (spec(IPAMPool(gateway="10.1.0.1")), InvalidArgument, "need a subnet"),
        (spec(IPAMPool(subnet="10.1.0.0/24", gateway="10.2.0.1")), InvalidArgument, "gateway 10.2.0.1"),
        (spec(IPAMPool(subnet="10.1.0.0/24", gateway="x")), InvalidArgument, '"x"'),
        (spec(IPAMPool(subnet="10.1.0.0/24", ip_range="10.2.0.0/25")), InvalidArgument, "range 10.2.0.0/25"),
        (spec(IPAMPool(subnet="10.1.0.0/24", ip_range="x")), InvalidArgument, '"x"'),
        (
            spec(IPAMPool(subnet="10.1.0.0/24", auxiliary_addresses={"router": "10.9.0.9"})),
            InvalidArgument,
            "aux-address router 10.9.0.9",
        ),
        (spec(IPAMPool(subnet="10.1.0.0/24"), IPAMPool(subnet="10.1.0.0/16")), InvalidArgument, "overlap"),
        (spec(IPAMPool(subnet="fd00:1::/64")), InvalidArgument, "--ipv6"),
        (spec(options={VNI_OPTION: "x"}), InvalidArgument, "no number"),
        (spec(options={VNI_OPTION: "0"}), InvalidArgument, "VXLAN id"),
        (spec(options={MTU_OPTION: "60"}), InvalidArgument, "MTU"),
        (spec(options={MTU_OPTION: "1200"}, enable_ipv6=True), InvalidArgument, "1280"),
        (spec(ingress=True, attachable=True), InvalidArgument, "attachable"),
        (spec(ingress=True, internal=True), InvalidArgument, "internal"),
        (spec(enable_ipv4=False), InvalidArgument, "IPv4"),
        (spec(driver="ipvlan"), NotBuilt, "not built"),
        (spec(driver="macvlan", config_only=True), InvalidArgument, "leave --scope out"),
        (spec(config_from=NetworkConfigSource(network="c")), InvalidArgument, "ConfigFrom"),
    ],
)
def test_what_is_refused(bad: NetworkSpec, error: type[ShoalError], text: str) -> None:
    with pytest.raises(error) as caught:
        prepare_network(bad)
    assert text in caught.value.message


def test_options() -> None:
    options = overlay_options({VNI_OPTION: "5000,5001", MTU_OPTION: "1400", ENCRYPTED_OPTION: ""})
    assert (options.vnis, options.mtu_bytes, options.encrypted) == ((5000, 5001), 1400, True)
    assert not overlay_options({ENCRYPTED_OPTION: "false"}).encrypted


def test_subnets_and_vxlan_ids_are_the_first_that_are_free() -> None:
    first = allocated()
    assert (first.subnets, first.gateways, first.vni) == (("10.0.1.0/24",), ("10.0.1.1",), 4097)
    second = allocated(others=(INGRESS, first))
    assert (second.subnets, second.vni) == (("10.0.2.0/24",), 4098)
    wide = allocated(IPAMPool(subnet="10.0.0.0/16", gateway="10.0.3.7"), others=())
    assert wide.gateways == ("10.0.3.7",)
    assert allocated(others=(INGRESS, wide)).subnets == ("10.1.0.0/24",)


def test_what_another_network_has_is_refused() -> None:
    for pool, text in ((IPAMPool(subnet="10.0.0.0/16"), "ingress"), (IPAMPool(subnet="10.0.0.128/25"), "ingress")):
        with pytest.raises(InvalidArgument, match=text):
            allocated(pool)
    with pytest.raises(InvalidArgument, match="VXLAN id 4096 is in use by network ingress"):
        allocated(options={VNI_OPTION: "4096"})
    full = Network(id="all", spec=NetworkSpec(name="all"), subnets=("10.0.0.0/8",), gateways=("10.0.0.1",), vni=1)
    with pytest.raises(Unavailable, match="no subnet of /24 is free"):
        allocated(others=(full,))


def test_dual_stack() -> None:
    made = allocated(enable_ipv6=True)
    assert [":" in subnet for subnet in made.subnets] == [False, True]
    assert made.subnets[1].startswith("fd")
    addresses = free_addresses(made, {"10.0.1.2"}, "owner")
    assert addresses is not None
    assert [address.rpartition("/")[2] for address in addresses] == ["24", "64"]
    asked = allocated(IPAMPool(subnet="fd00:1::/64"), enable_ipv6=True)
    assert asked.subnets == ("10.0.1.0/24", "fd00:1::/64")


def test_ranges_and_reserved_addresses_are_kept() -> None:
    pool = IPAMPool(subnet="10.5.0.0/24", ip_range="10.5.0.128/30", auxiliary_addresses={"router": "10.5.0.130"})
    made = allocated(pool)
    assert made.gateways == ("10.5.0.129",)
    used: set[str] = set()
    while (found := free_addresses(made, used, "owner")) is not None:
        used.add(found[0].partition("/")[0])
    assert used == {"10.5.0.128", "10.5.0.131"}
