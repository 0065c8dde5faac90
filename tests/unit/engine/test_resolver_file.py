import pytest

from shoal.engine.rootfs import resolv_text
from shoal.model.base import replace
from shoal.model.container import RESOLVER_ADDRESS, ContainerConfig

HOST = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.9.9.9\nsearch example.org\noptions edns0 trust-ad\n"
CONFIG = ContainerConfig(name="n", image="i")
SERVED = replace(CONFIG, resolver_address=RESOLVER_ADDRESS)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONFIG, "nameserver 10.9.9.9\nsearch example.org\n"),
        (replace(CONFIG, dns_nameservers=("10.1.1.1",)), "nameserver 10.1.1.1\nsearch example.org\n"),
        (SERVED, "nameserver 127.0.0.11\nsearch example.org\noptions edns0 trust-ad ndots:0\n"),
        (
            replace(SERVED, dns_nameservers=("10.1.1.1",), dns_search=("a.b", "c"), dns_options=("timeout:3",)),
            "nameserver 127.0.0.11\nsearch a.b c\noptions timeout:3 ndots:0\n",
        ),
        (
            replace(SERVED, dns_search=(".",), dns_options=("ndots:5", "rotate")),
            "nameserver 127.0.0.11\noptions ndots:5 rotate\n",
        ),
    ],
)
def test_resolv_conf(config, expected):
    assert resolv_text(config, HOST) == expected


def test_a_host_without_the_file():
    assert resolv_text(SERVED, "") == "nameserver 127.0.0.11\noptions ndots:0\n"
