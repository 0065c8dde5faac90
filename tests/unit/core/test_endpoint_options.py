"""Driver options of one place on a network."""

import pytest

from shoal.core.endpoint_options import (
    INTERFACE_OPTION,
    SYSCTLS_OPTION,
    ignored_options,
    parse_link_options,
    refuse_ignored_options,
    refuse_same_interfaces,
)
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.netstate import LinkOptions


def test_what_options_mean():
    text = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0"
    found = parse_link_options({INTERFACE_OPTION: "lan0", SYSCTLS_OPTION: text}, "DriverOpts")
    sysctls = (("net/ipv4/conf/IFNAME/log_martians", "1"), ("net/ipv6/conf/IFNAME/accept_ra", "0"))
    assert found == LinkOptions(interface="lan0", sysctls=sysctls)
    assert parse_link_options({}, "DriverOpts") == LinkOptions()


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        (INTERFACE_OPTION, "", InvalidArgument),
        (INTERFACE_OPTION, "lo", InvalidArgument),
        (INTERFACE_OPTION, "..", InvalidArgument),
        (INTERFACE_OPTION, "a/b", InvalidArgument),
        (INTERFACE_OPTION, "sixteen-letters-", InvalidArgument),
        (SYSCTLS_OPTION, "", InvalidArgument),
        (SYSCTLS_OPTION, "net.ipv4.conf.IFNAME.log_martians", InvalidArgument),
        (SYSCTLS_OPTION, "net.ipv4.conf.eth0.log_martians=1", InvalidArgument),
        (SYSCTLS_OPTION, "kernel.ipv4.conf.IFNAME.log_martians=1", InvalidArgument),
        (SYSCTLS_OPTION, "net.ipv4.../conf.IFNAME.log_martians=1", InvalidArgument),
    ],
)
def test_what_is_refused_by_name(name, value, kind):
    with pytest.raises(kind, match="DriverOpts") as caught:
        parse_link_options({name: value}, "DriverOpts")
    assert name in caught.value.message


def test_two_links_of_one_name():
    refuse_same_interfaces([LinkOptions(), LinkOptions(), LinkOptions(interface="a"), LinkOptions(interface="b")])
    with pytest.raises(InvalidArgument, match="cannot both be a"):
        refuse_same_interfaces([LinkOptions(interface="a"), LinkOptions(interface="a")])


def test_options_of_other_drivers_say_nothing_and_are_told():
    assert parse_link_options({"colour": "red"}, "DriverOpts") == LinkOptions()
    told = list(ignored_options({"colour": "red", INTERFACE_OPTION: "lan0"}, "DriverOpts"))
    assert told == [
        f"DriverOpts: driver option colour means nothing here; there are {INTERFACE_OPTION} and {SYSCTLS_OPTION}"
    ]
    with pytest.raises(NotBuilt, match="colour means nothing here"):
        refuse_ignored_options({"colour": "red"}, "DriverOpts")
